# SPDX-License-Identifier: MIT
"""
The OpenSSL that cryptography brings, configured for this listener.

Which groups key exchange prefers, and that no session tickets are given out, can be
told to it by a configuration file alone. It is read once, when cryptography is loaded
for the first time in a process: so this module must be imported before that, and
`hsm_server.tls.groups.check_groups` tells if it was not.

Python's own `ssl` has another copy of OpenSSL in most installations; it is loaded here
first, so that the configuration is not applied to it.
"""

from __future__ import annotations

import os
import ssl  # noqa: F401 (see above)
from pathlib import Path
from typing import Final

__all__ = ["SSL", "crypto", "reason_of"]

_VARIABLE: Final = "OPENSSL_CONF"

_before = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = str(Path(__file__).with_name("openssl.cnf"))
try:
    from OpenSSL import SSL, crypto
finally:
    if _before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _before


def reason_of(error: SSL.Error) -> str:
    """Return what OpenSSL objects to, in its words, such as ``ee key too small``."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(entries[0][-1]) if entries else "unknown"

# SPDX-License-Identifier: MIT
"""
OpenSSL of the cryptography package, configured for this listener.

Only a configuration file can set the preferred groups and disable session tickets.
OpenSSL reads it once, when a process first loads cryptography, so this module must be
imported before that. `hsm_server.tls.handshakes.check_groups` detects a violation.

Python's `ssl` usually has another copy of OpenSSL. It is loaded first here, so that the
configuration does not apply to it.
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
    """Return OpenSSL's reason, such as ``ee key too small``."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(entries[0][-1]) if entries else "unknown"

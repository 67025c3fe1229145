# SPDX-License-Identifier: MIT
"""
TLS of the listener: what is shown, who is let in, and how both are renewed.

All that decides about a handshake is one value, `state.TLSState`. It is made where
certificates, staples and challenges come from, and every front end is given each new
one whole.

Whatever is imported of this package, OpenSSL is configured before: see `openssl`.
"""

import hsm_server.tls.openssl  # noqa: F401 (before the rest)

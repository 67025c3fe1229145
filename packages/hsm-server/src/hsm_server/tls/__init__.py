# SPDX-License-Identifier: MIT
"""
TLS of the listener: server certificates, client certificates, and their renewal.

One value, `state.TLSState`, determines a handshake. The TLS manager creates it, and
every front end receives each new one as a whole.

Importing any module of this package configures OpenSSL first: see `openssl`.
"""

import hsm_server.tls.openssl  # noqa: F401 (before the rest)

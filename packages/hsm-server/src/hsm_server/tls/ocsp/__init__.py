# SPDX-License-Identifier: MIT
"""
Certificate status by OCSP (RFC 6960).

Nothing here runs inside a handshake: staples are fetched in advance, and client
certificates are checked between handshake and first request.
"""

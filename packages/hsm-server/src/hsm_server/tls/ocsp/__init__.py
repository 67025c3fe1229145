# SPDX-License-Identifier: MIT
"""
Whether certificates are revoked, as their CAs' responders say (OCSP, RFC 6960).

Nothing here is done inside a handshake: staples are fetched before they are needed, and
client certificates asked after between handshake and first request.
"""

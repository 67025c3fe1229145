# SPDX-License-Identifier: MIT
"""
ACME challenges: proofs of control over a name.

The library supports HTTP-01 but no longer TLS-ALPN-01, which is added here.
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import acme.challenges
from acme.challenges import (
    HTTP01,
    ChallengeResponse,
    KeyAuthorizationChallenge,
    KeyAuthorizationChallengeResponse,
)
from cryptography import x509
from josepy.jwk import JWK

from hsm_server.tls.acme.self_signed import self_signed
from hsm_server.tls.state import Challenge

_LIFE: Final = timedelta(days=1)
_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING: Final = 0x04


@ChallengeResponse.register
class TLSALPN01Response(KeyAuthorizationChallengeResponse):
    """Response to a TLS-ALPN-01 challenge."""

    typ = "tls-alpn-01"


@acme.challenges.Challenge.register
class TLSALPN01(KeyAuthorizationChallenge):
    """
    TLS-ALPN-01 challenge, answered by a certificate in a dedicated handshake.

    Standard:
        RFC 8737, section 3.
    """

    response_cls = TLSALPN01Response
    typ = response_cls.typ

    def validation(self, account_key: JWK, **_: Any) -> bytes:
        """Return the digest that the certificate must have."""
        return hashlib.sha256(self.key_authorization(account_key).encode()).digest()


class Proof(StrEnum):
    """Challenge types of this server."""

    TLS = TLSALPN01.typ
    HTTP = HTTP01.typ


def tls_challenge(name: str, digest: bytes) -> Challenge:
    """
    Return the certificate of a TLS-ALPN-01 challenge.

    Args:
        name: DNS name or IP address.

        digest: SHA-256 of the key authorization.

    Standard:
        RFC 8737, section 3; for addresses RFC 8738, section 6.
    """
    value = bytes((_OCTET_STRING, len(digest))) + digest
    extension = x509.UnrecognizedExtension(_IDENTIFIER, value)
    pair = self_signed([name], life=_LIFE, extensions=[(extension, True)])
    return Challenge(name=_server_name(name), pair=pair)


def _server_name(name: str) -> str:
    try:
        return ipaddress.ip_address(name).reverse_pointer
    except ValueError:
        return name

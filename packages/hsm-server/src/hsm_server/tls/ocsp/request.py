# SPDX-License-Identifier: MIT
"""OCSP request, by POST with a nonce or by GET without one."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder

from hsm_server.tls.ocsp.subject import Subject

NONCE_BYTES: Final = 32
"""Length of a nonce (RFC 9654, section 2.1)."""

_GET_BYTES: Final = 255
"""Maximum length of an encoded GET request (RFC 5019, section 5)."""


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """
    Request for the status of one certificate.

    Attributes:
        der: An OCSPRequest.
        nonce: The nonce, which the response repeats if the responder supports nonces;
            or empty.
    """

    der: bytes
    nonce: bytes


def build_request(subject: Subject, *, has_nonce: bool = True) -> StatusRequest:
    """
    Build a request for one certificate.

    The certificate is named by SHA-1, which every responder knows. It is a name and no
    proof: what the responder says of it is signed.

    Args:
        subject: Is asked after.

        has_nonce: Whether 32 bytes from the system's generator are sent along.

    Standard:
        RFC 6960, section 4.1; RFC 5019, section 2.1.1 (SHA-1, one certificate, no
        signature); RFC 9654 (nonce).
    """
    nonce = secrets.token_bytes(NONCE_BYTES) if has_nonce else b""
    builder = OCSPRequestBuilder().add_certificate(
        subject.certificate,
        subject.issuer,
        SHA1(),  # noqa: S303 (a name)
    )
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return StatusRequest(builder.build().public_bytes(Encoding.DER), nonce)


def get_url(url: str, request: StatusRequest) -> str | None:
    """
    Return the URL of the GET request; None if it is too long.

    Standard:
        RFC 6960, appendix A.1; RFC 5019, section 5.
    """
    encoded = quote(base64.b64encode(request.der).decode(), safe="")
    return f"{url.rstrip('/')}/{encoded}" if len(encoded) <= _GET_BYTES else None

# SPDX-License-Identifier: MIT
"""OCSP requests: the certificate to query, its issuer, and reasons of failures."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder
from cryptography.x509.oid import AuthorityInformationAccessOID

from hsm_server.tls.certificates import der_of, has_signed, readable_extension_of


@dataclass(frozen=True, slots=True)
class Subject:
    """
    Certificate and its issuer.

    Attributes:
        certificate: The certificate.
        issuer: Its issuer, whose responder signs its status.
        urls: URLs of responders in the certificate; possibly none.
        fingerprint: SHA-256 of certificate and issuer, 32 bytes.
    """

    certificate: x509.Certificate = field(repr=False)
    issuer: x509.Certificate = field(repr=False)
    urls: tuple[str, ...]
    fingerprint: bytes = field(repr=False)


def subject_of(chain: Sequence[bytes | x509.Certificate]) -> Subject | None:
    """
    Return the first certificate of a chain as what may be asked after.

    Args:
        chain: As DER or parsed, the certificate in question first.

    Returns:
        None where the chain doesn't hold its issuer, so that nothing that is said of
        it can be checked.
    """
    certificate, *others = map(_parsed, chain)
    for issuer in others:
        if has_signed(issuer, certificate):
            both = der_of(certificate) + der_of(issuer)
            return Subject(
                certificate,
                issuer,
                responders_of(certificate),
                hashlib.sha256(both).digest(),
            )
    return None


def responders_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    Return the OCSP addresses that a certificate names, in its order.

    Standard:
        RFC 5280, section 4.2.2.1 (authority information access).
    """
    access = readable_extension_of(certificate, x509.AuthorityInformationAccess)
    return tuple(
        one.access_location.value
        for one in access or ()
        if one.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(one.access_location, x509.UniformResourceIdentifier)
    )


def is_must_staple(certificate: x509.Certificate) -> bool:
    """
    Return whether a certificate is worth nothing without a staple.

    Standard:
        RFC 7633 (TLS feature *status_request*).
    """
    features = readable_extension_of(certificate, x509.TLSFeature)
    return x509.TLSFeatureType.status_request in (features or ())


def _parsed(certificate: bytes | x509.Certificate) -> x509.Certificate:
    if isinstance(certificate, x509.Certificate):
        return certificate
    return x509.load_der_x509_certificate(certificate)


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
        subject: Certificate that the query is about.

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


class Fault(StrEnum):
    """
    Fault of a response, or reason of its absence.

    The values are metric labels and words of the log.
    """

    ADDRESS = "address"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    HTTP_STATUS = "http_status"
    REDIRECT = "redirect"
    TOO_LARGE = "too_large"
    GARBAGE = "garbage"
    MALFORMED_REQUEST = "malformed_request"
    INTERNAL_ERROR = "internal_error"
    TRY_LATER = "try_later"
    SIG_REQUIRED = "sig_required"
    UNAUTHORIZED = "unauthorized"
    OTHER_CERTIFICATE = "other_certificate"
    EXTENSION = "extension"
    SIGNATURE = "signature"
    RESPONDER = "responder"
    FUTURE = "future"
    STALE = "stale"
    NONCE = "nonce"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"


class UnusableError(Exception):
    """
    The query failed.

    Attributes:
        fault: The reason.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"The OCSP query failed ({fault}).")
        self.fault = fault

# SPDX-License-Identifier: MIT
"""Certificate to query, with its issuer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from hsm_server.tls.client_certificates import UNREADABLE


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
        if _has_signed(issuer, certificate):
            both = _der(certificate) + _der(issuer)
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
    try:
        access = certificate.extensions.get_extension_for_class(
            x509.AuthorityInformationAccess
        ).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ()
    return tuple(
        one.access_location.value
        for one in access
        if one.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(one.access_location, x509.UniformResourceIdentifier)
    )


def is_must_staple(certificate: x509.Certificate) -> bool:
    """
    Return whether a certificate is worth nothing without a staple.

    Standard:
        RFC 7633 (TLS feature *status_request*).
    """
    try:
        features = certificate.extensions.get_extension_for_class(x509.TLSFeature)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False
    return x509.TLSFeatureType.status_request in features.value


def _parsed(certificate: bytes | x509.Certificate) -> x509.Certificate:
    if isinstance(certificate, x509.Certificate):
        return certificate
    return x509.load_der_x509_certificate(certificate)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True

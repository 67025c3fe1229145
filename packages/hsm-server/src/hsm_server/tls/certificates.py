# SPDX-License-Identifier: MIT
"""Checks of server certificates: chain, purpose, validity period."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.client_certificates import UNREADABLE

_MOST_CERTIFICATES: Final = 10
_SERVERS: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}


def kind_of(certificate: x509.Certificate) -> str:
    """Return the kind of a certificate's key, such as ``ECDSA`` or ``ML-DSA-65``."""
    match certificate.public_key():
        case rsa.RSAPublicKey():
            return "RSA"
        case ec.EllipticCurvePublicKey():
            return "ECDSA"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case other:
            name = type(other).__name__.removesuffix("PublicKey")
            return name.replace("MLDSA", "ML-DSA-")


def ends_at(chain: tuple[bytes, ...]) -> datetime:
    """Return until when all certificates of a chain, DER, are valid."""
    return min(x509.load_der_x509_certificate(der).not_valid_after_utc for der in chain)


def check_chain(
    chain: list[x509.Certificate], name: str, now: datetime
) -> list[x509.Certificate]:
    """
    Return a chain without its root, which clients have or don't trust.

    Args:
        chain: The server's own first, then who has signed it, and so on.

        name: What to call it.

        now: Instant at which it must be valid, UTC.

    Raises:
        ListenError: It can't be shown.

    Standard:
        RFC 8446, section 4.4.2; RFC 5280, sections 4.1.2.5 and 4.2.1.12.
    """
    if len(chain) > _MOST_CERTIFICATES:
        raise ListenError(
            f"{name} holds {len(chain)} certificates, but at most "
            f"{_MOST_CERTIFICATES} are allowed."
        )
    for certificate, issuer in pairwise(chain):
        _check_signed(certificate, issuer, name)
    for certificate in chain:
        _check_dates(certificate, name, now)
    _check_purpose(chain[0], name)
    if len(chain) > 1 and chain[-1].subject == chain[-1].issuer:
        return chain[:-1]
    return chain


def _check_signed(
    certificate: x509.Certificate, issuer: x509.Certificate, name: str
) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise ListenError(
            f"{name} is not a chain: {_called(certificate)} is not signed by the "
            f"next certificate, {_called(issuer)}."
        ) from None


def _check_dates(certificate: x509.Certificate, name: str, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        raise ListenError(
            f"The certificate {_called(certificate)} in {name} is not valid "
            f"before {begins.isoformat()}."
        )
    if now > ends:
        raise ListenError(
            f"The certificate {_called(certificate)} in {name} expired at "
            f"{ends.isoformat()}."
        )


def _check_purpose(certificate: x509.Certificate, name: str) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return
    except UNREADABLE:
        raise ListenError(
            f"The extensions of a certificate in {name} are malformed."
        ) from None
    if not _SERVERS & set(usage.value):
        raise ListenError(
            f"The certificate {_called(certificate)} in {name} is not a server "
            "certificate."
        )


def _called(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()[:128] or "without a name"
    except ValueError:
        return "without a readable name"

# SPDX-License-Identifier: MIT
"""Certificates and private keys: checks of chains, names and key files."""

from __future__ import annotations

import base64
import contextlib
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes as PublicKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsm_server.certificates import UNREADABLE, extension_of
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import PairFiles
from hsm_server.tls.openssl import crypto

E = TypeVar("E", bound=x509.ExtensionType)


def der_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def readable_extension_of(holder: x509.Certificate, kind: type[E]) -> E | None:
    """Return the value of an extension; None without it, or if any is malformed."""
    try:
        return extension_of(holder, kind)
    except UNREADABLE:
        return None


def has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Return whether an issuer has signed a certificate, and is named in it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def pem_body(label: str, data: bytes) -> bytes | None:
    """
    Return the content of the first PEM block with a label; None without one.

    Raises:
        binascii.Error: It is not base64.
    """
    begin, end = (f"-----{word} {label}-----".encode() for word in ("BEGIN", "END"))
    _, found, rest = data.partition(begin)
    body, closed, _ = rest.partition(end)
    if not found or not closed:
        return None
    return base64.b64decode(b"".join(body.split()), validate=True)


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

        name: Name in error messages.

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
        if not has_signed(issuer, certificate):
            raise ListenError(
                f"{name} is not a chain: {_called(certificate)} is not signed by the "
                f"next certificate, {_called(issuer)}."
            )
    for certificate in chain:
        _check_dates(certificate, name, now)
    _check_purpose(chain[0], name)
    if len(chain) > 1 and chain[-1].subject == chain[-1].issuer:
        return chain[:-1]
    return chain


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
        usage = extension_of(certificate, x509.ExtendedKeyUsage)
    except UNREADABLE:
        raise ListenError(
            f"The extensions of a certificate in {name} are malformed."
        ) from None
    if usage is not None and not _SERVERS & set(usage):
        raise ListenError(
            f"The certificate {_called(certificate)} in {name} is not a server "
            "certificate."
        )


def _called(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()[:128] or "without a name"
    except ValueError:
        return "without a readable name"


_FORM: Final = (
    serialization.Encoding.DER,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def read_private_key(
    files: PairFiles, data: bytes, certificate: x509.Certificate
) -> bytes:
    """
    Return a private key as PKCS#8 in DER.

    The numbers of an RSA key are not proved here, which takes seconds: the trial of a
    state signs with it.

    Args:
        files: Paths, for error messages.

        data: PEM.

        certificate: Certificate of the key.

    Raises:
        ListenError: It is no private key, encrypted, or that of another certificate;
            or the certificate is for a key of a kind that can't be used.
    """
    try:
        key = serialization.load_pem_private_key(
            data, password=None, unsafe_skip_rsa_key_validation=True
        )
    except TypeError:
        raise ListenError(
            f"The private key {files.key} is encrypted. Pass it unencrypted, in "
            "a file with mode 0600."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # Its cause may quote the file.
        key = None
    public_key = _public_key(files, certificate)
    if key is None:
        return _as_openssl_writes_it(data, files.key)
    if key.public_key() != public_key:
        raise ListenError(
            f"The private key {files.key} does not match the certificate {files.cert}."
        )
    return key.private_bytes(*_FORM)


def _as_openssl_writes_it(data: bytes, path: Path) -> bytes:
    """
    Return a key that OpenSSL reads, and cryptography does not.

    Keys of ML-DSA are written with what is expanded from their seed. Whose key it is
    shows when it is put beside its certificate.
    """
    found = None
    with contextlib.suppress(crypto.Error, ValueError):
        crypto.load_privatekey(crypto.FILETYPE_PEM, data, b"")
        found = pem_body("PRIVATE KEY", data)
    if found is None:
        raise ListenError(f"{path} contains no PEM private key.")
    return found


def _public_key(files: PairFiles, certificate: x509.Certificate) -> PublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ListenError(
            f"The certificate {files.cert} has an unsupported key type."
        ) from None

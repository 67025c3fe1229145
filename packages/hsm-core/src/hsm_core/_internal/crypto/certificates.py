# SPDX-License-Identifier: MIT
"""
X.509 certificate chains: reading, and matching with a public key.

Standard:
    RFC 5280, section 4.1; RFC 7468, section 5 (PEM).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final

from hsm_core._internal.crypto.der import SEQUENCE, NotDERError, elements
from hsm_core.errors import InputSizeError, InvalidInputError

if TYPE_CHECKING:
    # Deferred: programs without certificates do not need it.
    from cryptography.x509 import Certificate

MAX_CHAIN_BYTES: Final = 128 * 1024
"""Longest certificate chain, as given."""

MAX_CERTIFICATES: Final = 10
"""Maximum number of certificates of a chain."""

_FIELD: Final = "chain"
_VERSION: Final = 0xA0
_FIELDS_BEFORE_KEY: Final = 5


def read_chain(data: bytes) -> tuple[bytes, ...]:
    """
    Return the certificates of a chain, each as DER.

    Args:
        data: Certificates as PEM, or as DER, one after the other.

    Raises:
        InputSizeError: It is too long, or has too many certificates.
        InvalidInputError: It has none, something else, or certificates out of order.
    """
    if len(data) > MAX_CHAIN_BYTES:
        raise InputSizeError(_FIELD, actual=len(data), maximum=MAX_CHAIN_BYTES)
    found = _load(data)
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise InputSizeError(
            _FIELD,
            actual=len(found),
            minimum=1,
            maximum=MAX_CERTIFICATES,
            unit="certificates",
        )
    for number, (subject, issuer) in enumerate(pairwise(found), start=1):
        if subject.issuer.public_bytes() != issuer.subject.public_bytes():
            raise InvalidInputError(
                f"{_FIELD}: certificate {number} was not issued by certificate "
                f"{number + 1}. Order the certificates from that of the key to that of "
                "the CA.",
                field=_FIELD,
            )
    return tuple(map(_der, found))


def check_subject_key(certificate: bytes, public_der: bytes) -> None:
    """
    Check that a certificate is for a public key.

    Args:
        certificate: From `read_chain`.

        public_der: SubjectPublicKeyInfo of the key.

    Raises:
        InvalidInputError: It is for another key.
    """
    if _subject_key(certificate) != public_der:
        raise InvalidInputError(
            f"{_FIELD}: the first certificate is for another public key. Attach the "
            "certificate of this key version.",
            field=_FIELD,
        )


def chain_pem(certificates: tuple[bytes, ...]) -> str:
    """Return certificates as PEM."""
    return "".join(
        "-----BEGIN CERTIFICATE-----\n"
        f"{_lines(base64.b64encode(der).decode())}"
        "-----END CERTIFICATE-----\n"
        for der in certificates
    )


def _lines(text: str) -> str:
    return "".join(f"{text[i : i + 64]}\n" for i in range(0, len(text), 64))


def _load(data: bytes) -> list[Certificate]:
    from cryptography.x509 import (
        InvalidVersion,
        load_der_x509_certificate,
        load_pem_x509_certificates,
    )

    if b"PRIVATE KEY-----" in data:
        raise InvalidInputError(
            f"{_FIELD} holds a private key. Pass the certificates alone.", field=_FIELD
        )
    try:
        if not data.startswith(bytes([SEQUENCE])):
            found = load_pem_x509_certificates(data)
        else:
            parts = islice(elements(data), MAX_CERTIFICATES + 1)
            found = [load_der_x509_certificate(der) for _, der in parts]
        for certificate in found:
            # They are parsed on demand.
            _subject_key(_der(certificate))
            certificate.subject, certificate.issuer  # noqa: B018 (parses them)
    except (InvalidVersion, NotDERError, TypeError, ValueError):
        # cryptography raises TypeError for a name that is a bit string.
        raise InvalidInputError(
            f"{_FIELD} must be X.509 certificates as PEM or DER.", field=_FIELD
        ) from None
    return found


def _der(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _subject_key(certificate: bytes) -> bytes:
    """
    Return SubjectPublicKeyInfo of a certificate.

    It is cut out, because no library reads the keys of all our algorithms.

    Raises:
        NotDERError: It is no certificate.
    """
    _, whole = next(elements(_content(certificate)))
    fields = _fields(_content(whole))
    for _ in range(_FIELDS_BEFORE_KEY):
        next(fields, None)
    found = next(fields, None)
    if found is None:
        raise NotDERError
    return found


def _fields(body: bytes) -> Iterator[bytes]:
    """Return fields of TBSCertificate, from its serial number on."""
    for tag, field in elements(body):
        if tag != _VERSION:
            yield field


def _content(element: bytes) -> bytes:
    """Return the content of one element of DER."""
    first = 2 if element[1] < 0x80 else 2 + (element[1] & 0x7F)
    return element[first:]

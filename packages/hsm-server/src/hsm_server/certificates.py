# SPDX-License-Identifier: MIT
"""
Facts of client certificates, which the vault reads too.

The modules below ``tls`` load pyOpenSSL, which no process without TLS needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
from cryptography import x509

from hsm_core.errors import AuthenticationError
from hsm_core.model import Record

_MOST_NAMES: Final = 64
_MOST_CHARACTERS: Final = 1024
_KEPT: Final = 512
"""Cache of parsed client certificates."""

UNREADABLE: Final = (
    KeyError,
    TypeError,
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""
Exceptions for malformed names or extensions of a certificate.

cryptography raises `KeyError` for an unknown TLS feature (RFC 7633), and `TypeError`
for a name that is a bit string.
"""


E = TypeVar("E", bound=x509.ExtensionType)


def extension_of(
    holder: x509.Certificate | x509.CertificateRevocationList, kind: type[E]
) -> E | None:
    """
    Return the value of an extension, or None without it.

    Raises:
        Exception: One of `UNREADABLE`: an extension is malformed.
    """
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


class CertificateFacts(Record, frozen=True, kw_only=True):
    """
    Facts that policy rules can match.

    Attributes:
        sha256: Fingerprint, lower-case hex.
        subject: RFC 4514 form, control characters escaped.
        names: Alternative names: ``dns:``, ``email:``, ``ip:`` or ``uri:``, and the
            name; host names and mail domains in lower case. Others are left out.
        begins_at: First second of validity, since 1970.
        ends_at: Last second of validity.
    """

    sha256: str = ""
    subject: str = ""
    names: tuple[str, ...] = ()
    begins_at: float = 0.0
    ends_at: float = 0.0


def fingerprint(certificate: bytes) -> str:
    """Return SHA-256 of a certificate, hex; nothing for none."""
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


def comparable_name(name: x509.Name) -> bytes:
    """
    Return a form of a name that is equal for names that OpenSSL takes for the same.

    Types of strings, the case of ASCII letters, and repeated or outer spaces are left
    out.

    Standard:
        RFC 5280, section 7.1.
    """
    parts = (
        sorted((one.oid.dotted_string, _folded(one.value)) for one in part)
        for part in name.rdns
    )
    return msgspec.msgpack.encode(list(parts))


def _folded(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return b" ".join(value.encode().lower().split())


_NAME_BYTES: Final = 32
REVOKED_BYTES: Final = 2 * _NAME_BYTES
"""Length of the names of one revoked certificate."""


@lru_cache(maxsize=_KEPT)
def revocable_names(certificate: bytes) -> frozenset[str]:
    """
    Return the names by which a revocation list would revoke a certificate, hex.

    Args:
        certificate: DER.

    Raises:
        AuthenticationError: It can't be read.
    """
    try:
        found = x509.load_der_x509_certificate(certificate)
        names = _names_of(_forms_of(found.issuer), found.serial_number)
        return frozenset(name.hex() for name in names)
    except UNREADABLE:
        raise AuthenticationError from None


def pack_revoked(lists: Iterable[bytes]) -> bytes:
    """Return the names of all certificates in revocation lists (DER), one by one."""
    return b"".join(
        name
        for crl in map(x509.load_der_x509_crl, lists)
        for forms in [_forms_of(crl.issuer)]
        for revoked in crl
        for name in _names_of(forms, revoked.serial_number)
    )


def read_revoked(data: bytes) -> list[str]:
    """
    Return the names that `pack_revoked` has written, as `revocable_names`.

    Raises:
        ValueError: It has not.
    """
    if len(data) % _NAME_BYTES:
        raise ValueError("Not a list of names.")
    starts = range(0, len(data), _NAME_BYTES)
    return [data[start : start + _NAME_BYTES].hex() for start in starts]


def _forms_of(issuer: x509.Name) -> tuple[bytes, bytes]:
    # Nodes of earlier releases share and know the encoding only.
    return comparable_name(issuer), issuer.public_bytes()


def _names_of(issuer: Iterable[bytes], serial: int) -> Iterator[bytes]:
    return (hashlib.sha256(b"%d " % serial + form).digest() for form in issuer)


@lru_cache(maxsize=_KEPT)
def certificate_facts(certificate: bytes) -> CertificateFacts:
    """
    Read a certificate that a TLS handshake has verified.

    Args:
        certificate: DER, or nothing.

    Raises:
        AuthenticationError: It can't be read, or what it says is too long: then rules
            could not be sure of it.

    Standard:
        RFC 5280, sections 4.1.2.6 and 4.2.1.6; RFC 4514.
    """
    if not certificate:
        return CertificateFacts()
    try:
        found = x509.load_der_x509_certificate(certificate)
        subject = _printable(found.subject.rfc4514_string())
        names = _names(found)
    except UNREADABLE:
        raise AuthenticationError from None
    if len(names) > _MOST_NAMES or any(
        len(text) > _MOST_CHARACTERS for text in (subject, *names)
    ):
        raise AuthenticationError
    return CertificateFacts(
        sha256=fingerprint(certificate),
        subject=subject,
        names=names,
        begins_at=found.not_valid_before_utc.timestamp(),
        ends_at=found.not_valid_after_utc.timestamp(),
    )


def readable_facts(certificate: bytes) -> CertificateFacts:
    """Return the readable facts of a certificate, for audit records only."""
    try:
        return certificate_facts(certificate)
    except AuthenticationError:
        return CertificateFacts(sha256=fingerprint(certificate))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    found = map(_name, extension_of(certificate, x509.SubjectAlternativeName) or ())
    return tuple(_printable(name) for name in found if name)


def _name(name: x509.GeneralName) -> str:
    match name:
        case x509.DNSName(value=value):
            return f"dns:{value.lower()}"
        case x509.RFC822Name(value=value):
            local, at, domain = value.rpartition("@")
            return f"email:{local}{at}{domain.lower()}"
        case x509.IPAddress(value=address):
            return f"ip:{address}"
        case x509.UniformResourceIdentifier(value=value):
            return f"uri:{value}"
        case _:
            return ""


def _printable(text: str) -> str:
    """Write control characters as RFC 4514 writes them: octets of UTF-8, in hex."""
    return "".join(
        "".join(f"\\{octet:02X}" for octet in character.encode())
        if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
        else character
        for character in text
    )

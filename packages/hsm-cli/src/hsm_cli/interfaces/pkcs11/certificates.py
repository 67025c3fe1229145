# SPDX-License-Identifier: MIT
"""Certificates that are kept with keys, as objects of the token."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, TypeGuard

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.names import id_of, label_of
from hsm_cli.interfaces.pkcs11.objects import KeyObject, Object, ObjectIdentity
from hsm_cli.interfaces.pkcs11.public_parts import der
from hsm_cli.interfaces.pkcs11.wire import Template
from hsm_core.operations import (
    AttachCertificates,
    DescribeKey,
    GetCertificates,
    RemoveCertificates,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from hsm_cli.interfaces.pkcs11.keys import Keys
    from hsm_core.model import KeyInfo
    from hsm_core.protocols import HSM

_INTEGER: Final = 0x02
_CHECK_BYTES: Final = 3
_MOST_READ: Final = 1000
_OF_USER: Final = 1
_OF_AUTHORITY: Final = 2
_KNOWN: Final = frozenset(
    {
        ck.CKA_CLASS,
        ck.CKA_TOKEN,
        ck.CKA_PRIVATE,
        ck.CKA_MODIFIABLE,
        ck.CKA_LABEL,
        ck.CKA_CERTIFICATE_TYPE,
        ck.CKA_CERTIFICATE_CATEGORY,
        ck.CKA_TRUSTED,
        ck.CKA_CHECK_VALUE,
        ck.CKA_START_DATE,
        ck.CKA_END_DATE,
        ck.CKA_SUBJECT,
        ck.CKA_ID,
        ck.CKA_ISSUER,
        ck.CKA_SERIAL_NUMBER,
        ck.CKA_VALUE,
        ck.CKA_URL,
        ck.CKA_PUBLIC_KEY_INFO,
    }
)


class CertificateObject(Object):
    """
    Certificate of the chain of a key version.

    The first one has label and CKA_ID of the key; the others have neither.

    Args:
        info: Metadata of the key.

        version: Version of the key.

        place: Place in the chain, from 0.

        data: The certificate, DER.

    Attributes:
        info: Metadata of the key, as of the last search.
    """

    def __init__(self, info: KeyInfo, version: int, place: int, data: bytes) -> None:
        self.data = data
        found = x509.load_der_x509_certificate(data)
        super().__init__(
            ck.CKO_CERTIFICATE,
            {
                ck.CKA_LABEL: b"" if place else label_of(info),
                ck.CKA_ID: b"" if place else id_of(info, version),
                ck.CKA_CERTIFICATE_TYPE: ck.CKC_X_509,
                ck.CKA_CERTIFICATE_CATEGORY: _OF_AUTHORITY if place else _OF_USER,
                ck.CKA_TRUSTED: False,
                ck.CKA_CHECK_VALUE: _check_value(data),
                ck.CKA_START_DATE: b"%04d%02d%02d" % _day(found.not_valid_before_utc),
                ck.CKA_END_DATE: b"%04d%02d%02d" % _day(found.not_valid_after_utc),
                ck.CKA_SUBJECT: found.subject.public_bytes(),
                ck.CKA_ISSUER: found.issuer.public_bytes(),
                ck.CKA_SERIAL_NUMBER: _serial_number(found.serial_number),
                ck.CKA_VALUE: data,
                ck.CKA_URL: b"",
                ck.CKA_PUBLIC_KEY_INFO: _public_key_of(found),
            },
            is_token=True,
        )
        self.info = info
        digest = hashlib.sha256(data).digest()
        self.identity = ObjectIdentity(
            info.key_id, version, ck.CKO_CERTIFICATE, place, digest
        )

    def change(self, template: Template) -> None:
        """Refuse: label and CKA_ID are those of the key."""
        if not self.matches(template):
            raise CryptokiError(ck.CKR_ATTRIBUTE_READ_ONLY)


def _day(moment: datetime) -> tuple[int, int, int]:
    return moment.year, moment.month, moment.day


def _check_value(data: bytes) -> bytes:
    """Return the first bytes of SHA-1, which PKCS#11 demands; it protects nothing."""
    return hashlib.sha1(data, usedforsecurity=False).digest()[:_CHECK_BYTES]


def _serial_number(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    return der(_INTEGER, number.to_bytes(size, "big", signed=True))


def _public_key_of(certificate: x509.Certificate) -> bytes:
    """Return the public key; nothing if the library does not know its algorithm."""
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def attach(keys: Keys, hsm: HSM, template: Template) -> CertificateObject:
    """
    Keep a certificate with the key that it is for, or that it completes the chain of.

    Args:
        keys: Keys of the HSM.

        hsm: HSM for the program.

        template: Attributes of the certificate.

    Raises:
        CryptokiError: It is no X.509 certificate, or belongs to no key.
        HSMError: The caller may not change the key.
    """
    data = _value_of(template)
    certificate = x509.load_der_x509_certificate(data)
    wanted: Template = {
        kind: template[kind] for kind in (ck.CKA_ID, ck.CKA_LABEL) if kind in template
    }
    for info in _few(keys.matching(wanted)):
        for one in keys.objects_of(info):
            if _is_for(one, certificate):
                return _attach_first(hsm, one, certificate)
    known = None
    for info in _few(info for info in keys.matching({}) if info.certificates):
        chain = _chain(hsm, info.key_id, info.version)
        if _completes(chain, certificate):
            return _attached(hsm, info, info.version, [*chain, data], len(chain))
        if data in chain:
            place = chain.index(data)
            known = known or CertificateObject(info, info.version, place, data)
    if known:
        return known
    raise CryptokiError(
        ck.CKR_TEMPLATE_INCONSISTENT,
        "No key with this CKA_ID or CKA_LABEL has the public key of the certificate. "
        "Certificates are stored with their keys.",
    )


def _few(found: Iterator[KeyInfo]) -> Iterator[KeyInfo]:
    """
    Yield keys, of each of which something is read, as long as they are few.

    Raises:
        CryptokiError: They are many.
    """
    for number, info in enumerate(found):
        if number >= _MOST_READ:
            raise CryptokiError(
                ck.CKR_TEMPLATE_INCOMPLETE,
                f"A certificate is compared with at most {_MOST_READ} keys. Set its "
                "CKA_ID to that of its key.",
            )
        yield info


def _value_of(template: Template) -> bytes:
    if not template.keys() <= _KNOWN:
        raise CryptokiError(ck.CKR_ATTRIBUTE_TYPE_INVALID)
    value = template.get(ck.CKA_VALUE)
    if value is None:
        raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE)
    if template.get(ck.CKA_CERTIFICATE_TYPE, ck.CKC_X_509) != ck.CKC_X_509:
        raise CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID)
    if template.get(ck.CKA_TRUSTED, False) is not False:
        raise CryptokiError(ck.CKR_ATTRIBUTE_READ_ONLY)
    try:
        found = x509.load_der_x509_certificate(
            value if isinstance(value, bytes) else b""
        )
    except ValueError:
        raise CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID) from None
    return found.public_bytes(Encoding.DER)


def _is_for(one: Object, certificate: x509.Certificate) -> TypeGuard[KeyObject]:
    if not isinstance(one, KeyObject) or one.object_class != ck.CKO_PUBLIC_KEY:
        return False
    return one.public_key().der == _public_key_of(certificate)


def _attach_first(
    hsm: HSM, key: KeyObject, certificate: x509.Certificate
) -> CertificateObject:
    """Keep the certificate of a key; its issuers stay if they are those of the new."""
    issuers = _chain(hsm, key.key_id, key.version)[1:]
    if issuers and not _is_issued(certificate, issuers[0]):
        issuers = []
    chain = [certificate.public_bytes(Encoding.DER), *issuers]
    return _attached(hsm, key.info, key.version, chain)


def _is_issued(certificate: x509.Certificate, issuer: bytes) -> bool:
    """Return whether a certificate names another as its issuer."""
    subject = x509.load_der_x509_certificate(issuer).subject
    return certificate.issuer.public_bytes() == subject.public_bytes()


def _completes(chain: list[bytes], certificate: x509.Certificate) -> bool:
    """Return whether a certificate is the issuer of the last one of a chain."""
    last = x509.load_der_x509_certificate(chain[-1]) if chain else None
    return (
        last is not None
        and last.issuer == certificate.subject
        and last.issuer != last.subject
    )


def _chain(hsm: HSM, key_id: str, version: int) -> list[bytes]:
    found = hsm.execute(GetCertificates(key_id=key_id, version=version))
    return [one.der for one in found.items]


def _attached(
    hsm: HSM, info: KeyInfo, version: int, chain: list[bytes], place: int = 0
) -> CertificateObject:
    """Keep a chain with a key that was read before the chain was."""
    changed = hsm.execute(
        AttachCertificates(key_id=info.key_id, version=version, chain=b"".join(chain)),
        expected_generation=info.generation,
    )
    return CertificateObject(changed, version, place, chain[place])


def detach(hsm: HSM, one: CertificateObject) -> KeyInfo:
    """
    Remove a certificate, and those after it in its chain; return the key's metadata.

    Raises:
        CryptokiError: The certificate is gone, or at another place.
        HSMError: The caller may not change the key.
    """
    key_id, version, _, place, _ = one.identity
    info = hsm.execute(DescribeKey(key_id=key_id))
    chain = _chain(hsm, key_id, version)
    if one.data not in chain[place : place + 1]:
        raise CryptokiError(
            ck.CKR_OBJECT_HANDLE_INVALID,
            f"The certificates of key {key_id} were replaced. Let the program search "
            "for them again.",
        )
    left = b"".join(chain[:place])
    return hsm.execute(
        AttachCertificates(key_id=key_id, version=version, chain=left)
        if place
        else RemoveCertificates(key_id=key_id, version=version),
        expected_generation=info.generation,
    )

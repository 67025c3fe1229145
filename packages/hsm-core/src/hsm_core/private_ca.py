# SPDX-License-Identifier: MIT
"""
Private CA of one HSM: certificates of its server and of its people, and their CRL.

A credential of a person is a PKCS#12 file: private key, certificate, and the CA's
certificate, by which a client verifies the server. Keys are on P-256: every client,
browser and proxy supports it.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hsm_core.errors import ConfigurationError

__all__ = ["SERVER_DAYS", "Credential", "PrivateCA", "new_password"]

CA_DAYS: Final = 3652
SERVER_DAYS: Final = 90
"""Lifetime of a server certificate, in days."""

_TOLERANCE: Final = timedelta(hours=1)
"""Tolerated clock difference of clients."""

_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"
_PASSWORD_WORDS: Final = 4

_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)


def new_password() -> str:
    """
    Return a random password of 64 bits that can be read aloud.

    Standard:
        Proquints (arXiv:0901.4016): each word encodes 16 bits.
    """
    return "-".join(
        "".join(map(secrets.choice, (_CONSONANTS, _VOWELS) * 2 + (_CONSONANTS,)))
        for _ in range(_PASSWORD_WORDS)
    )


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """
    Credential of a person.

    Attributes:
        certificate: Client certificate.
        pkcs12: PKCS#12 file with the private key, encrypted with a password.
    """

    certificate: x509.Certificate
    pkcs12: bytes


class PrivateCA:
    """
    CA certificate and its private key.

    Args:
        key: Private key.

        certificate: Its self-signed certificate.

    Raises:
        ConfigurationError: They do not belong together.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        if key.public_key() != certificate.public_key():
            raise ConfigurationError(
                "The private key of the CA does not match the CA certificate."
            )
        self._key = key
        self.certificate = certificate

    @classmethod
    def create(cls, name: str, now: datetime) -> PrivateCA:
        """
        Return a new CA, valid for ten years.

        Args:
            name: Common name.

            now: Current time, UTC.
        """
        key, subject = _new_key(), _named(name)
        builder = (
            _builder(subject, subject, key.public_key(), now, timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_ca=True), critical=True)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, key: bytes, certificate: x509.Certificate) -> PrivateCA:
        """
        Return the CA of a stored key.

        Args:
            key: PEM.

            certificate: CA certificate.

        Raises:
            ConfigurationError: It is no private key on an elliptic curve in PEM, or
                that of another certificate.
        """
        try:
            found = load_pem_private_key(key, password=None)
        except _UNREADABLE:
            # Its cause may quote the file.
            found = None
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ConfigurationError(
                "The private key of the CA must be an unencrypted EC key in PEM form."
            )
        return cls(found, certificate)

    def key_pem(self) -> bytes:
        """Return the private key of the CA, PEM; secret."""
        return _pem(self._key)

    def certificate_pem(self) -> bytes:
        """Return the certificate of the CA, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue_server(self, names: Sequence[str], now: datetime) -> bytes:
        """
        Return a server's private key, certificate and this CA's, PEM; secret.

        One file holds all, so that a crash never separates key and certificate.

        Args:
            names: DNS names and IP addresses, the most important one first.

            now: Current time, UTC.
        """
        return self._server(_named(names[0]), _alternative(names), now)

    def renew_server(self, former: x509.Certificate, now: datetime) -> bytes:
        """
        Return a new key and certificate for the names of *former*; see `issue_server`.

        Raises:
            ConfigurationError: This CA did not issue it, it has no names, or it lasts
                as long as the CA.
        """
        try:
            former.verify_directly_issued_by(self.certificate)
            names = former.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
        except (InvalidSignature, *_UNREADABLE):
            raise ConfigurationError(
                "The private CA did not issue this server certificate."
            ) from None
        except x509.ExtensionNotFound:
            raise ConfigurationError(
                "The server certificate has no alternative names."
            ) from None
        if former.not_valid_after_utc >= self._end:
            # It would be renewed again at once, until the CA ends.
            raise self._ending()
        return self._server(former.subject, names, now)

    def _server(
        self, subject: x509.Name, names: x509.SubjectAlternativeName, now: datetime
    ) -> bytes:
        key = _new_key()
        certificate = self._issue(
            subject,
            key,
            now,
            timedelta(days=SERVER_DAYS),
            purpose=ExtendedKeyUsageOID.SERVER_AUTH,
            names=names,
        )
        return (
            _pem(key) + certificate.public_bytes(Encoding.PEM) + self.certificate_pem()
        )

    def issue_person(
        self, name: str, now: datetime, *, days: int, password: str
    ) -> Credential:
        """
        Return a new credential of a person.

        Args:
            name: Common name of the certificate.

            now: Current time, UTC.

            days: Lifetime.

            password: Encrypts the PKCS#12 file.
        """
        key = _new_key()
        certificate = self._issue(
            _named(name),
            key,
            now,
            timedelta(days=days),
            purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        )
        data = pkcs12.serialize_key_and_certificates(
            name.encode(),
            key,
            certificate,
            [self.certificate],
            BestAvailableEncryption(password.encode()),
        )
        return Credential(certificate, data)

    def _issue(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        now: datetime,
        life: timedelta,
        *,
        purpose: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        left = self._end - now
        if left <= timedelta():
            raise self._ending()
        issuer = self.certificate.subject
        builder = (
            _builder(subject, issuer, key.public_key(), now, min(life, left))
            .add_extension(
                x509.BasicConstraints(ca=False, path_length=None), critical=True
            )
            .add_extension(_key_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def revocation_list(self, serials: Mapping[int, datetime], now: datetime) -> bytes:
        """
        Return a CRL, PEM.

        It is valid as long as the CA, so no clock revokes everybody's access; only a
        newer list replaces it.

        Args:
            serials: Serial numbers of revoked certificates, and when each was.

            now: Current time, UTC.

        Standard:
            RFC 5280, section 5.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(self._end)
            .add_extension(x509.CRLNumber(len(serials) + 1), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for serial, revoked_at in sorted(serials.items()):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(revoked_at)
                .build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    @property
    def _end(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def _ending(self) -> ConfigurationError:
        return ConfigurationError(
            f"The private CA expires on {self._end:%Y-%m-%d} and can't issue "
            "certificates beyond that date. Replace it."
        )

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _named(name: str) -> x509.Name:
    # A common name has at most 64 characters (RFC 5280, appendix A.1).
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _alternative(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(list(map(_alternative_name, names)))


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _TOLERANCE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )

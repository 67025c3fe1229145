# SPDX-License-Identifier: MIT
"""
Certificates of every kind, good and bad, made for one test run.

The tests of each distribution use them; nothing but cryptography is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from hsm_server.tls.state import ServerPair

SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class PublicOnly:
    """Public key of an HSM's key, to be certified."""

    der: bytes

    def public_key(self) -> Any:
        """Return the key as certificate builders take it."""
        return load_der_public_key(self.der)


@dataclass(frozen=True)
class Issued:
    """A certificate, its private key, and those that lead to its root."""

    certificate: x509.Certificate
    key: Any
    above: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pair(self) -> ServerPair:
        """As the server's listener takes it, which must be there; without the root."""
        from hsm_server.tls.state import ServerPair

        above = [c for c in self.above if c.issuer != c.subject]
        return ServerPair(
            chain=(self.der, *(c.public_bytes(Encoding.DER) for c in above)),
            key=self.key_der,
        )

    @property
    def key_der(self) -> bytes:
        """The private key, PKCS #8 in DER."""
        return bytes(
            self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        )

    @property
    def key_pem(self) -> bytes:
        """The private key, PKCS #8 in PEM."""
        return bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    @property
    def chain_pem(self) -> bytes:
        """The certificate and those above it, PEM."""
        return _pem(self.certificate, *self.above)

    def write(
        self, folder: Path, name: str, *, is_alone: bool = False
    ) -> tuple[Path, Path]:
        """
        Write chain and key as PEM, and return where they are.

        Args:
            folder: Where.

            name: Of both files, but for what follows it.

            is_alone: Whether the certificates above it are left out.
        """
        chain, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        chain.write_bytes(_pem(self.certificate) if is_alone else self.chain_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return chain, key


@dataclass(frozen=True)
class Issuer(Issued):
    """A certificate authority."""

    def issue(
        self,
        name: str,
        *,
        use: x509.ObjectIdentifier | None = CLIENT,
        begin: timedelta = -_HOUR,
        end: timedelta = 24 * _HOUR,
        names: Sequence[x509.GeneralName] = (),
        key: Any = None,
        more: Iterable[x509.ExtensionType] = (),
    ) -> Issued:
        """Issue a certificate, by default a good one for a client."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, self.certificate.subject, key, begin, end)
        builder = builder.add_extension(x509.BasicConstraints(False, None), True)
        builder = builder.add_extension(_usage(is_ca=False), critical=True)
        builder = builder.add_extension(self._identifier(), critical=False)
        if use is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), False)
        if use == SERVER:
            names = [
                *names,
                x509.DNSName("localhost"),
                x509.IPAddress(IPv4Address("127.0.0.1")),
            ]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return Issued(self._sign(builder), key, (self.certificate, *self.above))

    def authority(
        self,
        name: str,
        *,
        below: int | None = None,
        constraints: x509.NameConstraints | None = None,
    ) -> Issuer:
        """Make an authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, self.certificate.subject, key, -_HOUR, 24 * _HOUR)
        builder = _as_authority(builder, key, below)
        builder = builder.add_extension(self._identifier(), critical=False)
        if constraints is not None:
            builder = builder.add_extension(constraints, critical=True)
        return Issuer(self._sign(builder), key, (self.certificate, *self.above))

    def revocation_list(
        self,
        *revoked: x509.Certificate,
        begin: timedelta = -2 * _HOUR,
        end: timedelta = 24 * _HOUR,
        signer: Issued | None = None,
        issuer: x509.Name | None = None,
    ) -> bytes:
        """
        Return a CRL, DER.

        Args:
            revoked: Its entries.

            begin: Last update, from now.

            end: Next update, from now.

            signer: Whose key signs it, if it is somebody else's.

            issuer: Its issuer, if it is not written as in the certificates.
        """
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer or self.certificate.subject)
            .last_update(now + begin)
            .next_update(now + end)
            .add_extension(self._identifier(), critical=False)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder()
            entry = entry.serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(
                entry.revocation_date(now - _HOUR).build()
            )
        key = self.key if signer is None else signer.key
        return builder.sign(key, digest_for(self.key)).public_bytes(Encoding.DER)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self.key, digest_for(self.key))


def self_signed_root(name: str, *, below: int | None = None, key: Any = None) -> Issuer:
    """Make an authority that nobody is above of."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, _name(name), key, -_HOUR, 24 * _HOUR)
    builder = _as_authority(builder, key, below)
    return Issuer(builder.sign(key, digest_for(key)), key)


def digest_for(key: Any) -> hashes.SHA256 | None:
    """Return what a kind of key signs by; some have a digest of their own."""
    has_none = not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return None if has_none else hashes.SHA256()


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _as_authority(
    builder: x509.CertificateBuilder, key: Any, below: int | None
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        builder.add_extension(x509.BasicConstraints(True, below), critical=True)
        .add_extension(_usage(is_ca=True), critical=True)
        .add_extension(identifier, critical=False)
    )


def _builder(
    name: str, issuer: x509.Name, key: Any, begin: timedelta, end: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, is_ca: bool) -> x509.KeyUsage:
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

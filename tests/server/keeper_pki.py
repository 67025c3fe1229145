# SPDX-License-Identifier: MIT
"""Certificates and revocation lists that are as a test needs them, good or bad."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Issued", "Issuer", "make_key", "write_pair"]

_HOUR = timedelta(hours=1)
_FORM = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def make_key(kind: str = "ECDSA") -> Any:
    """Return a new private key of a kind."""
    match kind:
        case "RSA":
            return rsa.generate_private_key(65537, 2048)
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ML-DSA-65":
            return mldsa.MLDSA65PrivateKey.generate()
        case _:
            return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and who follows it in a chain."""

    certificate: x509.Certificate
    key: Any
    followers: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and its followers."""
        return (self.certificate, *self.followers)

    @property
    def key_pem(self) -> bytes:
        """The private key, PEM."""
        data: bytes = self.key.private_bytes(serialization.Encoding.PEM, *_FORM)
        return data

    @property
    def chain_pem(self) -> bytes:
        """The chain, PEM."""
        return pem(*self.chain)


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


class Issuer:
    """A certificate authority, its own or another one's."""

    def __init__(
        self, name: str = "An authority", above: "Issuer | None" = None
    ) -> None:
        self.key = make_key()
        self.name = _name(name)
        self.above = above
        signer = above or self
        builder = (
            _builder(self.name, signer.name, self.key.public_key(), -_HOUR, 24 * _HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(_usage(is_ca=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False
            )
        )
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    def issue(
        self,
        name: str = "server",
        *,
        kind: str = "ECDSA",
        begins: timedelta = -_HOUR,
        ends: timedelta = 24 * _HOUR,
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,),
    ) -> Issued:
        """
        Issue a certificate for localhost.

        Args:
            name: Common name.

            kind: Of its key.

            begins: When it becomes valid, from now.

            ends: When it becomes invalid, from now.

            purposes: Its extended key usage; none leaves that out.
        """
        key = make_key(kind)
        names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        builder = (
            _builder(_name(name), self.name, key.public_key(), begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(_usage(is_ca=False), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self.key.public_key()
                ),
                critical=False,
            )
        )
        if purposes:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage(list(purposes)), critical=False
            )
        certificate = builder.sign(self.key, hashes.SHA256())
        return Issued(certificate, key, self.followers)

    def revocation_list(
        self,
        *revoked: x509.Certificate,
        begins: timedelta = -_HOUR,
        ends: timedelta | None = 24 * _HOUR,
        signer: Any = None,
    ) -> x509.CertificateRevocationList:
        """Return a list, signed by this authority unless by another *signer*."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now + begins)
            .next_update(now + (ends or _HOUR))
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now - _HOUR)
                .build()
            )
        return builder.sign(signer or self.key, hashes.SHA256())

    @property
    def followers(self) -> tuple[x509.Certificate, ...]:
        """This authority's certificate, and those above it."""
        above = self.above.followers if self.above is not None else ()
        return (self.certificate, *above)


def write_pair(cert: Path, key: Path, issued: Issued) -> None:
    """Write chain and key, the key for its owner alone."""
    cert.write_bytes(issued.chain_pem)
    key.touch(mode=0o600)
    key.chmod(0o600)
    key.write_bytes(issued.key_pem)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


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

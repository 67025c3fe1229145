# SPDX-License-Identifier: MIT
"""A small certificate authority for tests: one server and one client certificate."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Pair", "make_authority"]


@dataclass(frozen=True)
class Pair:
    """Where a certificate and its private key lie, as PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """An authority that signs for a day; its own certificate lies in *bundle*."""

    folder: Path
    bundle: Path
    name: x509.Name
    key: ec.EllipticCurvePrivateKey

    def issue(self, common_name: str, *, server: bool) -> Pair:
        """Make a key and a certificate for a server on loopback, or for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = (
            ExtendedKeyUsageOID.SERVER_AUTH
            if server
            else ExtendedKeyUsageOID.CLIENT_AUTH
        )
        builder = _builder(_name(common_name), self.name, key.public_key())
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        ).add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if server:
            names = [
                x509.DNSName("localhost"),
                x509.IPAddress(ip_address("127.0.0.1")),
            ]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
            critical=False,
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        pair = Pair(
            self.folder / f"{common_name}.pem", self.folder / f"{common_name}-key.pem"
        )
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        _write_key(pair.key, key)
        return pair


def make_authority(folder: Path, common_name: str = "test authority") -> Authority:
    """Make an authority whose files lie in *folder*, which is made with mode 0700."""
    folder.mkdir(mode=0o700, exist_ok=True)
    name, key = _name(common_name), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    bundle = folder / "authority.pem"
    bundle.write_bytes(certificate.public_bytes(Encoding.PEM))
    return Authority(folder, bundle, name, key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

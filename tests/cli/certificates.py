# SPDX-License-Identifier: MIT
"""Throw-away certificates: an authority, a server, a client, and strangers."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Certificates", "make_certificates"]


@dataclass(frozen=True)
class Certificates:
    """
    PEM files.

    Attributes:
        ca: The authority.
        server: Chain and key of a server called localhost.
        elsewhere: The same for a server of another name.
        client: Chain of a client.
        client_key: Its key, mode 0600.
        stranger: An authority that has signed none of them.
    """

    ca: Path
    server: Path
    elsewhere: Path
    client: Path
    client_key: Path
    stranger: Path


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class _Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._sign(self.name, self.key, names=(), is_ca=True)

    def issue(self, common_name: str, *names: x509.GeneralName) -> tuple[bytes, bytes]:
        """Return certificate and key of a new end entity, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._sign(subject, key, names=names, is_ca=False), _pem_key(key)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: tuple[x509.GeneralName, ...],
        is_ca: bool,
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            )
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


def make_certificates(folder: Path) -> Certificates:
    """Write fresh certificates into a folder."""
    found = Certificates(
        *(
            folder / f"{name}.pem"
            for name in (
                *("ca", "server", "elsewhere", "client", "client-key", "stranger"),
            )
        )
    )
    authority = _Authority("Test authority")
    found.ca.write_bytes(authority.pem)
    found.stranger.write_bytes(_Authority("Stranger").pem)
    here = (
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    )
    found.server.write_bytes(b"".join(authority.issue("localhost", *here)))
    elsewhere = x509.DNSName("elsewhere.example")
    found.elsewhere.write_bytes(b"".join(authority.issue("elsewhere", elsewhere)))
    certificate, key = authority.issue("client")
    found.client.write_bytes(certificate)
    found.client_key.write_bytes(key)
    found.client_key.chmod(0o600)
    return found

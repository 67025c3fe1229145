# SPDX-License-Identifier: MIT
"""Certificates and keys as PEM, in files that a server reads."""

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from tests.pki import SERVER, Issued, Issuer


def make_key(kind: str) -> Any:
    """Return a new private key of a kind."""
    match kind:
        case "RSA":
            return rsa.generate_private_key(65537, 2048)
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ML-DSA-65":
            return mldsa.MLDSA65PrivateKey.generate()
        case _:
            return ec.generate_private_key(ec.SECP256R1())


def serve_by(issuer: Issuer, kind: str = "ECDSA", **changes: Any) -> Issued:
    """Return a certificate for a server, good unless something is changed."""
    return issuer.issue("server", **{"use": SERVER, "key": make_key(kind), **changes})


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def write_pair(cert: Path, key: Path, issued: Issued) -> None:
    """Write chain and key, the key for its owner alone."""
    cert.write_bytes(issued.chain_pem)
    key.touch(mode=0o600)
    key.chmod(0o600)
    key.write_bytes(issued.key_pem)

# SPDX-License-Identifier: MIT
"""Private keys of the listener, and self-signed certificates."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hsm_server.tls.state import ServerPair

_PLACEHOLDER_LIFE: Final = timedelta(days=365)
_TOLERANCE: Final = timedelta(hours=1)
"""Tolerated clock difference of clients."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key, of P-256: all CAs take it."""
    return ec.generate_private_key(ec.SECP256R1())


def key_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8 in DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Return names and addresses as certificates have them."""
    return [_general_name(name) for name in names]


def placeholder(names: Sequence[str]) -> ServerPair:
    """Return the self-signed certificate for the time before the first order."""
    return self_signed(names, life=_PLACEHOLDER_LIFE)


def self_signed(
    names: Sequence[str],
    *,
    life: timedelta,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> ServerPair:
    """
    Return a certificate with a key of its own, which has signed it.

    Args:
        names: Whom it is for.

        life: How long it is valid.

        extensions: More of them, and whether each is critical.
    """
    key, now = new_key(), datetime.now(UTC)
    subject = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _TOLERANCE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectAlternativeName(general_names(names)), critical=True)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    certificate = builder.sign(key, hashes.SHA256())
    return ServerPair(chain=(certificate.public_bytes(Encoding.DER),), key=key_der(key))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

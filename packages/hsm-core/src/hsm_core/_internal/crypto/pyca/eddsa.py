# SPDX-License-Identifier: MIT
"""Ed25519."""

from __future__ import annotations

from typing import Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import check_signing, check_verifying
from hsm_core._internal.crypto.pyca.encoding import (
    load_private,
    load_public,
    private_der,
    subject_public_key_info,
)
from hsm_core.algorithms import Algorithm
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import Entropy, SignatureParameters

__all__ = [
    "Ed25519PrivateHandle",
    "Ed25519PublicHandle",
    "generate_eddsa",
    "load_eddsa",
    "load_eddsa_public",
]

_SEED_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64


class Ed25519PublicHandle(BaseHandle):
    """
    An Ed25519 public key.

    Standard:
        RFC 8032, section 5.1.7.
    """

    def __init__(self, algorithm: Algorithm, key: Ed25519PublicKey) -> None:
        super().__init__(algorithm)
        self._public = key

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 8410)."""
        return subject_public_key_info(self._public)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a 64-byte signature."""
        check_verifying(self._algorithm, data, parameters)
        if len(signature) != _SIGNATURE_BYTES:
            raise SignatureMismatchError
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            raise SignatureMismatchError from None


class Ed25519PrivateHandle(Ed25519PublicHandle):
    """
    An Ed25519 key pair.

    Standard:
        RFC 8032, section 5.1.6.
    """

    def __init__(self, algorithm: Algorithm, key: Ed25519PrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a 64-byte signature; the same message gives the same one."""
        check_signing(self._algorithm, data, parameters)
        return self._private.sign(data)


def generate_eddsa(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, whose seed comes from *entropy*."""
    seed = entropy.random_bytes(_SEED_BYTES)
    return private_der(Ed25519PrivateKey.from_private_bytes(seed))


def load_eddsa(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> Ed25519PrivateHandle:
    """Load PKCS#8."""
    key = load_private(algorithm, material, trusted=trusted)
    return Ed25519PrivateHandle(algorithm, cast("Ed25519PrivateKey", key))


def load_eddsa_public(algorithm: Algorithm, public_der: bytes) -> Ed25519PublicHandle:
    """Load SubjectPublicKeyInfo."""
    key = load_public(algorithm, public_der)
    return Ed25519PublicHandle(algorithm, cast("Ed25519PublicKey", key))

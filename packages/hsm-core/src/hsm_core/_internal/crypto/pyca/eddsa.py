# SPDX-License-Identifier: MIT
"""Ed25519 and Ed448."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed448 import (
    Ed448PrivateKey,
    Ed448PublicKey,
)
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
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import Entropy, SignatureParameters

_PrivateKey: TypeAlias = Ed25519PrivateKey | Ed448PrivateKey
_PublicKey: TypeAlias = Ed25519PublicKey | Ed448PublicKey

EDDSA: Final[dict[Algorithm, Callable[[bytes], _PrivateKey]]] = {
    Algorithm.ED25519: Ed25519PrivateKey.from_private_bytes,
    Algorithm.ED448: Ed448PrivateKey.from_private_bytes,
}
"""How a key is made from its seed."""


class EdDSAPublicHandle(BaseHandle):
    """
    An Ed25519 or Ed448 public key.

    Standard:
        RFC 8032, sections 5.1.7 and 5.2.7; Ed448 with an empty context.
    """

    def __init__(self, algorithm: Algorithm, key: _PublicKey) -> None:
        super().__init__(algorithm)
        self._public = key
        self._signature_bytes = spec(algorithm).signature_bytes

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 8410)."""
        return subject_public_key_info(self._public)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature of 64 or 114 bytes."""
        check_verifying(self._algorithm, data, parameters)
        if len(signature) != self._signature_bytes:
            raise SignatureMismatchError
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            raise SignatureMismatchError from None


class EdDSAPrivateHandle(EdDSAPublicHandle):
    """
    An Ed25519 or Ed448 key pair.

    Standard:
        RFC 8032, sections 5.1.6 and 5.2.6.
    """

    def __init__(self, algorithm: Algorithm, key: _PrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature; the same message gives the same one."""
        check_signing(self._algorithm, data, parameters)
        return self._private.sign(data)


def generate_eddsa(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, whose seed comes from *entropy*."""
    seed = entropy.random_bytes(spec(algorithm).private_bytes)
    return private_der(EDDSA[algorithm](seed))


def load_eddsa(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> EdDSAPrivateHandle:
    """Load PKCS#8."""
    key = load_private(algorithm, material, trusted=trusted)
    return EdDSAPrivateHandle(algorithm, cast("_PrivateKey", key))


def load_eddsa_public(algorithm: Algorithm, public_der: bytes) -> EdDSAPublicHandle:
    """Load SubjectPublicKeyInfo."""
    key = load_public(algorithm, public_der)
    return EdDSAPublicHandle(algorithm, cast("_PublicKey", key))

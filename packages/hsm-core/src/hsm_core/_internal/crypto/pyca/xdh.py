# SPDX-License-Identifier: MIT
"""X25519."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.pyca.encoding import (
    load_peer,
    load_private,
    load_public,
    not_a_peer,
    private_der,
    subject_public_key_info,
)
from hsm_core.algorithms import Algorithm, spec
from hsm_core.protocols import Entropy

XDH: Final[dict[Algorithm, Callable[[bytes], X25519PrivateKey]]] = {
    Algorithm.X25519: X25519PrivateKey.from_private_bytes,
}
"""How a key is made from its bytes."""


class X25519PublicHandle(BaseHandle):
    """
    An X25519 public key.

    Standard:
        RFC 7748, section 5.
    """

    def __init__(self, algorithm: Algorithm, key: X25519PublicKey) -> None:
        super().__init__(algorithm)
        self._public = key

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 8410)."""
        return subject_public_key_info(self._public)


class X25519PrivateHandle(X25519PublicHandle):
    """
    An X25519 key pair.

    Standard:
        RFC 7748, section 6.1.
    """

    def __init__(self, algorithm: Algorithm, key: X25519PrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """Return the shared secret; one of zeros alone is refused."""
        peer = cast("X25519PublicKey", load_peer(self._algorithm, peer_public_der))
        try:
            return self._private.exchange(peer)
        except ValueError:
            raise not_a_peer(self._algorithm) from None


def generate_xdh(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, which comes from *entropy*."""
    seed = entropy.random_bytes(spec(algorithm).private_bytes)
    return private_der(XDH[algorithm](seed))


def load_xdh(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> X25519PrivateHandle:
    """Load PKCS#8."""
    key = load_private(algorithm, material, trusted=trusted)
    return X25519PrivateHandle(algorithm, cast("X25519PrivateKey", key))


def load_xdh_public(algorithm: Algorithm, public_der: bytes) -> X25519PublicHandle:
    """Load SubjectPublicKeyInfo."""
    key = load_public(algorithm, public_der)
    return X25519PublicHandle(algorithm, cast("X25519PublicKey", key))

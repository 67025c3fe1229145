# SPDX-License-Identifier: MIT
"""ML-KEM-768 and ML-KEM-1024; the library has no ML-KEM-512."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)

from hsm_core._internal.crypto.der import (
    read_public_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.expanded import read_foreign_seed, read_own_seed
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import check_encapsulation
from hsm_core._internal.crypto.pyca.encoding import REFUSALS, not_public_key
from hsm_core.algorithms import Algorithm, spec
from hsm_core.protocols import Entropy

_PrivateKey: TypeAlias = MLKEM768PrivateKey | MLKEM1024PrivateKey
_PublicKey: TypeAlias = MLKEM768PublicKey | MLKEM1024PublicKey

ML_KEM: Final[dict[Algorithm, Callable[[bytes], _PrivateKey]]] = {
    Algorithm.ML_KEM_768: MLKEM768PrivateKey.from_seed_bytes,
    Algorithm.ML_KEM_1024: MLKEM1024PrivateKey.from_seed_bytes,
}
"""How a key is made from its seed, d ‖ z."""

_FROM_PUBLIC: Final[dict[Algorithm, Callable[[bytes], _PublicKey]]] = {
    Algorithm.ML_KEM_768: MLKEM768PublicKey.from_public_bytes,
    Algorithm.ML_KEM_1024: MLKEM1024PublicKey.from_public_bytes,
}


class PycaMLKEMPublicHandle(BaseHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(self, algorithm: Algorithm, key: _PublicKey) -> None:
        super().__init__(algorithm)
        self._public = key

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9935)."""
        return subject_public_key_info(self._algorithm, self._public.public_bytes_raw())

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret of 32 bytes and its encapsulation."""
        return self._public.encapsulate()


class PycaMLKEMPrivateHandle(PycaMLKEMPublicHandle):
    """
    A decapsulation key, made from its seed, with its encapsulation key.

    Standard:
        FIPS 203, section 7.3.
    """

    def __init__(self, algorithm: Algorithm, key: _PrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret; a changed encapsulation gives another."""
        check_encapsulation(self._algorithm, ciphertext)
        return self._private.decapsulate(ciphertext)


def generate_ml_kem(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, whose seed comes from *entropy*."""
    return seed_key_info(algorithm, entropy.random_bytes(spec(algorithm).private_bytes))


def load_ml_kem(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> PycaMLKEMPrivateHandle:
    """Load PKCS#8 that has a seed; ours has nothing else."""
    make = ML_KEM[algorithm]
    if trusted:
        key = make(read_own_seed(algorithm, material))
    else:
        key = make(
            read_foreign_seed(
                algorithm,
                material,
                lambda seed: make(seed).public_key().public_bytes_raw(),
            )
        )
    return PycaMLKEMPrivateHandle(algorithm, key)


def load_ml_kem_public(
    algorithm: Algorithm, public_der: bytes
) -> PycaMLKEMPublicHandle:
    """Load SubjectPublicKeyInfo; every coefficient is checked to be reduced."""
    raw = read_public_key_info(algorithm, public_der)
    try:
        return PycaMLKEMPublicHandle(algorithm, _FROM_PUBLIC[algorithm](raw))
    except REFUSALS:
        raise not_public_key(algorithm) from None

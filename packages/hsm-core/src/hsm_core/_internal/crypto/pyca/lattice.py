# SPDX-License-Identifier: MIT
"""ML-KEM and ML-DSA; pyca/cryptography has no ML-KEM-512."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
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
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signing,
    check_verifying,
)
from hsm_core._internal.crypto.pyca.encoding import REFUSALS, not_public_key
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import Entropy, SignatureParameters

_KEMPrivateKey: TypeAlias = MLKEM768PrivateKey | MLKEM1024PrivateKey
_KEMPublicKey: TypeAlias = MLKEM768PublicKey | MLKEM1024PublicKey

ML_KEM: Final[dict[Algorithm, Callable[[bytes], _KEMPrivateKey]]] = {
    Algorithm.ML_KEM_768: MLKEM768PrivateKey.from_seed_bytes,
    Algorithm.ML_KEM_1024: MLKEM1024PrivateKey.from_seed_bytes,
}
"""How a key is made from its seed, d ‖ z."""

_KEM_FROM_PUBLIC: Final[dict[Algorithm, Callable[[bytes], _KEMPublicKey]]] = {
    Algorithm.ML_KEM_768: MLKEM768PublicKey.from_public_bytes,
    Algorithm.ML_KEM_1024: MLKEM1024PublicKey.from_public_bytes,
}


class PycaMLKEMPublicHandle(BaseHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(self, algorithm: Algorithm, key: _KEMPublicKey) -> None:
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

    def __init__(self, algorithm: Algorithm, key: _KEMPrivateKey) -> None:
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
        return PycaMLKEMPublicHandle(algorithm, _KEM_FROM_PUBLIC[algorithm](raw))
    except REFUSALS:
        raise not_public_key(algorithm) from None


_SignaturePrivateKey: TypeAlias = (
    MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey
)
_SignaturePublicKey: TypeAlias = MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey

ML_DSA: Final[dict[Algorithm, Callable[[bytes], _SignaturePrivateKey]]] = {
    Algorithm.ML_DSA_44: MLDSA44PrivateKey.from_seed_bytes,
    Algorithm.ML_DSA_65: MLDSA65PrivateKey.from_seed_bytes,
    Algorithm.ML_DSA_87: MLDSA87PrivateKey.from_seed_bytes,
}
"""How a key is made from its seed, ξ."""

_SIGNATURE_FROM_PUBLIC: Final[
    dict[Algorithm, Callable[[bytes], _SignaturePublicKey]]
] = {
    Algorithm.ML_DSA_44: MLDSA44PublicKey.from_public_bytes,
    Algorithm.ML_DSA_65: MLDSA65PublicKey.from_public_bytes,
    Algorithm.ML_DSA_87: MLDSA87PublicKey.from_public_bytes,
}


class MLDSAPublicHandle(BaseHandle):
    """
    An ML-DSA public key.

    Standard:
        FIPS 204, algorithm 3.
    """

    def __init__(self, algorithm: Algorithm, key: _SignaturePublicKey) -> None:
        super().__init__(algorithm)
        self._public = key

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9881)."""
        return subject_public_key_info(self._algorithm, self._public.public_bytes_raw())

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature over a message with its context, or over mu."""
        check_verifying(self._algorithm, data, parameters)
        if len(signature) != spec(self._algorithm).signature_bytes:
            raise SignatureMismatchError
        try:
            if parameters.external_mu:
                self._public.verify_mu(signature, data)
            else:
                self._public.verify(signature, data, parameters.context)
        except InvalidSignature:
            raise SignatureMismatchError from None


class MLDSAPrivateHandle(MLDSAPublicHandle):
    """
    An ML-DSA key pair, made from its seed.

    Standard:
        FIPS 204, algorithm 2, hedged.
    """

    def __init__(self, algorithm: Algorithm, key: _SignaturePrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature; the same message gives another each time."""
        check_signing(self._algorithm, data, parameters)
        if parameters.external_mu:
            return self._private.sign_mu(data)
        return self._private.sign(data, parameters.context)


def generate_ml_dsa(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, whose seed comes from *entropy*."""
    return seed_key_info(algorithm, entropy.random_bytes(spec(algorithm).private_bytes))


def load_ml_dsa(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> MLDSAPrivateHandle:
    """Load PKCS#8 that has a seed; ours has nothing else."""
    make = ML_DSA[algorithm]
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
    return MLDSAPrivateHandle(algorithm, key)


def load_ml_dsa_public(algorithm: Algorithm, public_der: bytes) -> MLDSAPublicHandle:
    """Load SubjectPublicKeyInfo."""
    raw = read_public_key_info(algorithm, public_der)
    try:
        return MLDSAPublicHandle(algorithm, _SIGNATURE_FROM_PUBLIC[algorithm](raw))
    except REFUSALS:
        raise not_public_key(algorithm) from None

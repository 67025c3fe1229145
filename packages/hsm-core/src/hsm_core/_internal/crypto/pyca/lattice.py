# SPDX-License-Identifier: MIT
"""ML-KEM and ML-DSA; pyca/cryptography has no ML-KEM-512."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem

from hsm_core._internal.crypto.der import (
    not_public_key,
    read_public_key_info,
    seed_key_info,
)
from hsm_core._internal.crypto.expanded import read_seed
from hsm_core._internal.crypto.handle import RawPublicHandle
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signature,
    check_signing,
)
from hsm_core._internal.crypto.pyca.encoding import REFUSALS
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import Entropy, SignatureParameters

_KEMPrivateKey: TypeAlias = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
_KEMPublicKey: TypeAlias = mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey
_DSAPrivateKey: TypeAlias = (
    mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
)
_DSAPublicKey: TypeAlias = (
    mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
)


class MLKEMPublicHandle(RawPublicHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(self, algorithm: Algorithm, key: _KEMPublicKey) -> None:
        super().__init__(algorithm, key.public_bytes_raw())
        self._public = key

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret of 32 bytes and its encapsulation."""
        return self._public.encapsulate()


class MLKEMPrivateHandle(MLKEMPublicHandle):
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


class MLDSAPublicHandle(RawPublicHandle):
    """
    An ML-DSA public key.

    Standard:
        FIPS 204, algorithm 3.
    """

    def __init__(self, algorithm: Algorithm, key: _DSAPublicKey) -> None:
        super().__init__(algorithm, key.public_bytes_raw())
        self._public = key

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature over a message with its context, or over mu."""
        check_signature(self._algorithm, data, signature, parameters)
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

    def __init__(self, algorithm: Algorithm, key: _DSAPrivateKey) -> None:
        super().__init__(algorithm, key.public_key())
        self._private = key

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature; the same message gives another each time."""
        check_signing(self._algorithm, data, parameters)
        if parameters.external_mu:
            return self._private.sign_mu(data)
        return self._private.sign(data, parameters.context)


_KEMS: Final[dict[Algorithm, tuple[type[_KEMPrivateKey], type[_KEMPublicKey]]]] = {
    Algorithm.ML_KEM_768: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    Algorithm.ML_KEM_1024: (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}
_DSAS: Final[dict[Algorithm, tuple[type[_DSAPrivateKey], type[_DSAPublicKey]]]] = {
    Algorithm.ML_DSA_44: (mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    Algorithm.ML_DSA_65: (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    Algorithm.ML_DSA_87: (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
}
FROM_SEED: Final[
    dict[Algorithm, Callable[[bytes], _KEMPrivateKey | _DSAPrivateKey]]
] = {
    algorithm: private.from_seed_bytes
    for algorithm, (private, _) in (*_KEMS.items(), *_DSAS.items())
}
"""Constructors of private keys from their seeds."""


def generate(algorithm: Algorithm, entropy: Entropy) -> bytes:
    """Return PKCS#8 of a fresh key, whose seed comes from *entropy*."""
    return seed_key_info(algorithm, entropy.random_bytes(spec(algorithm).private_bytes))


def load(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> MLKEMPrivateHandle | MLDSAPrivateHandle:
    """Load PKCS#8 that has a seed; ours has nothing else."""
    make = FROM_SEED[algorithm]
    seed = read_seed(
        algorithm,
        material,
        lambda seed: make(seed).public_key().public_bytes_raw(),
        trusted=trusted,
    )
    if algorithm in _KEMS:
        return MLKEMPrivateHandle(algorithm, _KEMS[algorithm][0].from_seed_bytes(seed))
    private, _ = _DSAS[algorithm]
    return MLDSAPrivateHandle(algorithm, private.from_seed_bytes(seed))


def load_public(
    algorithm: Algorithm, public_der: bytes
) -> MLKEMPublicHandle | MLDSAPublicHandle:
    """Load SubjectPublicKeyInfo; coefficients of ML-KEM are checked to be reduced."""
    raw = read_public_key_info(algorithm, public_der)
    try:
        if algorithm in _KEMS:
            _, public = _KEMS[algorithm]
            return MLKEMPublicHandle(algorithm, public.from_public_bytes(raw))
        _, verifying = _DSAS[algorithm]
        return MLDSAPublicHandle(algorithm, verifying.from_public_bytes(raw))
    except REFUSALS:
        raise not_public_key(algorithm) from None

# SPDX-License-Identifier: MIT
"""
ML-KEM-512, quick enough to be computed here.

The wheel makes and takes no seeds. So a key that it made is kept in the expanded form,
and a key that is a seed alone can't be used with it.
"""

from __future__ import annotations

from typing import NoReturn

from hsm_core._internal.crypto.der import (
    expanded_key_info,
    read_private_form,
    read_public_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import check_encapsulation
from hsm_core._internal.crypto.pqcrypto_wheel.library import KEMModule
from hsm_core._internal.crypto.seedless import encapsulation_key
from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    AlgorithmUnavailableError,
    InvalidInputError,
    UnavailableError,
)


class PqcryptoMLKEMPublicHandle(BaseHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(
        self, algorithm: Algorithm, module: KEMModule, raw_public: bytes
    ) -> None:
        super().__init__(algorithm)
        self._module = module
        self._raw_public = raw_public

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9935)."""
        return subject_public_key_info(self._algorithm, self._raw_public)

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret and its encapsulation."""
        ciphertext, secret = self._module.encaps(self._raw_public)
        return secret, ciphertext


class PqcryptoMLKEMPrivateHandle(PqcryptoMLKEMPublicHandle):
    """
    A decapsulation key in its expanded form.

    Standard:
        FIPS 203, section 7.3.
    """

    def __init__(
        self, algorithm: Algorithm, module: KEMModule, expanded: bytes
    ) -> None:
        super().__init__(algorithm, module, encapsulation_key(algorithm, expanded))
        self._expanded = expanded

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret; a changed encapsulation gives another."""
        check_encapsulation(self._algorithm, ciphertext)
        return self._module.decaps(self._expanded, ciphertext)


def generate_ml_kem(algorithm: Algorithm, module: KEMModule) -> bytes:
    """Return PKCS#8 of a fresh key, in the expanded form of RFC 9935, section 6."""
    public, expanded = module.keygen()
    if public != encapsulation_key(algorithm, expanded):
        raise UnavailableError("pqcrypto generated a key pair that does not match.")
    return expanded_key_info(algorithm, expanded)


def load_ml_kem(
    algorithm: Algorithm, module: KEMModule, material: bytes
) -> PqcryptoMLKEMPrivateHandle:
    """
    Load PKCS#8 that has the expanded form, with or without the seed.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or the key's own hash of
            its public part is wrong (FIPS 203, section 7.3, check 3).
        AlgorithmUnavailableError: It holds the seed only.
    """
    expanded = read_private_form(algorithm, material).expanded
    if not expanded:
        raise AlgorithmUnavailableError(
            f"This {algorithm} key is stored as a seed, which pqcrypto can't "
            "load. Use OpenSSL 3.5 or newer.",
            algorithm=algorithm.value,
        )
    return PqcryptoMLKEMPrivateHandle(algorithm, module, expanded)


def refuse_foreign(algorithm: Algorithm, material: bytes) -> NoReturn:
    """
    Refuse a key from elsewhere: without computing from its seed nothing can be checked.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or has no seed.
        AlgorithmUnavailableError: It has one.
    """
    if not read_private_form(algorithm, material).seed:
        raise InvalidInputError(
            f"material of {algorithm} holds the expanded key without the seed, which "
            "can't be checked.",
            field="material",
            algorithm=algorithm.value,
        )
    raise AlgorithmUnavailableError(
        f"pqcrypto can't import {algorithm} keys because it takes no seeds. Use "
        "OpenSSL 3.5 or newer.",
        algorithm=algorithm.value,
    )


def load_ml_kem_public(
    algorithm: Algorithm, module: KEMModule, public_der: bytes
) -> PqcryptoMLKEMPublicHandle:
    """
    Load SubjectPublicKeyInfo; one encapsulation makes the wheel check it.

    Raises:
        InvalidInputError: A coefficient is not reduced (FIPS 203, section 7.2).
    """
    raw = read_public_key_info(algorithm, public_der)
    try:
        module.encaps(raw)
    except ValueError:
        raise InvalidInputError(
            f"public_key is not a valid public key of {algorithm}.",
            field="public_key",
            algorithm=algorithm.value,
        ) from None
    return PqcryptoMLKEMPublicHandle(algorithm, module, raw)

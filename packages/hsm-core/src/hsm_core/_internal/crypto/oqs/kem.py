# SPDX-License-Identifier: MIT
"""ML-KEM."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from hsm_core._internal.crypto.der import (
    read_public_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.expanded import read_foreign_seed, read_own_seed
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.oqs.binding import KEMObject, mechanism_name
from hsm_core._internal.crypto.oqs.engine import Engine, exactly
from hsm_core._internal.crypto.parameters import check_encapsulation
from hsm_core._internal.crypto.seedless import encapsulation_key, expanded_alone
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import InvalidInputError


class OqsMLKEMPublicHandle(BaseHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(
        self, algorithm: Algorithm, engine: Engine, kem: KEMObject, raw_public: bytes
    ) -> None:
        super().__init__(algorithm)
        self._engine = engine
        self._kem = kem
        self._raw_public = exactly(raw_public, spec(algorithm).public_bytes)
        weakref.finalize(self, kem.free)

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9935)."""
        return subject_public_key_info(self._algorithm, self._raw_public)

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a fresh shared secret and its encapsulation."""
        row = spec(self._algorithm)
        with self._engine.draws.undisturbed:
            ciphertext, secret = self._kem.encap_secret(self._raw_public)
        return (
            exactly(secret, row.shared_secret_bytes),
            exactly(ciphertext, row.ciphertext_bytes),
        )


class OqsMLKEMPrivateHandle(OqsMLKEMPublicHandle):
    """
    A decapsulation key, with its encapsulation key.

    Standard:
        FIPS 203, section 7.3.
    """

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret; a changed encapsulation gives another."""
        check_encapsulation(self._algorithm, ciphertext)
        row = spec(self._algorithm)
        secret = self._kem.decap_secret(ciphertext)
        return exactly(secret, row.shared_secret_bytes)


def load_ml_kem(
    algorithm: Algorithm, engine: Engine, material: bytes, *, trusted: bool
) -> OqsMLKEMPrivateHandle:
    """
    Load PKCS#8 with the seed; an expanded key beside it must be the seed's.

    The expanded form alone is taken where a provider without seeds may have made it.

    Raises:
        InvalidInputError: It is not a key of this algorithm, or can't be checked.
    """
    name = mechanism_name(algorithm)
    if trusted and (expanded := expanded_alone(algorithm, material)):
        public = encapsulation_key(algorithm, expanded)
        kem = engine.binding.KeyEncapsulation(name, expanded)
        return _loaded(algorithm, engine, kem, lambda: public)
    if trusted:
        seed = read_own_seed(algorithm, material)
    else:
        seed = read_foreign_seed(
            algorithm, material, lambda seed: _public_of(engine, name, seed)
        )
    kem = engine.binding.KeyEncapsulation(name)
    return _loaded(algorithm, engine, kem, lambda: kem.generate_keypair_seed(seed))


def load_ml_kem_public(
    algorithm: Algorithm, engine: Engine, public_der: bytes
) -> OqsMLKEMPublicHandle:
    """
    Load SubjectPublicKeyInfo; one encapsulation makes the library check it.

    Raises:
        InvalidInputError: A coefficient is not reduced (FIPS 203, section 7.2).
    """
    raw = read_public_key_info(algorithm, public_der)
    kem = engine.binding.KeyEncapsulation(mechanism_name(algorithm))
    handle = OqsMLKEMPublicHandle(algorithm, engine, kem, raw)
    try:
        handle.encapsulate()
    except RuntimeError:
        raise InvalidInputError(
            f"public_key is not a valid public key of {algorithm}.",
            field="public_key",
            algorithm=algorithm.value,
        ) from None
    return handle


def _loaded(
    algorithm: Algorithm, engine: Engine, kem: KEMObject, public: Callable[[], bytes]
) -> OqsMLKEMPrivateHandle:
    try:
        return OqsMLKEMPrivateHandle(algorithm, engine, kem, public())
    except BaseException:
        kem.free()
        raise


def _public_of(engine: Engine, name: str, seed: bytes) -> bytes:
    kem = engine.binding.KeyEncapsulation(name)
    try:
        return kem.generate_keypair_seed(seed)
    finally:
        kem.free()

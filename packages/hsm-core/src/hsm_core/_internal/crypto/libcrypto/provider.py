# SPDX-License-Identifier: MIT
"""Provider of the operating system's OpenSSL."""

from __future__ import annotations

import hmac
from functools import cached_property
from typing import Final, NoReturn

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
)
from hsm_core._internal.crypto.expanded import read_foreign_seed, read_own_seed
from hsm_core._internal.crypto.libcrypto.evp import (
    EVPKey,
    key_from_expanded,
    key_from_private,
    key_from_public,
    key_from_seed,
    seed_bytes,
)
from hsm_core._internal.crypto.libcrypto.kem import (
    KEMPrivateHandle,
    KEMPublicHandle,
)
from hsm_core._internal.crypto.libcrypto.library import (
    Libcrypto,
    LibcryptoError,
    find_libcrypto,
)
from hsm_core._internal.crypto.libcrypto.signature import (
    LibcryptoSignaturePrivateHandle,
    LibcryptoSignaturePublicHandle,
)
from hsm_core._internal.crypto.seedless import expanded_alone
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import AlgorithmUnavailableError, InvalidInputError
from hsm_core.protocols import Entropy

_FAMILIES: Final = frozenset({Family.ML_KEM, Family.ML_DSA, Family.SLH_DSA})


class LibcryptoProvider:
    """
    `CryptoProvider` over the operating system's OpenSSL, 3.5 or newer.

    The library is opened, and every algorithm probed, when it is first asked for.
    Where it is missing or older, nothing is served and nothing is raised.

    Args:
        path: A library to open instead of the operating system's.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return "libcrypto"

    @property
    def version(self) -> str:
        """Version of the library; empty where there is none that will do."""
        return self._library.version if self._library else ""

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what this build of the library has."""
        return self._served

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material, whose seed is drawn from *entropy*."""
        seed = entropy.random_bytes(seed_bytes(algorithm))
        return self.material_from_seed(algorithm, seed)

    def material_from_seed(self, algorithm: Algorithm, seed: bytes) -> bytes:
        """
        Return the material that follows from a seed.

        Args:
            algorithm: What to make a key of.

            seed: As long as `evp.seed_bytes` says.

        Raises:
            ValueError: It is of another length.
        """
        key = key_from_seed(self._require(algorithm), algorithm, seed)
        row = spec(algorithm)
        if row.family is Family.SLH_DSA:
            return private_key_info(algorithm, key.private_bytes(row.private_bytes))
        return seed_key_info(algorithm, seed)

    def load(
        self, algorithm: Algorithm, material: bytes, /
    ) -> LibcryptoSignaturePrivateHandle | KEMPrivateHandle:
        """Load material that we made and have just authenticated."""
        return self._load(algorithm, material, trusted=True)

    def load_foreign(
        self, algorithm: Algorithm, material: bytes, /
    ) -> LibcryptoSignaturePrivateHandle | KEMPrivateHandle:
        """Load material from elsewhere; its public half is recomputed."""
        return self._load(algorithm, material, trusted=False)

    def load_public(
        self, algorithm: Algorithm, public_der: bytes, /
    ) -> LibcryptoSignaturePublicHandle | KEMPublicHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        library = self._require(algorithm)
        raw = read_public_key_info(algorithm, public_der)
        try:
            key = key_from_public(library, algorithm, raw)
        except LibcryptoError:
            raise InvalidInputError(
                f"public_key is not a valid public key of {algorithm}.",
                field="public_key",
                algorithm=algorithm.value,
            ) from None
        if spec(algorithm).family is Family.ML_KEM:
            return KEMPublicHandle(key, raw)
        return LibcryptoSignaturePublicHandle(key, raw)

    @cached_property
    def _library(self) -> Libcrypto | None:
        return find_libcrypto() if self._path is None else find_libcrypto([self._path])

    @cached_property
    def _served(self) -> frozenset[Algorithm]:
        library = self._library
        if library is None:
            return frozenset()
        return frozenset(
            row.algorithm
            for row in ALGORITHMS.values()
            if row.family in _FAMILIES and _is_served(library, row.algorithm)
        )

    def _require(self, algorithm: Algorithm) -> Libcrypto:
        if self._library is None or algorithm not in self._served:
            raise AlgorithmUnavailableError(
                f"The system's OpenSSL does not support {algorithm}.",
                algorithm=algorithm.value,
            )
        return self._library

    def _load(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> LibcryptoSignaturePrivateHandle | KEMPrivateHandle:
        library = self._require(algorithm)
        family = spec(algorithm).family
        if family is Family.SLH_DSA:
            key = _read_parts(library, algorithm, material, trusted=trusted)
        else:
            key = _read_seed(library, algorithm, material, trusted=trusted)
        if family is Family.ML_KEM:
            return KEMPrivateHandle(key, key.public_bytes())
        return LibcryptoSignaturePrivateHandle(key, key.public_bytes())


def _is_served(library: Libcrypto, algorithm: Algorithm) -> bool:
    if not library.has_key(algorithm):
        return False
    if spec(algorithm).family is Family.ML_KEM:
        return library.has_kem(algorithm)
    return library.has_signature(algorithm)


def _read_seed(
    library: Libcrypto, algorithm: Algorithm, material: bytes, *, trusted: bool
) -> EVPKey:
    """Read ML-KEM or ML-DSA."""
    if trusted:
        if expanded := expanded_alone(algorithm, material):
            return key_from_expanded(library, algorithm, expanded)
        return key_from_seed(library, algorithm, read_own_seed(algorithm, material))
    seed = read_foreign_seed(
        algorithm,
        material,
        lambda seed: key_from_seed(library, algorithm, seed).public_bytes(),
    )
    return key_from_seed(library, algorithm, seed)


def _read_parts(
    library: Libcrypto, algorithm: Algorithm, material: bytes, *, trusted: bool
) -> EVPKey:
    """Read SLH-DSA; the root of a foreign key must be the one of its secret seed."""
    octets = read_private_key_info(algorithm, material)
    if len(octets) != spec(algorithm).private_bytes:
        _refuse(algorithm, f"has a private key of {len(octets)} bytes")
    if trusted:
        return key_from_private(library, algorithm, octets)
    key = key_from_seed(library, algorithm, octets[: seed_bytes(algorithm)])
    if not hmac.compare_digest(key.private_bytes(len(octets)), octets):
        _refuse(algorithm, "holds a public root that does not match its seeds")
    return key


def _refuse(algorithm: Algorithm, reason: str) -> NoReturn:
    raise InvalidInputError(
        f"material of {algorithm} {reason}.",
        field="material",
        algorithm=algorithm.value,
    )

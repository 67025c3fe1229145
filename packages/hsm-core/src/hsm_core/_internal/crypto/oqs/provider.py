# SPDX-License-Identifier: MIT
"""Provider of liboqs."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import cached_property, partial
from typing import Final, NoReturn

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
)
from hsm_core._internal.crypto.expanded import read_foreign_seed, read_own_seed
from hsm_core._internal.crypto.oqs.binding import mechanism_name, mu_name
from hsm_core._internal.crypto.oqs.draws import Draws
from hsm_core._internal.crypto.oqs.engine import Engine
from hsm_core._internal.crypto.oqs.kem import load_ml_kem, load_ml_kem_public
from hsm_core._internal.crypto.oqs.library import Absent, OqsLibrary, open_library
from hsm_core._internal.crypto.oqs.signature import (
    OqsSignaturePrivateHandle,
    OqsSignaturePublicHandle,
    SignedWithMu,
    make_pair,
    seed_bytes,
)
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import AlgorithmUnavailableError, InvalidInputError
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle

_FAMILIES: Final = frozenset({Family.ML_KEM, Family.ML_DSA, Family.SLH_DSA})


class OqsProvider:
    """
    `CryptoProvider` over liboqs.

    The library is looked for, and its binding imported, when it is first asked for.
    Where it is missing, nothing is served and nothing is raised.

    Args:
        open_library: Finds liboqs.

        mu_provider: Signs and verifies ML-DSA over a given mu where liboqs can't;
            None means pyca.
    """

    def __init__(
        self,
        open_library: Callable[[], OqsLibrary | Absent] = open_library,
        mu_provider: CryptoProvider | None = None,
    ) -> None:
        self._open = open_library
        self._given_mu_provider = mu_provider

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return "oqs"

    @property
    def version(self) -> str:
        """Version of liboqs; empty where it can't be used."""
        return "" if isinstance(self._library, Absent) else self._library.version

    @property
    def absence(self) -> str:
        """Why nothing is served; empty if something is."""
        return self._library.reason if isinstance(self._library, Absent) else ""

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what this build of the library has."""
        return self._served

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material, whose seed is drawn from *entropy*."""
        engine = self._require(algorithm)
        row = spec(algorithm)
        if row.family is Family.ML_KEM:
            return seed_key_info(algorithm, entropy.random_bytes(row.private_bytes))
        seed = entropy.random_bytes(seed_bytes(algorithm))
        if row.family is Family.ML_DSA:
            return seed_key_info(algorithm, seed)
        _, private = make_pair(algorithm, engine, seed)
        return private_key_info(algorithm, private)

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        return self._load(algorithm, material, trusted=True)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere; its public half is recomputed."""
        return self._load(algorithm, material, trusted=False)

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        engine = self._require(algorithm)
        if spec(algorithm).family is Family.ML_KEM:
            return load_ml_kem_public(algorithm, engine, public_der)
        raw = read_public_key_info(algorithm, public_der)
        with_mu = self._with_mu(
            algorithm, lambda other: other.load_public(algorithm, public_der)
        )
        return OqsSignaturePublicHandle(algorithm, engine, raw, with_mu)

    @cached_property
    def _library(self) -> OqsLibrary | Absent:
        return self._open()

    @cached_property
    def _engine(self) -> Engine | None:
        library = self._library
        if isinstance(library, Absent):
            return None
        try:
            return Engine(library.binding, Draws(library.binding.native()))
        except AttributeError:
            return None

    @cached_property
    def _served(self) -> frozenset[Algorithm]:
        engine = self._engine
        if engine is None:
            return frozenset()
        rows = (row for row in ALGORITHMS.values() if row.family in _FAMILIES)
        return frozenset(
            row.algorithm for row in rows if self._is_served(engine, row.algorithm)
        )

    @cached_property
    def _mu_provider(self) -> CryptoProvider:
        return self._given_mu_provider or PycaCryptoProvider()

    def _is_served(self, engine: Engine, algorithm: Algorithm) -> bool:
        if spec(algorithm).family is Family.ML_KEM:
            return _has_kem(engine, algorithm)
        if not _has_signature(engine, algorithm):
            return False
        return (
            not spec(algorithm).takes_mu
            or _has_mu(engine, algorithm)
            or algorithm in self._mu_provider.algorithms()
        )

    def _require(self, algorithm: Algorithm) -> Engine:
        if self._engine is None or algorithm not in self._served:
            raise AlgorithmUnavailableError(
                f"liboqs does not support {algorithm}.", algorithm=algorithm.value
            )
        return self._engine

    def _with_mu(
        self, algorithm: Algorithm, load: Callable[[CryptoProvider], KeyHandle]
    ) -> SignedWithMu | None:
        """Return the other provider's key, where liboqs takes no mu."""
        needed = spec(algorithm).takes_mu
        if not needed or _has_mu(self._require(algorithm), algorithm):
            return None
        return SignedWithMu(partial(load, self._mu_provider))

    def _load(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> KeyHandle:
        engine = self._require(algorithm)
        family = spec(algorithm).family
        if family is Family.ML_KEM:
            return load_ml_kem(algorithm, engine, material, trusted=trusted)
        if family is Family.SLH_DSA:
            pair = _read_parts(algorithm, engine, material, trusted=trusted)
            return OqsSignaturePrivateHandle(algorithm, engine, pair, None)
        seed = _read_seed(algorithm, engine, material, trusted=trusted)
        pair, own = make_pair(algorithm, engine, seed), seed_key_info(algorithm, seed)
        with_mu = self._with_mu(algorithm, lambda other: other.load(algorithm, own))
        return OqsSignaturePrivateHandle(algorithm, engine, pair, with_mu)


def _has_kem(engine: Engine, algorithm: Algorithm) -> bool:
    row, name = spec(algorithm), mechanism_name(algorithm)
    if name not in engine.binding.get_enabled_kem_mechanisms():
        return False
    kem = engine.binding.KeyEncapsulation(name)
    try:
        return (
            kem.length_public_key,
            kem.length_ciphertext,
            kem.length_shared_secret,
            kem.length_keypair_seed,
        ) == (
            row.public_bytes,
            row.ciphertext_bytes,
            row.shared_secret_bytes,
            row.private_bytes,
        )
    finally:
        kem.free()


def _has_signature(engine: Engine, algorithm: Algorithm) -> bool:
    row, name = spec(algorithm), mechanism_name(algorithm)
    if name not in engine.binding.get_enabled_sig_mechanisms():
        return False
    signer = engine.binding.Signature(name)
    try:
        sizes = (signer.length_public_key, signer.length_signature)
        return bool(
            sizes == (row.public_bytes, row.signature_bytes)
            and signer.sig_with_ctx_support
        )
    finally:
        signer.free()


def _has_mu(engine: Engine, algorithm: Algorithm) -> bool:
    return mu_name(algorithm) in engine.binding.get_enabled_sig_mechanisms()


def _read_seed(
    algorithm: Algorithm, engine: Engine, material: bytes, *, trusted: bool
) -> bytes:
    """Read ML-DSA."""
    if trusted:
        return read_own_seed(algorithm, material)
    return read_foreign_seed(
        algorithm, material, lambda seed: make_pair(algorithm, engine, seed)[0]
    )


def _read_parts(
    algorithm: Algorithm, engine: Engine, material: bytes, *, trusted: bool
) -> tuple[bytes, bytes]:
    """Read SLH-DSA; the root of a foreign key must be the one of its secret seed."""
    octets = read_private_key_info(algorithm, material)
    if len(octets) != spec(algorithm).private_bytes:
        _refuse(algorithm, f"has a private key of {len(octets)} bytes")
    if not trusted:
        _, own = make_pair(algorithm, engine, octets[: seed_bytes(algorithm)])
        if not hmac.compare_digest(own, octets):
            _refuse(algorithm, "holds a public root that does not match its seeds")
    return octets[-spec(algorithm).public_bytes :], octets


def _refuse(algorithm: Algorithm, reason: str) -> NoReturn:
    raise InvalidInputError(
        f"material of {algorithm} {reason}.",
        field="material",
        algorithm=algorithm.value,
    )

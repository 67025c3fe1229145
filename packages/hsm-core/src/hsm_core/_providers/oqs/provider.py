# SPDX-License-Identifier: MIT
"""Provider of liboqs: ML-KEM, ML-DSA and SLH-DSA."""

from __future__ import annotations

import hmac
import weakref
from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import Final

from hsm_core._internal.crypto.der import (
    bad_public_key,
    private_key_info,
    read_public_key_info,
    read_raw_private_key,
    seed_key_info,
    wrong_root,
)
from hsm_core._internal.crypto.expanded import (
    encapsulation_key,
    expanded_alone,
    read_seed,
    seed_bytes,
)
from hsm_core._internal.crypto.handle import RawPublicHandle
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signature,
    check_signing,
)
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._providers.oqs.library import (
    Absent,
    Draws,
    Engine,
    KEMObject,
    OqsLibrary,
    SignatureObject,
    exactly,
    mechanism_name,
    mu_name,
    open_library,
)
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import AlgorithmUnavailableError, SignatureMismatchError
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle, SignatureParameters


class OqsMLKEMPublicHandle(RawPublicHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(
        self, algorithm: Algorithm, engine: Engine, kem: KEMObject, raw_public: bytes
    ) -> None:
        super().__init__(algorithm, exactly(raw_public, spec(algorithm).public_bytes))
        self._engine = engine
        self._kem = kem
        weakref.finalize(self, kem.free)

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
    seed = read_seed(
        algorithm,
        material,
        lambda seed: _public_of(engine, name, seed),
        trusted=trusted,
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
        raise bad_public_key(algorithm) from None
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


class OqsSignaturePublicHandle(RawPublicHandle):
    """
    A public key of ML-DSA or SLH-DSA.

    Standard:
        FIPS 204, algorithm 3; FIPS 205, algorithm 24.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        engine: Engine,
        raw_public: bytes,
        with_mu: Callable[[], KeyHandle] | None,
    ) -> None:
        super().__init__(algorithm, exactly(raw_public, spec(algorithm).public_bytes))
        self._engine = engine
        self._with_mu = with_mu
        self._verifier = engine.binding.Signature(mechanism_name(algorithm))
        weakref.finalize(self, self._verifier.free)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature over a message, or over mu."""
        check_signature(self._algorithm, data, signature, parameters)
        if parameters.external_mu and self._with_mu is not None:
            self._with_mu().verify(data, signature, parameters)
        elif not self._is_right(data, signature, parameters):
            raise SignatureMismatchError

    def _is_right(
        self, data: bytes, signature: bytes, parameters: SignatureParameters
    ) -> bool:
        if not parameters.external_mu:
            return self._verifier.verify_with_ctx_str(
                data, signature, parameters.context, self._raw_public
            )
        verifier = self._engine.binding.Signature(mu_name(self._algorithm))
        try:
            return verifier.verify(data, signature, self._raw_public)
        finally:
            verifier.free()


class OqsSignaturePrivateHandle(OqsSignaturePublicHandle):
    """
    A key pair of ML-DSA or SLH-DSA.

    Standard:
        FIPS 204, algorithm 2; FIPS 205, algorithm 22.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        engine: Engine,
        pair: tuple[bytes, bytes],
        with_mu: Callable[[], KeyHandle] | None,
    ) -> None:
        raw_public, private = pair
        super().__init__(algorithm, engine, raw_public, with_mu)
        self._signer = engine.binding.Signature(mechanism_name(algorithm), private)
        weakref.finalize(self, self._signer.free)
        self._mu_signer: SignatureObject | None = None
        if with_mu is None and spec(algorithm).takes_mu:
            self._mu_signer = engine.binding.Signature(mu_name(algorithm), private)
            weakref.finalize(self, self._mu_signer.free)

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a hedged signature: each is another."""
        check_signing(self._algorithm, data, parameters)
        size = spec(self._algorithm).signature_bytes
        if not parameters.external_mu:
            signature = self._signer.sign_with_ctx_str(data, parameters.context)
        elif self._with_mu is not None:
            signature = self._with_mu().sign(data, parameters)
        else:
            assert self._mu_signer is not None  # noqa: S101 - check_signing allows mu
            signature = self._mu_signer.sign(data)
        return exactly(signature, size)


def make_pair(algorithm: Algorithm, engine: Engine, seed: bytes) -> tuple[bytes, bytes]:
    """Return the public and the expanded private key that follow from a seed."""
    maker = engine.binding.Signature(mechanism_name(algorithm))
    try:
        public = engine.draws.from_seed(seed, maker.generate_keypair)
        private = exactly(maker.export_secret_key(), maker.length_secret_key)
        return exactly(public, spec(algorithm).public_bytes), private
    finally:
        maker.free()


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

    name: Final = "oqs"
    """Short name, used in settings."""

    def __init__(
        self,
        open_library: Callable[[], OqsLibrary | Absent] = open_library,
        mu_provider: CryptoProvider | None = None,
    ) -> None:
        self._open = open_library
        self._given_mu_provider = mu_provider

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
        seed = entropy.random_bytes(seed_bytes(algorithm))
        if spec(algorithm).family is not Family.SLH_DSA:
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
    ) -> Callable[[], KeyHandle] | None:
        """Return the other provider's key, where liboqs takes no mu."""
        needed = spec(algorithm).takes_mu
        if not needed or _has_mu(self._require(algorithm), algorithm):
            return None
        return cache(partial(load, self._mu_provider))

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
        seed = read_seed(
            algorithm,
            material,
            lambda seed: make_pair(algorithm, engine, seed)[0],
            trusted=trusted,
        )
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


def _read_parts(
    algorithm: Algorithm, engine: Engine, material: bytes, *, trusted: bool
) -> tuple[bytes, bytes]:
    """Read SLH-DSA; the root of a foreign key must be the one of its secret seed."""
    octets = read_raw_private_key(algorithm, material)
    if not trusted:
        _, own = make_pair(algorithm, engine, octets[: seed_bytes(algorithm)])
        if not hmac.compare_digest(own, octets):
            raise wrong_root(algorithm)
    return octets[-spec(algorithm).public_bytes :], octets

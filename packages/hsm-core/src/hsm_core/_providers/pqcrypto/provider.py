# SPDX-License-Identifier: MIT
"""Provider of the wheel ``pqcrypto``: ML-KEM-512 and SLH-DSA."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn

from hsm_core._internal.crypto.der import (
    bad_material,
    bad_public_key,
    expanded_key_info,
    private_key_info,
    read_private_form,
    read_public_key_info,
    read_raw_private_key,
    wrong_root,
)
from hsm_core._internal.crypto.expanded import encapsulation_key
from hsm_core._internal.crypto.handle import RawPublicHandle
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signature,
    check_signing,
    signature_parameters,
)
from hsm_core._internal.lib import child_process
from hsm_core._providers.pqcrypto import library, worker
from hsm_core._providers.pqcrypto.pool import WorkerPool
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    InputSizeError,
    SignatureMismatchError,
    UnavailableError,
)
from hsm_core.protocols import Entropy, KeyHandle, SignatureParameters


class PqcryptoMLKEMPublicHandle(RawPublicHandle):
    """
    An encapsulation key, which was checked when it was loaded.

    Standard:
        FIPS 203, section 7.2.
    """

    def __init__(
        self, algorithm: Algorithm, module: library.KEMModule, raw_public: bytes
    ) -> None:
        super().__init__(algorithm, raw_public)
        self._module = module

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
        self, algorithm: Algorithm, module: library.KEMModule, expanded: bytes
    ) -> None:
        super().__init__(algorithm, module, encapsulation_key(algorithm, expanded))
        self._expanded = expanded

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret; a changed encapsulation gives another."""
        check_encapsulation(self._algorithm, ciphertext)
        return self._module.decaps(self._expanded, ciphertext)


def generate_ml_kem(algorithm: Algorithm, module: library.KEMModule) -> bytes:
    """Return PKCS#8 of a fresh key, in the expanded form of RFC 9935, section 6."""
    public, expanded = module.keygen()
    if public != encapsulation_key(algorithm, expanded):
        raise UnavailableError("pqcrypto generated a key pair that does not match.")
    return expanded_key_info(algorithm, expanded)


def load_ml_kem(
    algorithm: Algorithm, module: library.KEMModule, material: bytes
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
        raise bad_material(
            algorithm,
            "holds the expanded key without the seed, which can't be checked",
        )
    raise AlgorithmUnavailableError(
        f"pqcrypto can't import {algorithm} keys because it takes no seeds. Use "
        "OpenSSL 3.5 or newer.",
        algorithm=algorithm.value,
    )


def load_ml_kem_public(
    algorithm: Algorithm, module: library.KEMModule, public_der: bytes
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
        raise bad_public_key(algorithm) from None
    return PqcryptoMLKEMPublicHandle(algorithm, module, raw)


_QUICK_BYTES: Final = 1024 * 1024
"""A longer message is verified in a child: hashing it would hold the lock too long."""

_OVERHEAD_BYTES: Final = 64 * 1024
"""More than all of a request but its message."""


class SLHDSAPublicHandle(RawPublicHandle):
    """
    A public key of SLH-DSA.

    Standard:
        FIPS 205, algorithm 24.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        module: library.SignatureModule,
        pool: WorkerPool,
        raw_public: bytes,
    ) -> None:
        super().__init__(algorithm, raw_public)
        self._module = module
        self._pool = pool

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature; any error but MemoryError means that it is wrong."""
        check_signature(self._algorithm, data, signature, parameters)
        if len(data) > _QUICK_BYTES:
            _check_size(data)
            fields = (self._raw_public, data, parameters.context, signature)
            _ask(self._pool, worker.VERIFY, self._algorithm, *fields)
            return
        try:
            self._module.verify(
                self._raw_public, data, signature, parameters.context or None, None
            )
        except MemoryError:
            raise
        except Exception:
            raise SignatureMismatchError from None


class SLHDSAPrivateHandle(SLHDSAPublicHandle):
    """
    A key pair of SLH-DSA: SK.seed ‖ SK.prf ‖ PK.seed ‖ PK.root.

    Standard:
        FIPS 205, algorithm 22 and figure 15.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        module: library.SignatureModule,
        pool: WorkerPool,
        raw_private: bytes,
    ) -> None:
        half = len(raw_private) // 2
        super().__init__(algorithm, module, pool, raw_private[half:])
        self._raw_private = raw_private

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a hedged signature: each is another."""
        check_signing(self._algorithm, data, parameters)
        _check_size(data)
        fields = (self._raw_private, data, parameters.context)
        answer = _ask(self._pool, worker.SIGN, self._algorithm, *fields)
        return _exactly(answer, spec(self._algorithm).signature_bytes)[0]


def generate_slh_dsa(algorithm: Algorithm, pool: WorkerPool) -> bytes:
    """Return the private key of a fresh pair."""
    row = spec(algorithm)
    answer = _ask(pool, worker.GENERATE, algorithm)
    public, private = _exactly(answer, row.public_bytes, row.private_bytes)
    if private[-len(public) :] != public:
        raise UnavailableError("pqcrypto generated a key pair that does not match.")
    return private


def _check_size(data: bytes) -> None:
    limit = worker.REQUEST_BYTES - _OVERHEAD_BYTES
    if len(data) > limit:
        raise InputSizeError("data", actual=len(data), maximum=limit)


def _ask(
    pool: WorkerPool, action: bytes, algorithm: Algorithm, *fields: bytes
) -> list[bytes]:
    """
    Return what a child answers.

    Raises:
        SignatureMismatchError: The child says so.
        UnavailableError: The child failed, or pqcrypto did.
    """
    name = library.module_name(algorithm).encode()
    status, *answer = worker.split(pool.ask(worker.join(action, name, *fields)))
    if status == worker.MISMATCH:
        raise SignatureMismatchError
    if status != worker.DONE:
        raise UnavailableError(
            f"pqcrypto failed to compute for {algorithm}.", algorithm=algorithm.value
        )
    return answer


def _exactly(answer: list[bytes], *sizes: int) -> list[bytes]:
    if tuple(map(len, answer)) != sizes:
        raise UnavailableError("pqcrypto returned an answer of the wrong length.")
    return answer


_HEALTH_BYTES: Final = 32
_CHECKED_MESSAGE: Final = b"do these halves belong together?"


def worker_command() -> tuple[str, ...]:
    """Return what starts a child: isolated, without site-packages, nothing secret."""
    wheel = library.open_wheel()
    folder = str(wheel.folder) if wheel is not None else ""
    return (
        # As -I isolates, but for the environment, which says how memory is freed.
        *(sys.executable, "-s", "-P", "-S", str(Path(worker.__file__))),
        *(str(os.getpid()), folder, child_process.__file__),
    )


_POOL: Final = WorkerPool(worker_command)
"""One for the process, however many providers there are; nothing runs until asked."""


class PqcryptoProvider:
    """
    `CryptoProvider` over the wheel ``pqcrypto``: SLH-DSA and ML-KEM-512.

    Its ML-DSA refuses contexts of 254 and 255 bytes, so it is never used. Its other
    ML-KEM keys have no seeds, and others serve these everywhere.

    Args:
        pool: Children to use instead of the process's own.
    """

    name: Final = "pqcrypto"
    """Short name, used in settings."""

    def __init__(self, pool: WorkerPool = _POOL) -> None:
        self._pool = pool

    @property
    def version(self) -> str:
        """Version of the wheel; empty where there is none that will do."""
        return self._wheel.version if self._wheel is not None else ""

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what the wheel has, in the sizes of the standards."""
        return frozenset(self._signatures) | frozenset(self._kems)

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """
        Return fresh material.

        The wheel draws from the operating system itself; *entropy* is asked first, so
        that its health test guards these keys too.
        """
        entropy.random_bytes(_HEALTH_BYTES)
        if algorithm in self._kems:
            return generate_ml_kem(algorithm, self._kems[algorithm])
        self._module(algorithm)
        return private_key_info(algorithm, generate_slh_dsa(algorithm, self._pool))

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        if algorithm in self._kems:
            return load_ml_kem(algorithm, self._kems[algorithm], material)
        return self._load_signature(algorithm, material)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """
        Load material from elsewhere, fully checked.

        A signature is made and verified, which fails for a root that is not that of
        the secret seed. ML-KEM is refused.
        """
        if algorithm in self._kems:
            refuse_foreign(algorithm, material)
        handle = self._load_signature(algorithm, material)
        parameters = signature_parameters(algorithm)
        signature = handle.sign(_CHECKED_MESSAGE, parameters)
        try:
            handle.verify(_CHECKED_MESSAGE, signature, parameters)
        except SignatureMismatchError:
            raise wrong_root(algorithm) from None
        return handle

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        if algorithm in self._kems:
            return load_ml_kem_public(algorithm, self._kems[algorithm], public_der)
        module = self._module(algorithm)
        raw = read_public_key_info(algorithm, public_der)
        return SLHDSAPublicHandle(algorithm, module, self._pool, raw)

    @cached_property
    def _wheel(self) -> library.PqcryptoWheel | None:
        return library.open_wheel()

    @cached_property
    def _signatures(self) -> dict[Algorithm, library.SignatureModule]:
        if self._wheel is None or not sys.executable:  # nobody could sign
            return {}
        found = {
            row.algorithm: self._wheel.signature(row.algorithm)
            for row in ALGORITHMS.values()
            if row.family is Family.SLH_DSA
        }
        return {a: m for a, m in found.items() if m is not None and _is_sized(a, m)}

    @cached_property
    def _kems(self) -> dict[Algorithm, library.KEMModule]:
        if self._wheel is None:
            return {}
        algorithm = Algorithm.ML_KEM_512
        module = self._wheel.kem(algorithm)
        return {} if module is None else {algorithm: module}

    def _module(self, algorithm: Algorithm) -> library.SignatureModule:
        try:
            return self._signatures[algorithm]
        except KeyError:
            raise AlgorithmUnavailableError(
                f"pqcrypto does not support {algorithm}.", algorithm=algorithm.value
            ) from None

    def _load_signature(
        self, algorithm: Algorithm, material: bytes
    ) -> SLHDSAPrivateHandle:
        module = self._module(algorithm)
        octets = read_raw_private_key(algorithm, material)
        return SLHDSAPrivateHandle(algorithm, module, self._pool, octets)


def _is_sized(algorithm: Algorithm, module: library.SignatureModule) -> bool:
    row = spec(algorithm)
    sizes = (module.PUBLIC_KEY_SIZE, module.SECRET_KEY_SIZE, module.SIGNATURE_SIZE)
    return sizes == (row.public_bytes, row.private_bytes, row.signature_bytes)

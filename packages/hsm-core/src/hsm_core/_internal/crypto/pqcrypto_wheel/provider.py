# SPDX-License-Identifier: MIT
"""Provider of the pqcrypto wheel."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_key_info,
    read_public_key_info,
)
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pqcrypto_wheel import worker
from hsm_core._internal.crypto.pqcrypto_wheel.kem import (
    generate_ml_kem,
    load_ml_kem,
    load_ml_kem_public,
    refuse_foreign,
)
from hsm_core._internal.crypto.pqcrypto_wheel.library import (
    KEMModule,
    PqcryptoWheel,
    SignatureModule,
    open_wheel,
)
from hsm_core._internal.crypto.pqcrypto_wheel.pool import WorkerPool
from hsm_core._internal.crypto.pqcrypto_wheel.signature import (
    SLHDSAPrivateHandle,
    SLHDSAPublicHandle,
    generate_slh_dsa,
)
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    InvalidInputError,
    SignatureMismatchError,
)
from hsm_core.protocols import Entropy, KeyHandle

_HEALTH_BYTES: Final = 32
_CHECKED_MESSAGE: Final = b"do these halves belong together?"


def worker_command() -> tuple[str, ...]:
    """Return what starts a child: isolated, without site-packages, nothing secret."""
    wheel = open_wheel()
    folder = str(wheel.folder) if wheel is not None else ""
    return (
        # As -I isolates, but for the environment, which says how memory is freed.
        *(sys.executable, "-s", "-P", "-S", str(Path(worker.__file__))),
        *(str(os.getpid()), folder),
    )


_POOL: Final = WorkerPool(worker_command)
"""One for the process, however many providers there are; nothing runs until asked."""


class PqcryptoProvider:
    """
    `CryptoProvider` over the wheel ``pqcrypto``: SLH-DSA and ML-KEM-512, no more.

    Its ML-DSA refuses contexts of 254 and 255 bytes, so it is never used. Its other
    ML-KEM keys have no seeds, and others serve these everywhere.

    Args:
        pool: Children to use instead of the process's own.
    """

    def __init__(self, pool: WorkerPool = _POOL) -> None:
        self._pool = pool

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return "pqcrypto"

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
            _refuse(algorithm, "holds a public root that does not match its seeds")
        return handle

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        if algorithm in self._kems:
            return load_ml_kem_public(algorithm, self._kems[algorithm], public_der)
        module = self._module(algorithm)
        raw = read_public_key_info(algorithm, public_der)
        return SLHDSAPublicHandle(algorithm, module, self._pool, raw)

    @cached_property
    def _wheel(self) -> PqcryptoWheel | None:
        return open_wheel()

    @cached_property
    def _signatures(self) -> dict[Algorithm, SignatureModule]:
        if self._wheel is None or not sys.executable:  # nobody could sign
            return {}
        found = {
            row.algorithm: self._wheel.signature(row.algorithm)
            for row in ALGORITHMS.values()
            if row.family is Family.SLH_DSA
        }
        return {a: m for a, m in found.items() if m is not None and _is_sized(a, m)}

    @cached_property
    def _kems(self) -> dict[Algorithm, KEMModule]:
        if self._wheel is None:
            return {}
        algorithm = Algorithm.ML_KEM_512
        module = self._wheel.kem(algorithm)
        return {} if module is None else {algorithm: module}

    def _module(self, algorithm: Algorithm) -> SignatureModule:
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
        octets = read_private_key_info(algorithm, material)
        if len(octets) != spec(algorithm).private_bytes:
            _refuse(algorithm, f"has a private key of {len(octets)} bytes")
        return SLHDSAPrivateHandle(algorithm, module, self._pool, octets)


def _is_sized(algorithm: Algorithm, module: SignatureModule) -> bool:
    row = spec(algorithm)
    sizes = (module.PUBLIC_KEY_SIZE, module.SECRET_KEY_SIZE, module.SIGNATURE_SIZE)
    return sizes == (row.public_bytes, row.private_bytes, row.signature_bytes)


def _refuse(algorithm: Algorithm, reason: str) -> NoReturn:
    raise InvalidInputError(
        f"material of {algorithm} {reason}.",
        field="material",
        algorithm=algorithm.value,
    )

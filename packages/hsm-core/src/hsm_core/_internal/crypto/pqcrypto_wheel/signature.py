# SPDX-License-Identifier: MIT
"""SLH-DSA: verified here, signed and generated in a child process."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import check_signing, check_verifying
from hsm_core._internal.crypto.pqcrypto_wheel.library import (
    SignatureModule,
    module_name,
)
from hsm_core._internal.crypto.pqcrypto_wheel.pool import WorkerPool
from hsm_core._internal.crypto.pqcrypto_wheel.worker import (
    DONE,
    GENERATE,
    MISMATCH,
    REQUEST_BYTES,
    SIGN,
    VERIFY,
    join,
    split,
)
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import InputSizeError, SignatureMismatchError, UnavailableError
from hsm_core.protocols import SignatureParameters

_QUICK_BYTES: Final = 1024 * 1024
"""A longer message is verified in a child: hashing it would hold the lock too long."""

_OVERHEAD_BYTES: Final = 64 * 1024
"""More than all of a request but its message."""


class SLHDSAPublicHandle(BaseHandle):
    """
    A public key of SLH-DSA.

    Standard:
        FIPS 205, algorithm 24.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        module: SignatureModule,
        pool: WorkerPool,
        raw_public: bytes,
    ) -> None:
        super().__init__(algorithm)
        self._module = module
        self._pool = pool
        self._raw_public = raw_public

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9909)."""
        return subject_public_key_info(self._algorithm, self._raw_public)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature; whatever the wheel raises means that it is wrong."""
        check_verifying(self._algorithm, data, parameters)
        if len(signature) != spec(self._algorithm).signature_bytes:
            raise SignatureMismatchError
        if len(data) > _QUICK_BYTES:
            _check_size(data)
            fields = (self._raw_public, data, parameters.context, signature)
            _ask(self._pool, VERIFY, self._algorithm, *fields)
            return
        try:
            self._module.verify(
                self._raw_public, data, signature, parameters.context or None, None
            )
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
        module: SignatureModule,
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
        answer = _ask(self._pool, SIGN, self._algorithm, *fields)
        return _exactly(answer, spec(self._algorithm).signature_bytes)[0]


def generate_slh_dsa(algorithm: Algorithm, pool: WorkerPool) -> bytes:
    """Return the private key of a fresh pair."""
    row = spec(algorithm)
    answer = _ask(pool, GENERATE, algorithm)
    public, private = _exactly(answer, row.public_bytes, row.private_bytes)
    if private[-len(public) :] != public:
        raise UnavailableError("pqcrypto generated a key pair that does not match.")
    return private


def _check_size(data: bytes) -> None:
    limit = REQUEST_BYTES - _OVERHEAD_BYTES
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
    name = module_name(algorithm).encode()
    status, *answer = split(pool.ask(join(action, name, *fields)))
    if status == MISMATCH:
        raise SignatureMismatchError
    if status != DONE:
        raise UnavailableError(
            f"pqcrypto failed to compute for {algorithm}.", algorithm=algorithm.value
        )
    return answer


def _exactly(answer: list[bytes], *sizes: int) -> list[bytes]:
    if tuple(map(len, answer)) != sizes:
        raise UnavailableError("pqcrypto returned an answer of the wrong length.")
    return answer

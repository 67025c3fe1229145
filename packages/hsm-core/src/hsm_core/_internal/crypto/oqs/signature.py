# SPDX-License-Identifier: MIT
"""ML-DSA and SLH-DSA."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.oqs.binding import (
    SignatureObject,
    mechanism_name,
    mu_name,
)
from hsm_core._internal.crypto.oqs.engine import Engine, exactly
from hsm_core._internal.crypto.parameters import check_signing, check_verifying
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import KeyHandle, SignatureParameters


class SignedWithMu:
    """
    The same key with another provider, for mu, if liboqs has no such mechanism.

    Args:
        load: Loads it there; called once, when mu is first given.
    """

    def __init__(self, load: Callable[[], KeyHandle]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._handle: KeyHandle | None = None

    def handle(self) -> KeyHandle:
        """Return the other provider's handle."""
        with self._lock:
            if self._handle is None:
                self._handle = self._load()
            return self._handle


class OqsSignaturePublicHandle(BaseHandle):
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
        with_mu: SignedWithMu | None,
    ) -> None:
        super().__init__(algorithm)
        self._engine = engine
        self._raw_public = exactly(raw_public, spec(algorithm).public_bytes)
        self._with_mu = with_mu
        self._verifier = engine.binding.Signature(mechanism_name(algorithm))
        weakref.finalize(self, self._verifier.free)

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo (RFC 9881, RFC 9909)."""
        return subject_public_key_info(self._algorithm, self._raw_public)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check a signature over a message, or over mu."""
        check_verifying(self._algorithm, data, parameters)
        if len(signature) != spec(self._algorithm).signature_bytes:
            raise SignatureMismatchError
        if parameters.external_mu and self._with_mu is not None:
            self._with_mu.handle().verify(data, signature, parameters)
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
        with_mu: SignedWithMu | None,
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
            signature = self._with_mu.handle().sign(data, parameters)
        else:
            assert self._mu_signer is not None  # noqa: S101 - check_signing allows mu
            signature = self._mu_signer.sign(data)
        return exactly(signature, size)


def seed_bytes(algorithm: Algorithm) -> int:
    """
    Return the length of the seed that a key is made from.

    Standard:
        FIPS 204, algorithm 6 (ξ); FIPS 205, algorithm 18 (three parts of n bytes).
    """
    row = spec(algorithm)
    if row.family is Family.SLH_DSA:
        return row.private_bytes // 4 * 3
    return row.private_bytes


def make_pair(algorithm: Algorithm, engine: Engine, seed: bytes) -> tuple[bytes, bytes]:
    """Return the public and the expanded private key that follow from a seed."""
    maker = engine.binding.Signature(mechanism_name(algorithm))
    try:
        public = engine.draws.from_seed(seed, maker.generate_keypair)
        private = exactly(maker.export_secret_key(), maker.length_secret_key)
        return exactly(public, spec(algorithm).public_bytes), private
    finally:
        maker.free()

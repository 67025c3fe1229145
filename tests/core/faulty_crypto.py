# SPDX-License-Identifier: MIT
"""Providers with one fault each, and generators that are out of order."""

from __future__ import annotations

from contextlib import suppress

from hsm_core.algorithms import Algorithm
from hsm_core.errors import EntropyUnavailableError, SignatureMismatchError
from hsm_core.protocols import (
    CryptoProvider,
    Entropy,
    KeyHandle,
    OAEPParameters,
    SignatureParameters,
)

__all__ = ["DeadEntropy", "FaultyProvider", "StuckProvider"]


def flipped(value: bytes) -> bytes:
    """Return *value* with its last bit the other way round."""
    return value[:-1] + bytes([value[-1] ^ 1])


class FaultyHandle:
    """A handle whose one method computes a wrong result."""

    def __init__(self, handle: KeyHandle, method: str) -> None:
        self._handle = handle
        self._method = method

    @property
    def algorithm(self) -> Algorithm:
        """The key's algorithm."""
        return self._handle.algorithm

    def public_der(self) -> bytes:
        """Return what the true handle returns."""
        return self._handle.public_der()

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature."""
        return self._spoil("sign", self._handle.sign(data, parameters))

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Accept anything, if that is the fault."""
        if self._method == "verify":
            with suppress(SignatureMismatchError):
                self._handle.verify(data, signature, parameters)
        else:
            self._handle.verify(data, signature, parameters)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes, /) -> bytes:
        """Return a ciphertext."""
        return self._spoil("seal", self._handle.seal(nonce, plaintext, aad))

    def open(self, nonce: bytes, ciphertext: bytes, aad: bytes, /) -> bytes:
        """Return a plaintext; or never look at the tag, if that is the fault."""
        if self._method == "skip tag":
            length = len(ciphertext) - 16
            stream = self._handle.seal(nonce, bytes(length), aad)
            pairs = zip(stream, ciphertext[:length], strict=False)
            return bytes(a ^ b for a, b in pairs)
        return self._spoil("open", self._handle.open(nonce, ciphertext, aad))

    def encrypt(self, plaintext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Return a ciphertext."""
        return self._spoil("encrypt", self._handle.encrypt(plaintext, parameters))

    def decrypt(self, ciphertext: bytes, parameters: OAEPParameters, /) -> bytes:
        """Return a plaintext."""
        return self._spoil("decrypt", self._handle.decrypt(ciphertext, parameters))

    def mac(self, data: bytes, /) -> bytes:
        """Return a MAC."""
        return self._spoil("mac", self._handle.mac(data))

    def _spoil(self, method: str, result: bytes) -> bytes:
        if self._method == "crash":
            raise RuntimeError("the library broke")
        return flipped(result) if self._method == method else result


class FaultyProvider:
    """
    A provider that computes one method of one algorithm wrongly.

    Args:
        inner: A good provider.

        algorithm: The one with the fault.

        method: ``sign``, ``verify``, ``seal``, ``open``, ``encrypt``, ``decrypt`` or
            ``mac``: its result has one bit flipped, or it accepts anything;
            ``skip tag``: opens without authentication; ``crash``: raises RuntimeError.
    """

    def __init__(
        self, inner: CryptoProvider, algorithm: Algorithm, method: str
    ) -> None:
        self._inner = inner
        self._algorithm = algorithm
        self._method = method
        self.broken = True

    @property
    def name(self) -> str:
        """Name of the fake."""
        return "faulty"

    @property
    def version(self) -> str:
        """Version of the true provider."""
        return self._inner.version

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what the true provider serves."""
        return self._inner.algorithms()

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material."""
        return self._inner.generate(algorithm, entropy)

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material."""
        return self._wrap(algorithm, self._inner.load(algorithm, material))

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material."""
        return self._wrap(algorithm, self._inner.load_foreign(algorithm, material))

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load a public key."""
        return self._wrap(algorithm, self._inner.load_public(algorithm, public_der))

    def _wrap(self, algorithm: Algorithm, handle: KeyHandle) -> KeyHandle:
        if self.broken and algorithm is self._algorithm:
            return FaultyHandle(handle, self._method)
        return handle


class StuckProvider(FaultyProvider):
    """A provider whose generator gives the same key of one algorithm again."""

    def __init__(self, inner: CryptoProvider, algorithm: Algorithm) -> None:
        super().__init__(inner, algorithm, "none")
        self._kept = b""

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return material."""
        if algorithm is not self._algorithm:
            return super().generate(algorithm, entropy)
        self._kept = self._kept or super().generate(algorithm, entropy)
        return self._kept


class DeadEntropy:
    """A random generator that failed its health test."""

    def random_bytes(self, length: int, /) -> bytes:
        """Refuse."""
        raise EntropyUnavailableError

# SPDX-License-Identifier: MIT
"""Guards around every call of a provider."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from hsm_core.algorithms import AESMode, Algorithm
from hsm_core.errors import HSMError, UnavailableError
from hsm_core.protocols import KeyHandle, OAEPParameters, SignatureParameters

P = ParamSpec("P")
R = TypeVar("R")


class Guard:
    """
    Context of every call to a provider.

    It asks, before and after, whether the algorithm may run, and lets nothing foreign
    out. It keeps no state, so one object serves many threads.

    Args:
        algorithm: What the provider computes.

        require: Raises if the algorithm may not run.
    """

    __slots__ = ("_algorithm", "_require")

    def __init__(
        self, algorithm: Algorithm, require: Callable[[Algorithm], None]
    ) -> None:
        self._algorithm = algorithm
        self._require = require

    def __enter__(self) -> None:
        self._require(self._algorithm)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._require(self._algorithm)
        elif isinstance(error, Exception) and not isinstance(error, HSMError):
            raise UnavailableError(
                f"The provider of {self._algorithm} failed unexpectedly.",
                algorithm=self._algorithm.value,
            ) from error


def octets(value: object) -> bytes:
    """
    Return bytes as such: providers differ in what else they take for them.

    Raises:
        TypeError: It is no bytes-like object.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"Expected bytes, got {type(value).__name__}.")


class GuardedHandle:
    """
    A `KeyHandle` that runs every call in a guard.

    So a handle that was loaded before a self-test failed gives nothing afterwards, and
    a result that was computed meanwhile is thrown away.

    Attributes:
        unguarded: The handle itself, for who asks for failures by itself.
    """

    __slots__ = ("_algorithm", "_guard", "unguarded")

    def __init__(self, handle: KeyHandle, guard: Guard) -> None:
        self.unguarded = handle
        self._algorithm = handle.algorithm
        self._guard = guard

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._algorithm}>"

    @property
    def algorithm(self) -> Algorithm:
        """The key's algorithm."""
        return self._algorithm

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo, DER; empty for a symmetric key."""
        return self._run(self.unguarded.public_der)

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """See `KeyHandle.sign`."""
        return self._run(self.unguarded.sign, octets(data), parameters)

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """See `KeyHandle.verify`."""
        self._run(self.unguarded.verify, octets(data), octets(signature), parameters)

    def seal(
        self, nonce: bytes, plaintext: bytes, aad: bytes, start: bytes = b"", /
    ) -> bytes:
        """See `KeyHandle.seal`."""
        given = map(octets, (nonce, plaintext, aad, start))
        return self._run(self.unguarded.seal, *given)

    def open(
        self, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes, /
    ) -> bytes:
        """See `KeyHandle.open`."""
        if not (isinstance(ciphertext, memoryview) and ciphertext.readonly):
            ciphertext = octets(ciphertext)
        return self._run(self.unguarded.open, octets(nonce), ciphertext, octets(aad))

    def encrypt(self, plaintext: bytes, parameters: OAEPParameters, /) -> bytes:
        """See `KeyHandle.encrypt`."""
        return self._run(self.unguarded.encrypt, octets(plaintext), parameters)

    def decrypt(self, ciphertext: bytes, parameters: OAEPParameters, /) -> bytes:
        """See `KeyHandle.decrypt`."""
        return self._run(self.unguarded.decrypt, octets(ciphertext), parameters)

    def encrypt_raw(
        self, mode: AESMode, iv: bytes, plaintext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """See `KeyHandle.encrypt_raw`."""
        given = map(octets, (iv, plaintext, aad))
        return self._run(self.unguarded.encrypt_raw, mode, *given)

    def decrypt_raw(
        self, mode: AESMode, iv: bytes, ciphertext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """See `KeyHandle.decrypt_raw`."""
        given = map(octets, (iv, ciphertext, aad))
        return self._run(self.unguarded.decrypt_raw, mode, *given)

    def decrypt_pkcs1(self, ciphertext: bytes, /) -> bytes:
        """See `KeyHandle.decrypt_pkcs1`."""
        return self._run(self.unguarded.decrypt_pkcs1, octets(ciphertext))

    def mac(self, data: bytes, /) -> bytes:
        """See `KeyHandle.mac`."""
        return self._run(self.unguarded.mac, octets(data))

    def encapsulate(self) -> tuple[bytes, bytes]:
        """See `KeyHandle.encapsulate`."""
        return self._run(self.unguarded.encapsulate)

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """See `KeyHandle.decapsulate`."""
        return self._run(self.unguarded.decapsulate, octets(ciphertext))

    def agree(self, peer_public_der: bytes, /) -> bytes:
        """See `KeyHandle.agree`."""
        return self._run(self.unguarded.agree, octets(peer_public_der))

    def derive(self, salt: bytes, info: bytes, length: int, /) -> bytes:
        """See `KeyHandle.derive`."""
        return self._run(self.unguarded.derive, octets(salt), octets(info), length)

    def wrap(self, data: bytes, /, *, padded: bool) -> bytes:
        """See `KeyHandle.wrap`."""
        return self._run(self.unguarded.wrap, octets(data), padded=padded)

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """See `KeyHandle.unwrap`."""
        return self._run(self.unguarded.unwrap, octets(wrapped), padded=padded)

    def _run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        with self._guard:
            return call(*args, **kwargs)

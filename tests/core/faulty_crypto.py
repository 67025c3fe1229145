# SPDX-License-Identifier: MIT
"""Providers with one fault each, and generators that are out of order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from hsm_core._internal.crypto.providers import composite_provider, default_providers
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.crypto.selftest.cases import known_answers
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, AESMode, Algorithm, Cost, Family, spec
from hsm_core.errors import (
    DecryptionError,
    EntropyUnavailableError,
    SignatureMismatchError,
)
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle, SignatureParameters
from tests.support import require_service

_KEM = ("encapsulate", "decapsulate", "public_der")
_SIGNATURE = ("sign", "verify", "public_der")

METHODS: dict[Family, tuple[str, ...]] = {
    Family.AEAD: ("seal", "open", "skip tag"),
    Family.RSA: ("sign", "verify", "encrypt", "decrypt"),
    Family.ECDSA: ("sign", "verify"),
    Family.EDDSA: ("sign", "verify"),
    Family.ECDH: ("agree",),
    Family.AES: ("encrypt_raw", "decrypt_raw", "skip tag"),
    Family.MAC: ("mac",),
    Family.KEY_WRAP: ("wrap", "unwrap", "skip check"),
    Family.KDF: ("derive",),
    Family.ML_KEM: (*_KEM, "same secret", "no rejection"),
    Family.ML_DSA: _SIGNATURE,
    Family.SLH_DSA: _SIGNATURE,
    Family.COMPOSITE_KEM: (*_KEM, "same secret", "no rejection", "one half"),
    Family.COMPOSITE_SIGNATURE: _SIGNATURE,
}
"""Faults that the known answers of a family must show."""


def flipped(value: bytes) -> bytes:
    """Return *value* with its last bit the other way round."""
    return value[:-1] + bytes([value[-1] ^ 1])


class FaultyHandle:
    """A handle whose one method computes a wrong result."""

    def __init__(self, handle: KeyHandle, method: str) -> None:
        self._handle = handle
        self._method = method
        self._made: tuple[bytes, bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what the true handle has; what a method returns may be spoiled."""
        true = getattr(self._handle, name)
        if not callable(true):
            return true
        return lambda *given, **named: self._spoil(name, true(*given, **named))

    def public_der(self) -> bytes:
        """Return what the true handle returns, or another key."""
        if self._method != "public_der":
            return self._handle.public_der()
        return self._spoil("public_der", self._handle.public_der())

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return a signature; a wrong one of a slow algorithm is made quickly."""
        row = ALGORITHMS[self.algorithm]
        if self._method in {"sign", "crash"} and row.use_cost is Cost.SLOW:
            return self._spoil("sign", bytes(row.signature_bytes))
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

    def open(
        self, nonce: bytes, ciphertext: bytes | memoryview, aad: bytes, /
    ) -> bytes:
        """Return a plaintext; or never look at the tag, if that is the fault."""
        if self._method == "skip tag":
            length = len(ciphertext) - 16
            stream = self._handle.seal(nonce, bytes(length), aad)
            pairs = zip(stream, ciphertext[:length], strict=False)
            return bytes(a ^ b for a, b in pairs)
        return self._spoil("open", self._handle.open(nonce, ciphertext, aad))

    def decrypt_raw(
        self, mode: AESMode, iv: bytes, ciphertext: bytes, aad: bytes = b"", /
    ) -> bytes:
        """Return a plaintext; or never look at the tag, if that is the fault."""
        if self._method == "skip tag" and mode is AESMode.GCM:
            length = len(ciphertext) - 16
            stream = self._handle.encrypt_raw(mode, iv, bytes(length), aad)
            pairs = zip(stream, ciphertext[:length], strict=False)
            return bytes(a ^ b for a, b in pairs)
        opened = self._handle.decrypt_raw(mode, iv, ciphertext, aad)
        return self._spoil("decrypt_raw", opened)

    def encapsulate(self) -> tuple[bytes, bytes]:
        """Return a secret and its encapsulation; always the same, if so asked."""
        if self._method == "same secret":
            self._made = self._made or self._handle.encapsulate()
            return self._made
        secret, ciphertext = self._handle.encapsulate()
        return self._spoil("encapsulate", secret), ciphertext

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """Return a secret; of a changed ciphertext a wrong one, if so asked."""
        if self._method == "one half":
            known = known_answers(self.algorithm)
            border = spec(spec(self.algorithm).components[0]).ciphertext_bytes
            if ciphertext[:border] == known["ciphertext"][:border]:
                return known["shared_secret"]
        secret = self._handle.decapsulate(ciphertext)
        if self._method == "no rejection" and self._is_changed(ciphertext):
            known = known_answers(self.algorithm)
            return known["shared_secret"]
        return self._spoil("decapsulate", secret)

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """Return unwrapped data; something for anything, if that is the fault."""
        if self._method == "skip check":
            with suppress(DecryptionError):
                return self._handle.unwrap(wrapped, padded=padded)
            return bytes(16)
        return self._spoil("unwrap", self._handle.unwrap(wrapped, padded=padded))

    def _is_changed(self, ciphertext: bytes) -> bool:
        """Return whether it is the rejected one, or near the known one, but not it."""
        known = known_answers(self.algorithm)
        if "rejected_ciphertext" in known:
            return ciphertext == known["rejected_ciphertext"]
        right = known["ciphertext"]
        return ciphertext != right and ciphertext[1:] == right[1:]

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

        method: A method of a handle: its result has one bit flipped, or it accepts
            anything; ``skip tag`` and ``skip check``: no authentication; ``same
            secret``: encapsulates only once; ``no rejection``: a changed ciphertext
            gives the true secret; ``one half``: the traditional half of a ciphertext
            is not looked at; ``crash``: raises RuntimeError.
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
        """Name of the true provider."""
        return self._inner.name

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
            return cast("KeyHandle", FaultyHandle(handle, self._method))
        return handle


class Partial(FaultyProvider):
    """A good provider of some algorithms only, under a name of its own if given."""

    def __init__(
        self, inner: CryptoProvider, *served: Algorithm, name: str = ""
    ) -> None:
        super().__init__(inner, Algorithm.AES_256_GCM, "none")
        self._name = name or inner.name
        self._served = frozenset(served)

    @property
    def name(self) -> str:
        """Name of the fake."""
        return self._name

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what it serves."""
        return self._served


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


class ShortProvider(FaultyProvider):
    """A provider that lacks something, as long as it is *broken*, to load any key."""

    def __init__(self, inner: CryptoProvider, lack: Exception) -> None:
        super().__init__(inner, Algorithm.AES_256_GCM, "none")
        self._lack = lack

    def _wrap(self, algorithm: Algorithm, handle: KeyHandle) -> KeyHandle:
        if self.broken:
            raise self._lack
        return handle


P = TypeVar("P", bound=CryptoProvider)

_PROVIDERS = default_providers()
_GOOD = CryptoRegistry(_PROVIDERS, SystemEntropy())


def good_registry(entropy: Entropy | None = None) -> CryptoRegistry:
    """Return a new registry of what this machine has."""
    return CryptoRegistry(_PROVIDERS, entropy or SystemEntropy())


def provider_of(algorithm: Algorithm) -> CryptoProvider:
    """Return who serves an algorithm here, or skip the running test."""
    rows = {row.algorithm: row for row in _GOOD.statuses()}
    require_service(f"A provider of {algorithm}", rows[algorithm].provider)
    return _GOOD.provider_of(algorithm)


def faulty_registry(
    algorithm: Algorithm, make: Callable[[CryptoProvider], P]
) -> tuple[CryptoRegistry, P]:
    """Return a registry in which the provider of an algorithm is replaced, and that."""
    if not ALGORITHMS[algorithm].is_hybrid:
        true = provider_of(algorithm)
        made = make(true)
        providers = [made if one is true else one for one in _PROVIDERS]
        return CryptoRegistry(providers, SystemEntropy()), made
    composites: list[P] = []

    def replace(components: CryptoRegistry) -> CryptoProvider:
        composites.append(make(composite_provider(components)))
        return composites[0]

    provider_of(algorithm)
    registry = CryptoRegistry(_PROVIDERS, SystemEntropy(), composites=replace)
    return registry, composites[0]


class DyingEntropy(SystemEntropy):
    """A random generator that fails its health test from some time on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_dead = False

    def random_bytes(self, length: int, /) -> bytes:
        """Refuse, when it is dead."""
        if self.is_dead:
            raise EntropyUnavailableError
        return super().random_bytes(length)

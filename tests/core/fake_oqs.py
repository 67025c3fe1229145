# SPDX-License-Identifier: MIT
"""
A binding of liboqs that has the real one's faults, over toy mechanisms of right sizes.

It pads what is too short with zeros and cuts what is too long, in silence; it answers
with booleans, fails with RuntimeError, and gives random keys only, from a generator
that callers may replace. Every call is written down.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import cast

from hsm_core._providers.oqs.library import mechanism_name, mu_name
from hsm_core.algorithms import ALGORITHMS, AlgorithmSpec, Family

Fill = Callable[[int, int], None]


class _Function:
    """A function of the library, with the attributes that ctypes gives it."""

    def __init__(self, call: Callable[..., object]) -> None:
        self.call = call
        self.argtypes: list[object] = []
        self.restype: object = None

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)


class FakeNative:
    """The library's generator: replaceable, for everybody in the process."""

    def __init__(self) -> None:
        self.custom: Fill | None = None
        self.replaceable = True
        self.restoring = 0

    def __getitem__(self, name: str) -> _Function:
        known: dict[str, Callable[..., object]] = {
            "OQS_randombytes_custom_algorithm": self._replace,
            "OQS_randombytes_switch_algorithm": self._restore,
        }
        if not self.replaceable or name not in known:
            raise AttributeError(name)
        return _Function(known[name])

    def random(self, size: int) -> bytes:
        """Draw as the library does."""
        custom = self.custom
        if custom is None:
            return os.urandom(size)
        buffer = ctypes.create_string_buffer(size)
        custom(ctypes.addressof(buffer), size)
        return buffer.raw

    def _replace(self, custom: Fill) -> None:
        self.custom = custom

    def _restore(self, name: bytes) -> int:
        assert name == b"system"
        if self.restoring == 0:
            self.custom = None
        return self.restoring


def _padded(data: bytes, size: int) -> bytes:
    """Do what ``create_string_buffer(data, size)`` does, and cut what it refuses."""
    return data[:size].ljust(size, b"\0")


def _hashed(size: int, *parts: bytes) -> bytes:
    return hashlib.shake_256(b"".join(parts)).digest(size)


class _Object:
    """What objects of both kinds have."""

    def __init__(self, binding: FakeBinding, secret_key: bytes | None) -> None:
        self.binding = binding
        self.secret_key = secret_key or b""
        self.freed = False
        binding.alive += 1

    def export_secret_key(self) -> bytes:
        """Return the private key."""
        return self.secret_key

    def free(self) -> None:
        """Give back, once."""
        assert not self.freed, "freed twice"
        self.freed = True
        self.binding.alive -= 1

    def note(self, call: str) -> None:
        """Write a call down."""
        assert not self.freed, "used after it was freed"
        self.binding.calls.append(call)


class FakeKEM(_Object):
    """A KEM whose secret is a hash of public key and ciphertext: no secret at all."""

    def __init__(
        self, binding: FakeBinding, row: AlgorithmSpec, secret_key: bytes | None
    ) -> None:
        super().__init__(binding, secret_key)
        self.length_public_key = row.public_bytes
        self.length_secret_key = 1632
        self.length_ciphertext = row.ciphertext_bytes
        self.length_shared_secret = row.shared_secret_bytes
        self.length_keypair_seed = row.private_bytes

    def generate_keypair_seed(self, seed: bytes, /) -> bytes:
        """Keep the seed with its public key behind it."""
        self.note("generate_keypair_seed")
        assert len(seed) == self.length_keypair_seed
        public = self.binding.answer(_hashed(self.length_public_key, seed))
        self.secret_key = seed + public
        return public

    def encap_secret(self, public_key: bytes, /) -> tuple[bytes, bytes]:
        """Refuse a key of ones only, as one that is not reduced."""
        self.note("encap_secret")
        public = _padded(public_key, self.length_public_key)
        if public == b"\xff" * self.length_public_key:
            raise RuntimeError("Can not encapsulate secret")
        ciphertext = self.binding.native().random(self.length_ciphertext)
        secret = _hashed(self.length_shared_secret, public, ciphertext)
        return self.binding.answer(ciphertext), self.binding.answer(secret)

    def decap_secret(self, ciphertext: bytes, /) -> bytes:
        """Answer for whatever comes."""
        self.note("decap_secret")
        padded = _padded(ciphertext, self.length_ciphertext)
        public = self.secret_key[self.length_keypair_seed :]
        return self.binding.answer(_hashed(self.length_shared_secret, public, padded))


class FakeSignature(_Object):
    """A signature that is a hash of what is public: anybody could make it."""

    def __init__(
        self,
        binding: FakeBinding,
        row: AlgorithmSpec,
        secret_key: bytes | None,
        *,
        takes_mu: bool,
    ) -> None:
        super().__init__(binding, secret_key)
        self.row = row
        self.takes_mu = takes_mu
        self.length_public_key = row.public_bytes + binding.wrong_size
        self.length_secret_key = row.private_bytes
        self.length_signature = row.signature_bytes
        self.sig_with_ctx_support = binding.has_contexts

    def generate_keypair(self) -> bytes:
        """Draw a seed as the standards do: in one part, or in three."""
        self.note("generate_keypair")
        draw = self.binding.native().random
        parts = 3 if self.row.family is Family.SLH_DSA else 1
        size = self.row.private_bytes // (4 if parts == 3 else 1)
        seed = b"".join(draw(size) for _ in range(parts))
        public = seed[2 * size :] + _hashed(size, seed)
        if parts == 1:
            public = _hashed(self.row.public_bytes, seed)
        self.secret_key = (seed + public)[: self.row.private_bytes]
        return self.binding.answer(public)

    def _public(self) -> bytes:
        if self.row.family is Family.SLH_DSA:
            return self.secret_key[-self.row.public_bytes :]
        return _hashed(self.row.public_bytes, self.secret_key)

    def sign(self, message: bytes, /) -> bytes:
        """Sign mu, or a message without context."""
        return self._signed("sign", message, b"mu" if self.takes_mu else b"")

    def verify(self, message: bytes, signature: bytes, public_key: bytes, /) -> bool:
        """Return whether `sign` made it."""
        return self._verified(
            "verify", message, signature, b"mu" if self.takes_mu else b"", public_key
        )

    def sign_with_ctx_str(self, message: bytes, context: bytes, /) -> bytes:
        """Sign with a context."""
        if len(context) > 255:
            raise RuntimeError("Can not sign message with context string")
        return self._signed("sign_with_ctx_str", message, context)

    def verify_with_ctx_str(
        self, message: bytes, signature: bytes, context: bytes, public_key: bytes, /
    ) -> bool:
        """Return whether `sign_with_ctx_str` made it."""
        return self._verified(
            "verify_with_ctx_str", message, signature, context, public_key
        )

    def _signed(self, call: str, message: bytes, context: bytes) -> bytes:
        self.note(call)
        salt = self.binding.native().random(16)
        return self.binding.answer(self._made(message, context, self._public(), salt))

    def _verified(
        self, call: str, message: bytes, signature: bytes, context: bytes, key: bytes
    ) -> bool:
        self.note(call)
        public = _padded(key, self.row.public_bytes)
        return signature == self._made(message, context, public, signature[:16])

    def _made(self, message: bytes, context: bytes, key: bytes, salt: bytes) -> bytes:
        size = self.length_signature - 16
        length = bytes([len(context)])
        return salt + _hashed(size, salt, key, length, context, message)


@dataclass
class FakeBinding:
    """
    The module ``oqs``.

    Attributes:
        has_mu: Whether it has mechanisms that take mu, as later releases.
        has_contexts: Whether its signatures take contexts.
        without: Names of mechanisms that were left out of the build.
        wrong_size: What public keys of signatures are longer by.
        cut: How many bytes each answer is cut by.
        calls: What was called.
        alive: How many objects were made and not freed.
    """

    has_mu: bool = False
    has_contexts: bool = True
    without: Collection[str] = ()
    wrong_size: int = 0
    cut: int = 0
    generator: FakeNative = field(default_factory=FakeNative)
    calls: list[str] = field(default_factory=list)
    alive: int = 0

    def KeyEncapsulation(  # noqa: N802 - a class there
        self, name: str, secret_key: bytes | None = None, /
    ) -> FakeKEM:
        """Return an object of a KEM."""
        return FakeKEM(self, self._rows()[name], secret_key)

    def Signature(  # noqa: N802 - a class there
        self, name: str, secret_key: bytes | None = None, /
    ) -> FakeSignature:
        """Return an object of a signature scheme."""
        takes_mu = name.endswith("-extmu")
        row = self._rows()[name.removesuffix("-extmu")]
        return FakeSignature(self, row, secret_key, takes_mu=takes_mu)

    def get_enabled_kem_mechanisms(self) -> Collection[str]:
        """Return the names of KEMs."""
        return self._enabled(Family.ML_KEM)

    def get_enabled_sig_mechanisms(self) -> Collection[str]:
        """Return the names of signature schemes."""
        with_mu = [
            mu_name(row.algorithm)
            for row in ALGORITHMS.values()
            if row.takes_mu and self.has_mu
        ]
        return [*self._enabled(Family.ML_DSA, Family.SLH_DSA), *with_mu]

    def oqs_version(self) -> str:
        """Return a version."""
        return "0.16.0"

    def native(self) -> ctypes.CDLL:
        """Return the library."""
        return cast("ctypes.CDLL", self.generator)

    def answer(self, data: bytes) -> bytes:
        """Return what the library gives for an answer."""
        return data[: len(data) - self.cut]

    def _enabled(self, *families: Family) -> list[str]:
        names = {name: row for name, row in self._rows().items() if row.label == b""}
        return [
            name
            for name, row in names.items()
            if row.family in families and name not in self.without
        ]

    def _rows(self) -> dict[str, AlgorithmSpec]:
        families = {Family.ML_KEM, Family.ML_DSA, Family.SLH_DSA}
        return {
            mechanism_name(row.algorithm): row
            for row in ALGORITHMS.values()
            if row.family in families
        }

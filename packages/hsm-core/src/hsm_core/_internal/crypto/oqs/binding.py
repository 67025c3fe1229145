# SPDX-License-Identifier: MIT
"""
Binding to liboqs-python, and its names of our algorithms.

The binding pads short keys and ciphertexts with zeros in silence, and tells a wrong
signature by a boolean. So callers check every length first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Protocol

from hsm_core.algorithms import Algorithm, Family, spec


class KEMObject(Protocol):
    """``oqs.KeyEncapsulation``: one mechanism, and the private key it was given."""

    length_public_key: int
    length_secret_key: int
    length_ciphertext: int
    length_shared_secret: int
    length_keypair_seed: int

    def generate_keypair_seed(self, seed: bytes, /) -> bytes:
        """Keep the key that follows from a seed, and return its public half."""
        ...

    def export_secret_key(self) -> bytes:
        """Return the expanded private key."""
        ...

    def encap_secret(self, public_key: bytes, /) -> tuple[bytes, bytes]:
        """Return encapsulation and shared secret, in this order."""
        ...

    def decap_secret(self, ciphertext: bytes, /) -> bytes:
        """Return the shared secret."""
        ...

    def free(self) -> None:
        """Overwrite the private key and give back what was allocated."""
        ...


class SignatureObject(Protocol):
    """``oqs.Signature``: one mechanism, and the private key it was given."""

    length_public_key: int
    length_secret_key: int
    length_signature: int
    sig_with_ctx_support: bool

    def generate_keypair(self) -> bytes:
        """Keep a fresh key, and return its public half."""
        ...

    def export_secret_key(self) -> bytes:
        """Return the private key."""
        ...

    def sign(self, message: bytes, /) -> bytes:
        """Return a signature; of mechanisms that take mu, over mu."""
        ...

    def verify(self, message: bytes, signature: bytes, public_key: bytes, /) -> bool:
        """Return whether a signature is right; of mechanisms that take mu, over mu."""
        ...

    def sign_with_ctx_str(self, message: bytes, context: bytes, /) -> bytes:
        """Return a hedged signature."""
        ...

    def verify_with_ctx_str(
        self, message: bytes, signature: bytes, context: bytes, public_key: bytes, /
    ) -> bool:
        """Return whether a signature is right."""
        ...

    def free(self) -> None:
        """Overwrite the private key and give back what was allocated."""
        ...


class Binding(Protocol):
    """The module ``oqs``."""

    def KeyEncapsulation(  # noqa: N802 - a class there
        self, name: str, secret_key: bytes | None = None, /
    ) -> KEMObject:
        """Return an object of a KEM."""
        ...

    def Signature(  # noqa: N802 - a class there
        self, name: str, secret_key: bytes | None = None, /
    ) -> SignatureObject:
        """Return an object of a signature scheme."""
        ...

    def get_enabled_kem_mechanisms(self) -> Collection[str]:
        """Return the names of the KEMs in this build of the library."""
        ...

    def get_enabled_sig_mechanisms(self) -> Collection[str]:
        """Return the names of the signature schemes in this build of the library."""
        ...

    def oqs_version(self) -> str:
        """Return the version of the library."""
        ...

    def native(self) -> ctypes.CDLL:
        """Return the library."""
        ...


def mechanism_name(algorithm: Algorithm) -> str:
    """Return what liboqs calls an algorithm."""
    if spec(algorithm).family is not Family.SLH_DSA:
        return algorithm.value
    parameters = algorithm.value.removeprefix("SLH-DSA-")
    return f"SLH_DSA_PURE_{parameters.upper().replace('-', '_')}"


def mu_name(algorithm: Algorithm) -> str:
    """Return what liboqs calls ML-DSA over a given mu, where it has that."""
    return f"{mechanism_name(algorithm)}-extmu"

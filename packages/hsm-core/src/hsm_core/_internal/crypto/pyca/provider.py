# SPDX-License-Identifier: MIT
"""Provider of pyca/cryptography."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import cryptography
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric import ec

from hsm_core._internal.crypto.pyca import curves, lattice, rsa, symmetric
from hsm_core._internal.crypto.pyca.encoding import (
    PublicKeyHandle,
    load_private,
    load_public,
)
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import InputSizeError, UnsupportedOperationError
from hsm_core.protocols import Entropy, KeyHandle


class _Load(Protocol):
    def __call__(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> KeyHandle: ...


class _Functions(NamedTuple):
    """Functions of one family of asymmetric algorithms."""

    generate: Callable[[Algorithm, Entropy], bytes]
    load: _Load
    load_public: Callable[[Algorithm, bytes], KeyHandle]


def _curve(
    generate: Callable[[Algorithm, Entropy], bytes],
    private: Callable[[Algorithm, Any], KeyHandle],
    public: Callable[[Algorithm, Any], KeyHandle],
) -> _Functions:
    """Return the functions of a family whose keys the library checks wholly."""

    def load(algorithm: Algorithm, material: bytes, *, trusted: bool) -> KeyHandle:
        return private(algorithm, load_private(algorithm, material, trusted=trusted))

    return _Functions(
        generate,
        load,
        lambda algorithm, der: public(algorithm, load_public(algorithm, der)),
    )


_LATTICE: Final = _Functions(lattice.generate, lattice.load, lattice.load_public)
_ASYMMETRIC: Final = {
    Family.RSA: _Functions(rsa.generate, rsa.load, rsa.load_public_key),
    Family.ECDSA: _curve(
        curves.generate_ecdsa, curves.ECDSAPrivateHandle, curves.ECDSAPublicHandle
    ),
    Family.EDDSA: _curve(
        curves.generate_seeded, curves.EdDSAPrivateHandle, curves.EdDSAPublicHandle
    ),
    Family.ECDH: _curve(curves.generate_seeded, curves.X25519Handle, PublicKeyHandle),
    Family.ML_KEM: _LATTICE,
    Family.ML_DSA: _LATTICE,
}
_SYMMETRIC: Final[dict[Family, Callable[[Algorithm, bytes], KeyHandle]]] = {
    Family.AEAD: symmetric.AEADHandle,
    Family.AES: symmetric.AESHandle,
    Family.MAC: symmetric.HMACHandle,
    Family.KEY_WRAP: symmetric.KeyWrapHandle,
    Family.KDF: symmetric.HKDFHandle,
}
FROM_SEED: Final[dict[Algorithm, Callable[[bytes], object]]] = {
    **curves.FROM_SEED,
    **lattice.FROM_SEED,
}
"""Constructors of private keys from seeds, to probe the algorithms that have one."""


class PycaCryptoProvider:
    """`CryptoProvider` over pyca/cryptography; every algorithm is probed once."""

    name: Final = "pyca"
    """Short name, used in settings."""

    def __init__(self) -> None:
        self._algorithms = frozenset(filter(_is_served, Algorithm))

    @property
    def version(self) -> str:
        """Versions of cryptography and of the OpenSSL inside it."""
        return f"{cryptography.__version__} ({backend.openssl_version_text()})"

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what this build of the library has."""
        return self._algorithms

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """
        Return fresh material.

        Symmetric keys and seeds are bytes of *entropy*. OpenSSL draws RSA and EC keys
        itself, from the same operating system; *entropy* is asked first, so that its
        health test guards these too.
        """
        row = spec(algorithm)
        if row.family in _SYMMETRIC:
            return entropy.random_bytes(row.key_bytes)
        return _ASYMMETRIC[row.family].generate(algorithm, entropy)

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        return self._load(algorithm, material, trusted=True)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, fully checked."""
        return self._load(algorithm, material, trusted=False)

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        row = spec(algorithm)
        if row.family in _SYMMETRIC:
            raise UnsupportedOperationError(
                f"{algorithm} has no public keys.", algorithm=algorithm.value
            )
        return _ASYMMETRIC[row.family].load_public(algorithm, public_der)

    def _load(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> KeyHandle:
        row = spec(algorithm)
        if row.family not in _SYMMETRIC:
            return _ASYMMETRIC[row.family].load(algorithm, material, trusted=trusted)
        size = row.key_bytes
        if len(material) != size:
            raise InputSizeError(
                "material", actual=len(material), minimum=size, maximum=size
            )
        return _SYMMETRIC[row.family](algorithm, material)


def _is_served(algorithm: Algorithm) -> bool:
    """Try the algorithms that some builds of OpenSSL leave out."""
    row = spec(algorithm)
    try:
        if row.family in _SYMMETRIC:
            _SYMMETRIC[row.family](algorithm, bytes(row.key_bytes))
        elif algorithm in curves.CURVES:
            ec.derive_private_key(1, curves.CURVES[algorithm])
        elif algorithm in FROM_SEED:
            FROM_SEED[algorithm](bytes(row.private_bytes))
        else:
            return row.family is Family.RSA
    except UnsupportedAlgorithm:
        return False
    return True

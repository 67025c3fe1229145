# SPDX-License-Identifier: MIT
"""Provider of pyca/cryptography."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import cryptography
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric import ec

from hsm_core._internal.crypto.pyca.curves import (
    CURVES,
    EDDSA,
    XDH,
    generate_ecdsa,
    generate_eddsa,
    generate_xdh,
    load_ecdsa,
    load_ecdsa_public,
    load_eddsa,
    load_eddsa_public,
    load_xdh,
    load_xdh_public,
)
from hsm_core._internal.crypto.pyca.lattice import (
    ML_DSA,
    ML_KEM,
    generate_ml_dsa,
    generate_ml_kem,
    load_ml_dsa,
    load_ml_dsa_public,
    load_ml_kem,
    load_ml_kem_public,
)
from hsm_core._internal.crypto.pyca.rsa import (
    generate_rsa,
    load_rsa,
    load_rsa_public,
)
from hsm_core._internal.crypto.pyca.symmetric import (
    AEADHandle,
    HKDFHandle,
    HMACHandle,
    KeyWrapHandle,
)
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import InputSizeError, UnsupportedOperationError
from hsm_core.protocols import Entropy, KeyHandle


class _Load(Protocol):
    def __call__(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> KeyHandle: ...


_GENERATE: Final[dict[Family, Callable[[Algorithm, Entropy], bytes]]] = {
    Family.RSA: generate_rsa,
    Family.ECDSA: generate_ecdsa,
    Family.EDDSA: generate_eddsa,
    Family.ECDH: generate_xdh,
    Family.ML_KEM: generate_ml_kem,
    Family.ML_DSA: generate_ml_dsa,
}
_LOAD: Final[dict[Family, _Load]] = {
    Family.RSA: load_rsa,
    Family.ECDSA: load_ecdsa,
    Family.EDDSA: load_eddsa,
    Family.ECDH: load_xdh,
    Family.ML_KEM: load_ml_kem,
    Family.ML_DSA: load_ml_dsa,
}
_LOAD_PUBLIC: Final[dict[Family, Callable[[Algorithm, bytes], KeyHandle]]] = {
    Family.RSA: load_rsa_public,
    Family.ECDSA: load_ecdsa_public,
    Family.EDDSA: load_eddsa_public,
    Family.ECDH: load_xdh_public,
    Family.ML_KEM: load_ml_kem_public,
    Family.ML_DSA: load_ml_dsa_public,
}
_SYMMETRIC: Final[dict[Family, Callable[[Algorithm, bytes], KeyHandle]]] = {
    Family.AEAD: AEADHandle,
    Family.MAC: HMACHandle,
    Family.KEY_WRAP: KeyWrapHandle,
    Family.KDF: HKDFHandle,
}
FROM_SEED: Final[dict[Algorithm, Callable[[bytes], object]]] = {
    **EDDSA,
    **XDH,
    **ML_KEM,
    **ML_DSA,
}
"""How a key is made from a seed; what is tried of algorithms that have one."""


class PycaCryptoProvider:
    """`CryptoProvider` over pyca/cryptography; every algorithm is probed once."""

    def __init__(self) -> None:
        self._algorithms = frozenset(filter(_is_served, Algorithm))

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return "pyca"

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
        return _GENERATE[row.family](algorithm, entropy)

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
        return _LOAD_PUBLIC[row.family](algorithm, public_der)

    def _load(
        self, algorithm: Algorithm, material: bytes, *, trusted: bool
    ) -> KeyHandle:
        row = spec(algorithm)
        if row.family not in _SYMMETRIC:
            return _LOAD[row.family](algorithm, material, trusted=trusted)
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
        elif algorithm in CURVES:
            ec.derive_private_key(1, CURVES[algorithm])
        elif algorithm in FROM_SEED:
            FROM_SEED[algorithm](bytes(row.private_bytes))
        else:
            return row.family is Family.RSA
    except UnsupportedAlgorithm:
        return False
    return True

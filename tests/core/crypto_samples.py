# SPDX-License-Identifier: MIT
"""Keys and parameters that the tests of cryptography share."""

from __future__ import annotations

from functools import cache

from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._internal.crypto.registry import GeneratedKey, default_registry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureEncoding,
)
from hsm_core.protocols import KeyHandle, OAEPParameters, SignatureParameters

REGISTRY = default_registry(SystemEntropy())
PYCA = PycaCryptoProvider()
SERVED = [algorithm for algorithm in ALGORITHMS if algorithm in PYCA.algorithms()]
ASYMMETRIC = [algorithm for algorithm in SERVED if ALGORITHMS[algorithm].is_asymmetric]
RSA = [row.algorithm for row in ALGORITHMS.values() if row.family is Family.RSA]


def _signing() -> list[tuple[Algorithm, SignatureParameters]]:
    """Return every way in which an algorithm may sign."""
    ways = []
    for row in map(ALGORITHMS.__getitem__, SERVED):
        encodings = (
            tuple(SignatureEncoding)
            if row.coordinate_bytes
            else (SignatureEncoding.DER,)
        )
        ways += [
            (
                row.algorithm,
                SignatureParameters(
                    scheme=scheme, hash=hashed, mgf_hash=hashed, encoding=encoding
                ),
            )
            for scheme in row.schemes
            for hashed in row.hashes or (HashAlgorithm.SHA_512,)
            for encoding in encodings
        ]
    return ways


SIGNING = _signing()

OAEP = [
    OAEPParameters(hash=hashed, mgf_hash=mgf_hash)
    for hashed in HashAlgorithm
    for mgf_hash in HashAlgorithm
]


@cache
def material(algorithm: Algorithm) -> bytes:
    """Return one key of an algorithm, made once per run."""
    return PYCA.generate(algorithm, SystemEntropy())


@cache
def public_der(algorithm: Algorithm) -> bytes:
    """Return the public half of `material`."""
    return PYCA.load(algorithm, material(algorithm)).public_der()


def label(value: object) -> str | None:
    """Return a readable id for a parametrised test."""
    if isinstance(value, SignatureParameters):
        return f"{value.scheme}-{value.hash}-{value.encoding}"
    if isinstance(value, OAEPParameters):
        return f"{value.hash}-{value.mgf_hash}"
    return None


@cache
def key_of(algorithm: Algorithm) -> GeneratedKey:
    """Return the key that the tests of an algorithm share."""
    return REGISTRY.generate(algorithm)


@cache
def private_of(algorithm: Algorithm) -> KeyHandle:
    """Return that key, loaded."""
    return REGISTRY.load(algorithm, key_of(algorithm).material)


@cache
def public_of(algorithm: Algorithm) -> KeyHandle:
    """Return its public half, loaded."""
    return REGISTRY.load_public(algorithm, key_of(algorithm).public_der)

# SPDX-License-Identifier: MIT
"""
Which providers there are here, each with its algorithms, keys and signatures.

``FERROHSM_CONFORMANCE=1`` runs what takes long too: every test of the "s" sets of
SLH-DSA.
"""

from __future__ import annotations

import os
from functools import cache

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.providers import composite_provider, default_providers
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, AESMode, Algorithm, Family, spec
from hsm_core.protocols import CryptoProvider, KeyHandle

Row = tuple[str, Algorithm]
"""Name of a provider, and an algorithm that it serves here."""

MESSAGE = b"a message that is signed by one and verified by the other"

_ALL = os.environ.get("FERROHSM_CONFORMANCE") == "1"
_ENOUGH = {Algorithm.SLH_DSA_SHA2_128S, Algorithm.SLH_DSA_SHAKE_128S}
"""Slow sets that sign with every provider; libcrypto signs with all."""

_FOUND = default_providers(enabled=("oqs",))
PROVIDERS: dict[str, CryptoProvider] = {
    provider.name: provider
    for provider in (
        *_FOUND,
        composite_provider(CryptoRegistry(_FOUND, SystemEntropy())),
    )
    if provider.algorithms()
}
"""Everything that this machine has, by name."""

ROWS = [
    (name, algorithm)
    for algorithm in Algorithm
    for name, provider in PROVIDERS.items()
    if algorithm in provider.algorithms()
]


def is_prompt(row: Row) -> bool:
    """Return whether an algorithm's every operation is quick enough to be repeated."""
    family = ALGORITHMS[row[1]].family
    return _ALL or family is not Family.SLH_DSA or row[1].endswith("f")


def rows(*families: Family, slow: bool = False) -> list[Row]:
    """Return the rows of some families, or all; slow ones only if so asked."""
    return [
        row
        for row in ROWS
        if (not families or ALGORITHMS[row[1]].family in families)
        and (slow or is_prompt(row))
    ]


SIGNING = [
    row
    for row in ROWS
    if ALGORITHMS[row[1]].is_signature
    and (is_prompt(row) or row[0] == "libcrypto" or row[1] in _ENOUGH)
]
"""Rows that sign at least once."""


def label(value: object) -> str | None:
    """Return a readable id of a row."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return None


def keeps_seeds(name: str, algorithm: Algorithm) -> bool:
    """Return whether keys of a provider are kept as seeds, or have none to keep."""
    return (name, algorithm) != ("pqcrypto", Algorithm.ML_KEM_512)


@cache
def material(row: Row) -> bytes:
    """Return one key that the provider made, once per run."""
    name, algorithm = row
    return PROVIDERS[name].generate(algorithm, SystemEntropy())


@cache
def private(row: Row) -> KeyHandle:
    """Return the handle of `material`."""
    return PROVIDERS[row[0]].load(row[1], material(row))


@cache
def public(row: Row) -> KeyHandle:
    """Return the handle of its public half."""
    return PROVIDERS[row[0]].load_public(row[1], private(row).public_der())


@cache
def signature(row: Row) -> bytes:
    """Return one signature over `MESSAGE`, made once per run."""
    return private(row).sign(MESSAGE, signature_parameters(row[1]))


def altered(value: bytes, position: int, bits: int = 1) -> bytes:
    """Return *value* with some bits of one byte the other way round."""
    changed = bytearray(value)
    changed[position % len(value)] ^= bits
    return bytes(changed)


def flow(handle: KeyHandle) -> None:
    """Use a private or symmetric key once, there and back."""
    row = spec(handle.algorithm)
    match row.family:
        case Family.AEAD:
            sealed = handle.seal(bytes(12), MESSAGE, b"")
            assert MESSAGE == handle.open(bytes(12), sealed, b"")
        case Family.AES:
            sealed = handle.encrypt_raw(AESMode.CBC_PKCS7, bytes(16), MESSAGE)
            opened = handle.decrypt_raw(AESMode.CBC_PKCS7, bytes(16), sealed)
            assert MESSAGE == opened
        case Family.MAC:
            assert row.mac_bytes == len(handle.mac(MESSAGE))
        case Family.KEY_WRAP:
            wrapped = handle.wrap(MESSAGE, padded=True)
            assert MESSAGE == handle.unwrap(wrapped, padded=True)
        case Family.KDF:
            assert 32 == len(handle.derive(b"", MESSAGE, 32))
        case Family.ECDH:
            assert row.shared_secret_bytes == len(handle.agree(handle.public_der()))
        case Family.ML_KEM | Family.COMPOSITE_KEM:
            secret, ciphertext = handle.encapsulate()
            assert secret == handle.decapsulate(ciphertext)
        case _:
            parameters = signature_parameters(handle.algorithm)
            handle.verify(MESSAGE, handle.sign(MESSAGE, parameters), parameters)

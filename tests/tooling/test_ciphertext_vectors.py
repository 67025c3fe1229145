# SPDX-License-Identifier: MIT
"""The published vectors of ciphertexts are right, and the product opens them."""

from __future__ import annotations

import pytest

from hsm_core._internal.crypto.ciphertexts import kind_of, open_with, parse
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, KeyUsage, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.errors import UnsupportedOperationError
from hsm_core.protocols import KeyHandle, OAEPParameters
from tests.tooling.ciphertext_vectors import Vector, published, remade

VECTORS = published()


@pytest.fixture(scope="module")
def registry() -> CryptoRegistry:
    """Return the default providers."""
    return default_registry(SystemEntropy())


def opened(registry: CryptoRegistry, vector: Vector) -> bytes:
    """Return the plaintext of a vector's envelope, by the product's code."""
    algorithm = Algorithm(vector["algorithm"])
    envelope, aad = bytes.fromhex(vector["envelope"]), bytes.fromhex(vector["aad"])
    handle = registry.load_foreign(algorithm, bytes.fromhex(vector["key"]))
    if kind_of(algorithm) == KEM_ENVELOPE:
        return open_with(registry, handle, envelope, aad)
    return opened_by_key(handle, envelope, aad)


def opened_by_key(handle: KeyHandle, envelope: bytes, aad: bytes) -> bytes:
    """Return the plaintext of an AEAD or of RSAES-OAEP."""
    header, body = parse(envelope)
    bound = header.bind(aad)
    if header.kind == RSAES_OAEP:
        parameters = OAEPParameters(
            hash=header.hash, mgf_hash=header.mgf_hash, label=bound
        )
        return handle.decrypt(bytes(body), parameters)
    return handle.open(bytes(body[:12]), body[12:], bound)


def test_they_follow_from_the_format() -> None:
    """Computing the published file again, from its random parts, gives the same."""
    assert remade(VECTORS) == VECTORS


def test_every_kind_has_one() -> None:
    """There is a vector of each kind of envelope, in the kind's own header."""
    kinds = {parse(bytes.fromhex(vector["envelope"]))[0].kind for vector in VECTORS}

    assert kinds == {row.envelope_kind for row in ALGORITHMS.values()} - {0}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["algorithm"])
def test_the_product_opens_them(registry: CryptoRegistry, vector: Vector) -> None:
    """Each envelope opens with its key, and names key and version."""
    header, _ = parse(bytes.fromhex(vector["envelope"]))

    assert header.kind == kind_of(Algorithm(vector["algorithm"]))
    assert (header.key_id, str(header.version)) == (
        vector["key_id"],
        vector["version"],
    )
    assert header.bind(bytes.fromhex(vector["aad"])).hex() == vector["bound"]
    assert opened(registry, vector).hex() == vector["plaintext"]


def test_what_encrypts_has_a_kind() -> None:
    """An algorithm has a kind of envelope exactly if its keys may encrypt so."""
    for algorithm in Algorithm:
        if spec(algorithm).family is Family.AES:
            continue
        if KeyUsage.ENCRYPT in spec(algorithm).usages:
            assert kind_of(algorithm)
        else:
            with pytest.raises(UnsupportedOperationError, match=algorithm.value):
                kind_of(algorithm)

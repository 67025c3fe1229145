# SPDX-License-Identifier: MIT
"""The published vectors of keys in transport are right, and the product opens them."""

from __future__ import annotations

import pytest

from hsm_core import primitives
from hsm_core.algorithms import Algorithm, KeyFormat, KeyUsage, WrapMechanism
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.tooling.transport_vectors import Vector, published, remade

VECTORS = published()
WRAP = (KeyUsage.WRAP, KeyUsage.UNWRAP)


def wrapping_key(vector: Vector) -> tuple[Algorithm, bytes]:
    """Return algorithm and material of a vector's wrapping key."""
    algorithm, key = (
        Algorithm(vector["algorithm"]),
        bytes.fromhex(vector["wrapping_key"]),
    )
    if algorithm is Algorithm.ML_KEM_768:
        return algorithm, primitives.private_key_from_seed(algorithm, key).material
    return algorithm, key


def test_they_follow_from_the_format() -> None:
    """Computing the published file again, from its random parts, gives the same."""
    assert remade(VECTORS) == VECTORS


def test_every_mechanism_has_one() -> None:
    """There is a vector of each mechanism."""
    assert {vector["mechanism"] for vector in VECTORS} == set(WrapMechanism)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["mechanism"])
def test_they_open(vector: Vector) -> None:
    """Each opens with the private half of its wrapping key."""
    algorithm, key = wrapping_key(vector)

    material = primitives.unwrap_exported(
        algorithm,
        key,
        bytes.fromhex(vector["wrapped"]),
        mechanism=WrapMechanism(vector["mechanism"]),
    )

    assert vector["material"] == material.hex()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["mechanism"])
def test_an_hsm_imports_them(vector: Vector) -> None:
    """An HSM that has the wrapping key makes a key of what was wrapped."""
    algorithm, key = wrapping_key(vector)
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        carrier = session.create_key("ML-KEM-768", usages=WRAP).key_id
        sent = primitives.wrap_for_import(
            Algorithm.ML_KEM_768, session.public_key(carrier).der, key
        )
        wrapping = session.import_key(algorithm, carrier, sent, usages=WRAP)

        made = session.import_key(
            "HMAC-SHA-256",
            wrapping.key_id,
            bytes.fromhex(vector["wrapped"]),
            mechanism=WrapMechanism(vector["mechanism"]),
            format=KeyFormat.RAW,
        )

        expected = primitives.mac(
            Algorithm.HMAC_SHA_256, bytes.fromhex(vector["material"]), b"message"
        )
        assert expected == session.mac(made.key_id, b"message").mac

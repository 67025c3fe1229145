# SPDX-License-Identifier: MIT
"""Whole messages sealed to a KEM key."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.crypto.ciphertexts import (
    HEADER_BYTES,
    Header,
    open_with,
    parse,
    seal_to,
)
from hsm_core._internal.crypto.registry import default_registry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE
from hsm_core.errors import DecryptionError, SelfTestFailedError
from hsm_core.model import KeyId
from tests.contract.provider_rows import altered
from tests.core.crypto_samples import REGISTRY, private_of, public_of

KEMS = [
    algorithm
    for algorithm, row in ALGORITHMS.items()
    if row.is_kem and algorithm is not Algorithm.ML_KEM_512
]
COMPOSITE = Algorithm.MLKEM768_ECDH_P256_SHA3_256
KEY_ID = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
MESSAGE, AAD = b"attack at dawn", b"context"
TAG_BYTES = 16

each_kem = pytest.mark.parametrize("algorithm", KEMS)


@cache
def sealed_of(algorithm: Algorithm) -> bytes:
    """Return a message sealed to that key."""
    return seal_to(REGISTRY, public_of(algorithm), KEY_ID, 7, MESSAGE, AAD)


@given(st.sampled_from(KEMS), st.binary(max_size=300), st.binary(max_size=300))
def test_the_private_half_opens_it(
    algorithm: Algorithm, message: bytes, aad: bytes
) -> None:
    """Any message and additional data come back; the lengths are as published."""
    sealed = seal_to(REGISTRY, public_of(algorithm), KEY_ID, 7, message, aad)

    assert open_with(REGISTRY, private_of(algorithm), sealed, aad) == message
    assert len(sealed) == (
        HEADER_BYTES + spec(algorithm).ciphertext_bytes + len(message) + TAG_BYTES
    )


@pytest.mark.parametrize("version", [1, 0xFFFF_FFFF])
def test_it_names_key_and_version(version: int) -> None:
    """The envelope's header finds the version that opens it."""
    sealed = seal_to(REGISTRY, public_of(COMPOSITE), KEY_ID, version, MESSAGE)

    header, _ = parse(sealed)

    assert header == Header(KEM_ENVELOPE, KeyId(KEY_ID), version)
    assert open_with(REGISTRY, private_of(COMPOSITE), sealed) == MESSAGE


@each_kem
def test_every_message_has_a_key_of_its_own(algorithm: Algorithm) -> None:
    """The same message sealed twice has neither encapsulation nor text in common."""
    size = spec(algorithm).ciphertext_bytes
    (_, one), (_, other) = (
        parse(seal_to(REGISTRY, public_of(algorithm), KEY_ID, 7, bytes(64)))
        for _ in range(2)
    )

    assert one[:size] != other[:size]
    assert one[size:-TAG_BYTES] != other[size:-TAG_BYTES]


@given(st.data(), st.sampled_from(KEMS), st.integers(1, 255))
def test_a_changed_envelope_does_not_open(
    data: st.DataObject, algorithm: Algorithm, bits: int
) -> None:
    """Whatever byte is changed or cut, of header, encapsulation, text or tag."""
    sealed = sealed_of(algorithm)
    end = HEADER_BYTES + spec(algorithm).ciphertext_bytes
    position = data.draw(
        st.integers(0, HEADER_BYTES + 3)
        | st.integers(end - 100, len(sealed) - 1)
        | st.integers(0, len(sealed) - 1)
    )

    longer = sealed + sealed[:position] + b"\0"
    for wrong in (altered(sealed, position, bits), sealed[:position], longer):
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(algorithm), wrong, AAD)


@pytest.mark.parametrize("position", range(HEADER_BYTES))
def test_every_byte_of_the_header_counts(position: int) -> None:
    """None of them can be changed, the parameters that are zero included."""
    for bits in (1, 0x80):
        wrong = altered(sealed_of(COMPOSITE), position, bits)
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(COMPOSITE), wrong, AAD)


def test_an_envelope_of_another_kind_does_not_open() -> None:
    """Only its own kind is opened, whatever the body holds."""
    header, body = parse(sealed_of(COMPOSITE))

    for kind in {1, 2, 4, 5}:
        wrong = Header(kind, header.key_id, header.version).encode() + body
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(COMPOSITE), wrong, AAD)


@pytest.mark.parametrize(
    "stopped",
    [
        Algorithm.AES_256_GCM,
        Algorithm.HKDF_SHA_256,
        Algorithm.ML_KEM_768,
        Algorithm.EC_P256,
    ],
)
def test_a_stopped_algorithm_stops_sealing(stopped: Algorithm) -> None:
    """Neither direction works once an algorithm inside has failed its self-test."""
    registry = default_registry(SystemEntropy())
    key = registry.generate(COMPOSITE)
    public = registry.load_public(COMPOSITE, key.public_der)
    private = registry.load(COMPOSITE, key.material)
    sealed = seal_to(registry, public, KEY_ID, 7, MESSAGE)

    registry.stop(stopped, "told to")

    with pytest.raises(SelfTestFailedError):
        seal_to(registry, public, KEY_ID, 7, MESSAGE)
    with pytest.raises(SelfTestFailedError):
        open_with(registry, private, sealed)

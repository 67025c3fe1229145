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
from hsm_core._internal.crypto.registry import GeneratedKey, default_registry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    InvalidInputError,
    SelfTestFailedError,
    UnsupportedOperationError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import KeyHandle

REGISTRY = default_registry(SystemEntropy())
KEMS = [
    algorithm
    for algorithm, row in ALGORITHMS.items()
    if row.is_kem and algorithm is not Algorithm.ML_KEM_512
]
COMPOSITE = Algorithm.MLKEM768_ECDH_P256_SHA3_256
KEY_ID = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
OTHER_ID = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c12"
MESSAGE, AAD = b"attack at dawn", b"context"
TAG_BYTES = 16

each_kem = pytest.mark.parametrize("algorithm", KEMS)


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


@cache
def sealed_of(algorithm: Algorithm) -> bytes:
    """Return a message sealed to that key."""
    return seal_to(REGISTRY, public_of(algorithm), KEY_ID, 7, MESSAGE, AAD)


def altered(value: bytes, position: int, bits: int = 1) -> bytes:
    """Return *value* with some bits of one byte the other way round."""
    position %= len(value)
    changed = bytes([value[position] ^ bits])
    return value[:position] + changed + value[position + 1 :]


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
def test_the_private_half_seals_too(algorithm: Algorithm) -> None:
    """An HSM seals with the key pair that it has loaded."""
    sealed = seal_to(REGISTRY, private_of(algorithm), KEY_ID, 7, MESSAGE, AAD)

    assert open_with(REGISTRY, private_of(algorithm), sealed, AAD) == MESSAGE


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
    """Whatever byte of header, encapsulation, text or tag: one answer."""
    sealed = sealed_of(algorithm)
    end = HEADER_BYTES + spec(algorithm).ciphertext_bytes
    position = data.draw(
        st.integers(0, HEADER_BYTES + 3)
        | st.integers(end - 100, len(sealed) - 1)
        | st.integers(0, len(sealed) - 1)
    )

    with pytest.raises(DecryptionError):
        open_with(REGISTRY, private_of(algorithm), altered(sealed, position, bits), AAD)


@pytest.mark.parametrize("position", range(HEADER_BYTES))
def test_every_byte_of_the_header_counts(position: int) -> None:
    """None of them can be changed, the parameters that are zero included."""
    for bits in (1, 0x80):
        wrong = altered(sealed_of(COMPOSITE), position, bits)
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(COMPOSITE), wrong, AAD)


@given(st.data(), st.sampled_from(KEMS))
def test_a_shorter_envelope_does_not_open(
    data: st.DataObject, algorithm: Algorithm
) -> None:
    """Cut off anywhere, or longer: the same answer, and no error of lengths."""
    sealed = sealed_of(algorithm)
    size = data.draw(st.integers(0, len(sealed) - 1))

    for wrong in (sealed[:size], sealed + sealed[:size] + b"\0"):
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(algorithm), wrong, AAD)


def test_other_names_do_not_open() -> None:
    """Moved under another key id or version, an envelope is worth nothing."""
    _, body = parse(sealed_of(COMPOSITE))

    for key_id, version in ((OTHER_ID, 7), (KEY_ID, 8)):
        moved = Header(KEM_ENVELOPE, KeyId(key_id), version).encode() + body
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(COMPOSITE), moved, AAD)


@pytest.mark.parametrize("aad", [b"", b"Context", b"context\0"])
def test_other_additional_data_does_not_open(aad: bytes) -> None:
    """The additional data must be the same."""
    with pytest.raises(DecryptionError):
        open_with(REGISTRY, private_of(COMPOSITE), sealed_of(COMPOSITE), aad)


@each_kem
def test_another_key_does_not_open(algorithm: Algorithm) -> None:
    """Neither a key of the same algorithm opens it, nor any of another."""
    same = REGISTRY.load(algorithm, REGISTRY.generate(algorithm).material)
    others = [private_of(other) for other in KEMS if other is not algorithm]

    for private in (same, *others):
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private, sealed_of(algorithm), AAD)


def test_an_envelope_of_another_kind_does_not_open() -> None:
    """Only its own kind is opened, whatever the body holds."""
    header, body = parse(sealed_of(COMPOSITE))

    for kind in {1, 2, 4, 5}:
        wrong = Header(kind, header.key_id, header.version).encode() + body
        with pytest.raises(DecryptionError):
            open_with(REGISTRY, private_of(COMPOSITE), wrong, AAD)


@each_kem
def test_the_public_half_does_not_open(algorithm: Algorithm) -> None:
    """Opening needs the private half."""
    with pytest.raises(UnsupportedOperationError):
        open_with(REGISTRY, public_of(algorithm), sealed_of(algorithm), AAD)


@pytest.mark.parametrize(
    "algorithm", [Algorithm.EC_P256, Algorithm.RSA_2048, Algorithm.AES_256_GCM]
)
def test_other_algorithms_do_not_seal(algorithm: Algorithm) -> None:
    """A key of no KEM neither seals nor opens."""
    private = REGISTRY.load(algorithm, REGISTRY.generate(algorithm).material)

    with pytest.raises(UnsupportedOperationError):
        seal_to(REGISTRY, private, KEY_ID, 7, MESSAGE)
    with pytest.raises(UnsupportedOperationError):
        open_with(REGISTRY, private, sealed_of(COMPOSITE), AAD)


@pytest.mark.parametrize(
    "key_id", ["", "mine", KEY_ID.upper(), KEY_ID.replace("-", ""), f"{{{KEY_ID}}}"]
)
def test_a_key_id_in_another_form(key_id: str) -> None:
    """Only the canonical form of a UUID names a key."""
    with pytest.raises(InvalidInputError) as caught:
        seal_to(REGISTRY, public_of(COMPOSITE), key_id, 7, MESSAGE)

    assert caught.value.facts["field"] == "key_id"


@pytest.mark.parametrize("version", [-1, 0, 0x1_0000_0000])
def test_a_version_beyond_its_limits(version: int) -> None:
    """Versions go from 1 to the greatest that the header can hold."""
    with pytest.raises(InvalidInputError) as caught:
        seal_to(REGISTRY, public_of(COMPOSITE), KEY_ID, version, MESSAGE)

    assert caught.value.facts["field"] == "version"


def test_an_invalid_point_does_not_open() -> None:
    """Explicit rejection by the composite looks as any other failure."""
    header, body = parse(sealed_of(COMPOSITE))
    border = spec(Algorithm.ML_KEM_768).ciphertext_bytes
    end = spec(COMPOSITE).ciphertext_bytes
    wrong = header.encode() + body[:border] + bytes(end - border) + body[end:]

    with pytest.raises(DecryptionError) as caught:
        open_with(REGISTRY, private_of(COMPOSITE), wrong, AAD)

    assert str(caught.value) == str(DecryptionError())


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


def test_a_short_encapsulation_is_no_error_of_lengths() -> None:
    """The handle names lengths, opening doesn't."""
    header, body = parse(sealed_of(COMPOSITE))

    with pytest.raises(InputSizeError):
        private_of(COMPOSITE).decapsulate(body[:100])
    with pytest.raises(DecryptionError):
        open_with(REGISTRY, private_of(COMPOSITE), header.encode() + body[:100], AAD)

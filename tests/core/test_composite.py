# SPDX-License-Identifier: MIT
"""Composites: their halves belong together, and nothing works with one alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.crypto import der
from hsm_core._internal.crypto.composite import (
    CompositeProvider,
    join_private,
    split_private,
    split_public,
)
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.registry import (
    GeneratedKey,
    default_registry,
)
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, spec
from hsm_core.errors import (
    DecryptionError,
    InvalidInputError,
    SelfTestFailedError,
    SignatureMismatchError,
)
from hsm_core.protocols import KeyHandle, SignatureParameters
from tests.contract.provider_rows import altered
from tests.core.faulty_crypto import StuckProvider, faulty_registry

COMPOSITES = [algorithm for algorithm, row in ALGORITHMS.items() if row.is_hybrid]
KEMS = [algorithm for algorithm in COMPOSITES if spec(algorithm).is_kem]
SIGNATURES = [algorithm for algorithm in COMPOSITES if spec(algorithm).is_signature]
CURVE_KEMS = [a for a in KEMS if spec(a).components[1] is not Algorithm.X25519]

MESSAGE = b"a message"
REGISTRY = default_registry(SystemEntropy())

each_composite = pytest.mark.parametrize("algorithm", COMPOSITES)
each_kem = pytest.mark.parametrize("algorithm", KEMS)
each_signature = pytest.mark.parametrize("algorithm", SIGNATURES)


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


def raw_public(algorithm: Algorithm, public_der: bytes) -> bytes:
    """Return the raw public key of a composite."""
    return der.read_public_key_info(algorithm, public_der)


def border(algorithm: Algorithm, size: str) -> int:
    """Return where the post-quantum half ends."""
    return int(getattr(spec(spec(algorithm).components[0]), size))


def near(*borders: int) -> st.SearchStrategy[int]:
    """Return positions, many of them within a few bytes of a border or an end."""
    close = [b + d for b in (*borders, 0) for d in range(-4, 4)]
    return st.sampled_from(close) | st.integers(0, 6000)


def refused(algorithm: Algorithm, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature is refused."""
    try:
        parameters = signature_parameters(algorithm)
        public_of(algorithm).verify(message, signature, parameters)
    except SignatureMismatchError:
        return True
    return False


# Sizes and forms


@each_composite
def test_private_keys_have_one_form(algorithm: Algorithm) -> None:
    """A byte of the framing changed, added or left out, and it is no key."""
    material = key_of(algorithm).material
    octets = der.read_private_key_info(algorithm, material)
    seed = border(algorithm, "private_bytes")
    framing = [] if len(octets) - seed == 32 else [seed, seed + 2, seed + 6, -1, -9]
    wrong = [
        material + b"\0",
        material[:-1],
        der.private_key_info(algorithm, octets[:-1]),
        der.private_key_info(algorithm, octets + b"\0"),
        der.private_key_info(algorithm, octets[:seed]),
        *(
            der.private_key_info(algorithm, altered(octets, position))
            for position in framing
        ),
    ]

    for bad in wrong:
        for load in (REGISTRY.load, REGISTRY.load_foreign):
            with pytest.raises(InvalidInputError) as caught:
                load(algorithm, bad)
            assert caught.value.facts["field"] == "material"


@pytest.mark.parametrize("scalar", [0, -1], ids=["zero", "too large"])
def test_a_scalar_must_be_one(scalar: int) -> None:
    """An EC private key of zero, or beyond the group's order, is refused."""
    algorithm = Algorithm.MLKEM768_ECDH_P256_SHA3_256
    octets = der.read_private_key_info(algorithm, key_of(algorithm).material)
    bad = octets[:71] + (b"\0" if scalar == 0 else b"\xff") * 32 + octets[103:]

    with pytest.raises(InvalidInputError) as caught:
        REGISTRY.load(algorithm, der.private_key_info(algorithm, bad))

    assert caught.value.facts["field"] == "material"
    assert algorithm.value in str(caught.value)


# Halves


@each_composite
def test_a_half_is_no_key(algorithm: Algorithm) -> None:
    """A component's key can't be loaded as the composite, alone or in its place."""
    key = key_of(algorithm)

    for half in split_private(algorithm, key.material):
        with pytest.raises(InvalidInputError):
            REGISTRY.load_foreign(algorithm, half)
    for half in split_public(algorithm, key.public_der):
        with pytest.raises(InvalidInputError):
            REGISTRY.load_public(algorithm, half)


@each_composite
def test_both_halves_are_made_anew(algorithm: Algorithm) -> None:
    """Two keys have no half in common."""
    first = split_public(algorithm, key_of(algorithm).public_der)
    second = split_public(algorithm, REGISTRY.generate(algorithm).public_der)

    assert not set(first) & set(second)


@each_signature
def test_half_a_signature_is_none(algorithm: Algorithm) -> None:
    """Either half, or one with an empty or a zeroed other, is refused."""
    end = border(algorithm, "signature_bytes")
    signature = private_of(algorithm).sign(MESSAGE, signature_parameters(algorithm))
    first, second = signature[:end], signature[end:]

    for wrong in (
        b"",
        first,
        second,
        second + first,
        bytes(end) + second,
        first + bytes(len(second)),
        first + second + b"\0",
        signature[:-1],
        bytes(100_000),
    ):
        assert refused(algorithm, MESSAGE, wrong)


@each_signature
def test_a_stripped_signature_is_no_signature_of_its_half(
    algorithm: Algorithm,
) -> None:
    """
    A half is good over the drafts' representative, and over no message of the user's.

    ML-DSA's needs the label as its context, too.
    """
    context, label = b"purpose", spec(algorithm).label
    hashed = spec(algorithm).hashes[0].value.replace("-", "").lower()
    representative = (
        b"CompositeAlgorithmSignatures2025"
        + label
        + bytes([len(context)])
        + context
        + hashlib.new(hashed, MESSAGE).digest()
    )
    end = border(algorithm, "signature_bytes")
    signature = private_of(algorithm).sign(
        MESSAGE, signature_parameters(algorithm, context=context)
    )
    (ml_dsa, first), (other, second) = (
        (REGISTRY.load_public(component, half), component)
        for component, half in zip(
            spec(algorithm).components,
            split_public(algorithm, key_of(algorithm).public_der),
            strict=True,
        )
    )

    bound = signature_parameters(first, context=label)
    ml_dsa.verify(representative, signature[:end], bound)
    other.verify(representative, signature[end:], signature_parameters(second))
    for message in (MESSAGE, representative):
        for used in (b"", context):
            with pytest.raises(SignatureMismatchError):
                ml_dsa.verify(
                    message,
                    signature[:end],
                    signature_parameters(first, context=used),
                )
    with pytest.raises(SignatureMismatchError):
        other.verify(MESSAGE, signature[end:], signature_parameters(second))


@each_signature
def test_halves_of_two_signatures_do_not_mix(algorithm: Algorithm) -> None:
    """The halves must be signatures over one message under one context."""
    end, parameters = (
        border(algorithm, "signature_bytes"),
        signature_parameters(algorithm),
    )
    one = private_of(algorithm).sign(MESSAGE, parameters)
    for message, context in ((b"another", b""), (MESSAGE, b"c")):
        other = private_of(algorithm).sign(
            message, signature_parameters(algorithm, context=context)
        )
        assert refused(algorithm, MESSAGE, one[:end] + other[end:])
        assert refused(algorithm, MESSAGE, other[:end] + one[end:])


def test_a_label_is_of_one_composite() -> None:
    """With the very same ML-DSA key, a half is worth nothing in another composite."""
    one, other = Algorithm.MLDSA65_ECDSA_P256_SHA512, Algorithm.MLDSA65_ED25519_SHA512
    ml_dsa, _ = split_private(one, key_of(one).material)
    _, ed25519 = split_private(other, key_of(other).material)
    mixed = REGISTRY.load(other, join_private(other, ml_dsa, ed25519))
    end, parameters = border(one, "signature_bytes"), signature_parameters(other)
    stolen = private_of(one).sign(MESSAGE, signature_parameters(one))[:end]
    genuine = mixed.sign(MESSAGE, parameters)

    mixed.verify(MESSAGE, genuine, parameters)
    with pytest.raises(SignatureMismatchError):
        mixed.verify(MESSAGE, stolen + genuine[end:], parameters)


@each_kem
def test_halves_of_two_ciphertexts_do_not_mix(algorithm: Algorithm) -> None:
    """Each half of an encapsulation counts."""
    end = border(algorithm, "ciphertext_bytes")
    (one, first), (other, second) = (
        public_of(algorithm).encapsulate() for _ in range(2)
    )

    for mixed in (first[:end] + second[end:], second[:end] + first[end:]):
        assert private_of(algorithm).decapsulate(mixed) not in {one, other}


# Contexts


# Changed bytes


@settings(max_examples=300)
@given(st.data(), st.sampled_from(SIGNATURES), st.integers(1, 255))
def test_a_changed_signature_is_refused(
    data: st.DataObject, algorithm: Algorithm, bits: int
) -> None:
    """Whatever byte is changed, in either half, the answer is the same refusal."""
    signature = private_of(algorithm).sign(MESSAGE, signature_parameters(algorithm))
    position = data.draw(near(border(algorithm, "signature_bytes"), len(signature)))

    assert refused(algorithm, MESSAGE, altered(signature, position, bits))


@settings(max_examples=300)
@given(st.data(), st.sampled_from(KEMS), st.integers(1, 255))
def test_a_changed_ciphertext_gives_no_secret(
    data: st.DataObject, algorithm: Algorithm, bits: int
) -> None:
    """It gives another secret; or none, if its point is not on the curve."""
    secret, ciphertext = public_of(algorithm).encapsulate()
    end = border(algorithm, "ciphertext_bytes")
    position = data.draw(near(end, len(ciphertext))) % len(ciphertext)
    wrong = altered(ciphertext, position, bits)

    if position < end or algorithm not in CURVE_KEMS:
        assert private_of(algorithm).decapsulate(wrong) != secret
    else:
        with pytest.raises(DecryptionError):
            private_of(algorithm).decapsulate(wrong)


@settings(max_examples=300)
@given(st.data(), st.sampled_from(COMPOSITES), st.integers(1, 255))
def test_a_changed_public_key_is_another(
    data: st.DataObject, algorithm: Algorithm, bits: int
) -> None:
    """It is refused when it is loaded, or it is of no use with the private half."""
    raw = raw_public(algorithm, key_of(algorithm).public_der)
    position = data.draw(near(border(algorithm, "public_bytes"), len(raw)))
    wrong = der.subject_public_key_info(algorithm, altered(raw, position, bits))

    try:
        public = REGISTRY.load_public(algorithm, wrong)
    except InvalidInputError:
        return
    if spec(algorithm).is_kem:
        secret, ciphertext = public.encapsulate()
        assert private_of(algorithm).decapsulate(ciphertext) != secret
    else:
        parameters = signature_parameters(algorithm)
        signature = private_of(algorithm).sign(MESSAGE, parameters)
        with pytest.raises(SignatureMismatchError):
            public.verify(MESSAGE, signature, parameters)


# Invalid halves


def points(algorithm: Algorithm) -> list[bytes]:
    """Return byte strings that are no uncompressed point of an EC component."""
    size = spec(spec(algorithm).components[1]).coordinate_bytes
    curve = ec.SECP256R1() if size == 32 else ec.SECP384R1()
    foreign = ec.SECP256K1() if size == 32 else ec.BrainpoolP384R1()
    good, strange = (
        ec.generate_private_key(each)
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        for each in (curve, foreign)
    )
    compressed = bytes([2 + (good[-1] & 1)]) + good[1 : size + 1]
    return [
        strange,
        altered(good, -1),
        bytes([6 + (good[-1] & 1)]) + good[1:],
        compressed.ljust(len(good), b"\0"),
        bytes(len(good)),
        b"\x04" + bytes(2 * size),
        b"\x04" + b"\xff" * (2 * size),
    ]


@pytest.mark.parametrize(
    "algorithm",
    [a for a in COMPOSITES if spec(spec(a).components[1]).coordinate_bytes],
)
def test_an_invalid_point_is_no_public_key(algorithm: Algorithm) -> None:
    """Points off the curve, of another curve or in other forms are refused."""
    raw = raw_public(algorithm, key_of(algorithm).public_der)
    end = border(algorithm, "public_bytes")

    for point in points(algorithm):
        wrong = der.subject_public_key_info(algorithm, raw[:end] + point)
        with pytest.raises(InvalidInputError) as caught:
            REGISTRY.load_public(algorithm, wrong)
        assert caught.value.facts["field"] == "public_key"
        assert algorithm.value in str(caught.value)


@pytest.mark.parametrize("algorithm", CURVE_KEMS)
def test_an_invalid_point_in_a_ciphertext(algorithm: Algorithm) -> None:
    """Decapsulation rejects it explicitly, as the draft asks."""
    _, ciphertext = public_of(algorithm).encapsulate()
    end = border(algorithm, "ciphertext_bytes")

    for point in points(algorithm):
        with pytest.raises(DecryptionError):
            private_of(algorithm).decapsulate(ciphertext[:end] + point)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_low_order(point: bytes) -> None:
    """An X25519 key that makes every secret zero gives none, on either side."""
    algorithm = Algorithm.MLKEM768_X25519_SHA3_256
    raw = raw_public(algorithm, key_of(algorithm).public_der)
    _, ciphertext = public_of(algorithm).encapsulate()
    low = der.subject_public_key_info(algorithm, raw[:-32] + point)

    with pytest.raises(InvalidInputError) as caught:
        REGISTRY.load_public(algorithm, low).encapsulate()
    assert caught.value.facts["field"] == "public_key"
    with pytest.raises(DecryptionError):
        private_of(algorithm).decapsulate(ciphertext[:-32] + point)


def test_the_unused_bit_of_x25519_counts() -> None:
    """X25519 ignores the last bit of a point, the combiner doesn't."""
    algorithm = Algorithm.MLKEM768_X25519_SHA3_256
    secret, ciphertext = public_of(algorithm).encapsulate()

    assert private_of(algorithm).decapsulate(altered(ciphertext, -1, 0x80)) != secret


# Components


@each_composite
@pytest.mark.parametrize("half", [0, 1], ids=["post-quantum", "traditional"])
def test_a_stopped_component_stops_the_composite(
    algorithm: Algorithm, half: int
) -> None:
    """Keys that were loaded before give nothing, and no key is made or loaded."""
    registry = default_registry(SystemEntropy())
    key = registry.generate(algorithm)
    private = registry.load(algorithm, key.material)

    registry.stop(spec(algorithm).components[half], "told to")

    with pytest.raises(SelfTestFailedError, match="told to"):
        registry.generate(algorithm)
    with pytest.raises(SelfTestFailedError, match="told to"):
        registry.load_public(algorithm, key.public_der)
    if spec(algorithm).is_kem:
        with pytest.raises(SelfTestFailedError, match="told to"):
            private.encapsulate()
    else:
        with pytest.raises(SelfTestFailedError, match="told to"):
            private.sign(MESSAGE, signature_parameters(algorithm))


@pytest.mark.parametrize("algorithm", CURVE_KEMS)
def test_a_repeated_ephemeral_key_stops_encapsulation(algorithm: Algorithm) -> None:
    """A generator that gives the same point twice is noticed, and nothing goes out."""
    curve = spec(algorithm).components[1]
    registry, _ = faulty_registry(curve, lambda true: StuckProvider(true, curve))

    with pytest.raises(SelfTestFailedError):
        registry.load_public(algorithm, key_of(algorithm).public_der).encapsulate()

    with pytest.raises(SelfTestFailedError, match="same key twice"):
        registry.require(curve)


@dataclass
class Refusing(BaseHandle):
    """A key that notes each signature it is asked about, and refuses those it must."""

    handle: KeyHandle
    refuses: bool
    asked: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.handle.algorithm)

    def public_der(self) -> bytes:
        """Return the true public key."""
        return self.handle.public_der()

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Refuse, or accept whatever comes."""
        self.asked += 1
        if self.refuses:
            raise SignatureMismatchError


class Halves:
    """Components whose public keys refuse signatures as they are told."""

    def __init__(self, *refusing: Algorithm) -> None:
        self._refusing = refusing
        self.loaded: list[Refusing] = []
        self.foreign: list[Algorithm] = []

    def generate(self, algorithm: Algorithm, /) -> GeneratedKey:
        """Make a true key."""
        return REGISTRY.generate(algorithm)

    def generate_ephemeral(self, algorithm: Algorithm, /) -> KeyHandle:
        """Make a true key."""
        return REGISTRY.generate_ephemeral(algorithm)

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load a true key."""
        return REGISTRY.load(algorithm, material)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load a true key, and note that it was checked as one from elsewhere."""
        self.foreign.append(algorithm)
        return REGISTRY.load_foreign(algorithm, material)

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load a key that refuses, if it was named."""
        true = REGISTRY.load_public(algorithm, public_der)
        handle = Refusing(true, algorithm in self._refusing)
        self.loaded.append(handle)
        return handle


@each_signature
def test_both_halves_are_always_checked(algorithm: Algorithm) -> None:
    """Whichever half is wrong, both are asked and the error is the same."""
    parameters, length = signature_parameters(algorithm), spec(algorithm)
    first, second = spec(algorithm).components
    messages = set()

    for refusing in ((first,), (second,), (first, second)):
        halves = Halves(*refusing)
        public = CompositeProvider(halves).load_public(
            algorithm, key_of(algorithm).public_der
        )
        with pytest.raises(SignatureMismatchError) as caught:
            public.verify(MESSAGE, bytes(length.signature_bytes), parameters)
        messages.add((str(caught.value), tuple(caught.value.facts)))
        assert [handle.asked for handle in halves.loaded] == [1, 1]

    assert len(messages) == 1


@each_signature
def test_lengths_are_checked_first(algorithm: Algorithm) -> None:
    """A signature of a length that can't be is refused before a half is asked."""
    halves = Halves()
    public = CompositeProvider(halves).load_public(
        algorithm, key_of(algorithm).public_der
    )
    longest, parameters = (
        spec(algorithm).signature_bytes,
        signature_parameters(algorithm),
    )

    public.verify(MESSAGE, bytes(longest), parameters)
    for size in (0, border(algorithm, "signature_bytes"), longest + 1):
        with pytest.raises(SignatureMismatchError):
            public.verify(MESSAGE, bytes(size), parameters)

    assert [handle.asked for handle in halves.loaded] == [1, 1]


@each_composite
def test_foreign_halves_are_fully_checked(algorithm: Algorithm) -> None:
    """Material from elsewhere is checked half by half, our own isn't again."""
    halves = Halves()
    provider, material = CompositeProvider(halves), key_of(algorithm).material

    provider.load(algorithm, material)
    assert halves.foreign == []
    provider.load_foreign(algorithm, material)
    assert halves.foreign == list(spec(algorithm).components)


def test_the_version_names_the_drafts() -> None:
    """The provider's version is the drafts' names with their revisions."""
    version = CompositeProvider(Halves()).version

    assert version == (
        "draft-ietf-lamps-pq-composite-kem-18, draft-ietf-lamps-pq-composite-sigs-19"
    )
    statuses = {status.algorithm: status for status in REGISTRY.statuses()}
    for algorithm in COMPOSITES:
        assert statuses[algorithm].provider == "composite"
        assert spec(algorithm).draft in statuses[algorithm].provider_version

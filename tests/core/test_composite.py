# SPDX-License-Identifier: MIT
"""Composites: their halves belong together, and nothing works with one alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_core._internal.crypto import der
from hsm_core._internal.crypto.composite import (
    CompositeProvider,
    join_private,
    split_private,
    split_public,
)
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
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
from tests.core.crypto_samples import REGISTRY, key_of, private_of, public_of
from tests.core.faulty_crypto import StuckProvider, faulty_registry

COMPOSITES = [algorithm for algorithm, row in ALGORITHMS.items() if row.is_hybrid]
KEMS = [algorithm for algorithm in COMPOSITES if spec(algorithm).is_kem]
SIGNATURES = [algorithm for algorithm in COMPOSITES if spec(algorithm).is_signature]
CURVE_KEMS = [a for a in KEMS if spec(a).components[1] is not Algorithm.X25519]

MESSAGE = b"a message"

each_composite = pytest.mark.parametrize("algorithm", COMPOSITES)
each_kem = pytest.mark.parametrize("algorithm", KEMS)
each_signature = pytest.mark.parametrize("algorithm", SIGNATURES)


def raw_public(algorithm: Algorithm, public_der: bytes) -> bytes:
    """Return the raw public key of a composite."""
    return der.read_public_key_info(algorithm, public_der)


def border(algorithm: Algorithm, size: str) -> int:
    """Return where the post-quantum half ends."""
    return int(getattr(spec(spec(algorithm).components[0]), size))


def refused(algorithm: Algorithm, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature is refused."""
    try:
        parameters = signature_parameters(algorithm)
        public_of(algorithm).verify(message, signature, parameters)
    except SignatureMismatchError:
        return True
    return False


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


@each_composite
def test_private_keys_have_one_form(algorithm: Algorithm) -> None:
    """A byte of the framing of the traditional half changed, and it is no key."""
    octets = der.read_private_key_info(algorithm, key_of(algorithm).material)
    seed = border(algorithm, "private_bytes")
    framing = [] if len(octets) - seed == 32 else [seed, seed + 2, seed + 6, -1, -9]
    wrong = [octets[:-1], octets + b"\0", octets[:seed]]
    wrong += [altered(octets, position) for position in framing]

    for bad in wrong:
        with pytest.raises(InvalidInputError) as caught:
            REGISTRY.load_foreign(algorithm, der.private_key_info(algorithm, bad))
        assert "material" == caught.value.facts["field"]


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


def halves(*refusing: Algorithm) -> tuple[CryptoRegistry, list[Refusing]]:
    """Return components whose public keys refuse as they are told, and note it."""
    registry, loaded = default_registry(SystemEntropy()), list[Refusing]()

    def load(algorithm: Algorithm, der: bytes) -> KeyHandle:
        true = REGISTRY.load_public(algorithm, der)
        loaded.append(Refusing(true, algorithm in refusing))
        return loaded[-1]

    registry.load_public = load  # type: ignore[method-assign]
    return registry, loaded


@each_signature
def test_both_halves_are_always_checked(algorithm: Algorithm) -> None:
    """Whichever half is wrong, both are asked and the error is the same."""
    parameters, size = signature_parameters(algorithm), spec(algorithm).signature_bytes
    first, second = spec(algorithm).components
    messages = set()

    for refusing in ((first,), (second,), (first, second)):
        registry, loaded = halves(*refusing)
        public = CompositeProvider(registry).load_public(
            algorithm, key_of(algorithm).public_der
        )
        with pytest.raises(SignatureMismatchError) as caught:
            public.verify(MESSAGE, bytes(size), parameters)
        messages.add((str(caught.value), tuple(caught.value.facts)))
        assert [handle.asked for handle in loaded] == [1, 1]

    assert len(messages) == 1


@each_composite
def test_foreign_halves_are_fully_checked(
    algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Material from elsewhere is checked half by half, our own isn't again."""
    registry, foreign = default_registry(SystemEntropy()), list[Algorithm]()

    def load(half: Algorithm, material: bytes) -> KeyHandle:
        foreign.append(half)
        return REGISTRY.load_foreign(half, material)

    monkeypatch.setattr(registry, "load_foreign", load)
    provider, material = CompositeProvider(registry), key_of(algorithm).material

    provider.load(algorithm, material)
    assert foreign == []
    provider.load_foreign(algorithm, material)
    assert foreign == list(spec(algorithm).components)

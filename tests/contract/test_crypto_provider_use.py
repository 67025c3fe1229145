# SPDX-License-Identifier: MIT
"""Uses of keys by every `CryptoProvider`: limits, refusals, and other providers."""

from __future__ import annotations

import hashlib

import pytest
from msgspec.structs import replace

from hsm_core._internal.crypto.der import read_public_key_info, subject_public_key_info
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, HashAlgorithm, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    DecryptionError,
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from hsm_core.protocols import OAEPParameters
from tests.contract.provider_rows import (
    MESSAGE,
    PROVIDERS,
    ROWS,
    SIGNING,
    Row,
    altered,
    flow,
    is_prompt,
    keeps_seeds,
    label,
    material,
    private,
    public,
    rows,
    signature,
)

WITH_CONTEXT = [r for r in rows() if ALGORITHMS[r[1]].max_context_bytes]
HEDGED = [
    r for r in rows() if ALGORITHMS[r[1]].is_signature and ALGORITHMS[r[1]].is_pqc
]
LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
"""Points of Curve25519 whose multiples by any private key are zero."""


class TestSignatures:
    @pytest.mark.parametrize("row", SIGNING, ids=label)
    def test_verifies(self, row: Row) -> None:
        """
        A signature is of this message and key, and no bit of it may be another.
        """
        made, parameters = signature(row), signature_parameters(row[1])
        public(row).verify(MESSAGE, made, parameters)

        assert len(made) <= spec(row[1]).signature_bytes
        wrong = [altered(made, at) for at in (0, len(made) // 2, len(made) - 1)]
        for data, signed in [(MESSAGE + b"\0", made), *((MESSAGE, w) for w in wrong)]:
            with pytest.raises(SignatureMismatchError):
                public(row).verify(data, signed, parameters)

    @pytest.mark.parametrize("row", SIGNING, ids=label)
    def test_wrong_length(self, row: Row) -> None:
        """
        A signature of another length is wrong, like any other.
        """
        made, parameters = signature(row), signature_parameters(row[1])
        for wrong in (b"", made[:1], made[:-1], made + b"\0", made + made):
            with pytest.raises(SignatureMismatchError):
                public(row).verify(MESSAGE, wrong, parameters)

    @pytest.mark.parametrize(
        "row", [r for r in rows(slow=True) if spec(r[1]).is_signature], ids=label
    )
    def test_public_half_can_not_sign(self, row: Row) -> None:
        """
        A public key signs nothing.
        """
        with pytest.raises(UnsupportedOperationError):
            public(row).sign(MESSAGE, signature_parameters(row[1]))

    @pytest.mark.parametrize("row", WITH_CONTEXT, ids=label)
    def test_context(self, row: Row) -> None:
        """
        A context of 255 bytes is signed; it belongs to the signature to the last byte.
        """
        context = bytes(range(255))
        parameters = signature_parameters(row[1], context=context)
        made = private(row).sign(MESSAGE, parameters)
        public(row).verify(MESSAGE, made, parameters)

        for other in (b"", context[:-1], altered(context, -1)):
            with pytest.raises(SignatureMismatchError):
                public(row).verify(
                    MESSAGE, made, signature_parameters(row[1], context=other)
                )

    @pytest.mark.parametrize("row", WITH_CONTEXT, ids=label)
    def test_context_too_long(self, row: Row) -> None:
        """
        A context of 256 bytes is refused, to sign and to verify, and the limit named.
        """
        long = replace(signature_parameters(row[1]), context=bytes(256))
        for attempt in (
            lambda: private(row).sign(MESSAGE, long),
            lambda: public(row).verify(MESSAGE, b"", long),
        ):
            with pytest.raises(InputSizeError) as caught:
                attempt()
            assert ("context", 255) == (
                caught.value.facts["field"],
                caught.value.facts["maximum"],
            )

    @pytest.mark.parametrize("row", HEDGED, ids=label)
    def test_hedged(self, row: Row) -> None:
        """
        The same message gives another signature each time.
        """
        parameters = signature_parameters(row[1])
        one, other = (private(row).sign(MESSAGE, parameters) for _ in range(2))

        assert one != other

    @pytest.mark.parametrize("row", rows(Family.ML_DSA), ids=label)
    def test_external_mu(self, row: Row) -> None:
        """
        Signing mu is signing the message and context that it stands for.
        """
        raw = read_public_key_info(row[1], public(row).public_der())
        start = b"\0\3ctx"
        tr = hashlib.shake_256(raw).digest(64)
        mu = hashlib.shake_256(tr + start + MESSAGE).digest(64)
        external = signature_parameters(row[1], external_mu=True)
        plain = signature_parameters(row[1], context=b"ctx")

        public(row).verify(MESSAGE, private(row).sign(mu, external), plain)
        public(row).verify(mu, private(row).sign(MESSAGE, plain), external)
        for size in (0, 63, 65):
            with pytest.raises(InputSizeError) as caught:
                private(row).sign(bytes(size), external)
            assert "mu" == caught.value.facts["field"]


@pytest.mark.parametrize("row", rows(Family.ML_KEM, Family.COMPOSITE_KEM), ids=label)
class TestKEM:
    def test_fresh(self, row: Row) -> None:
        """
        Each encapsulation is another, of the sizes in the table.
        """
        first, second = (public(row).encapsulate() for _ in range(2))

        assert first[0] != second[0]
        assert first[1] != second[1]
        for secret, ciphertext in (first, second):
            assert spec(row[1]).shared_secret_bytes == len(secret)
            assert spec(row[1]).ciphertext_bytes == len(ciphertext)
            assert secret == private(row).decapsulate(ciphertext)

    def test_coefficients_are_reduced(self, row: Row) -> None:
        """
        A public key with a coefficient of 3329 or more is refused when it is loaded.
        """
        provider = PROVIDERS[row[0]]
        raw = read_public_key_info(row[1], public(row).public_der())
        for coefficient in (3328, 3329, 4095):
            low, high = coefficient & 0xFF, raw[1] & 0xF0 | coefficient >> 8
            changed = bytes([low, high]) + raw[2:]
            der = subject_public_key_info(row[1], changed)
            if coefficient == 3328:
                assert der == provider.load_public(row[1], der).public_der()
                continue
            with pytest.raises(InvalidInputError) as caught:
                provider.load_public(row[1], der)
            assert "public_key" == caught.value.facts["field"]

    def test_implicit_rejection(self, row: Row) -> None:
        """
        A changed encapsulation gives another secret, always the same, and no error.
        """
        secret, ciphertext = public(row).encapsulate()
        changed = altered(ciphertext, 0)
        rejected = private(row).decapsulate(changed)

        assert rejected != secret
        assert len(rejected) == len(secret)
        assert rejected == private(row).decapsulate(changed)

    def test_wrong_length(self, row: Row) -> None:
        """
        An encapsulation of another length is refused, and both lengths are named.
        """
        _, ciphertext = public(row).encapsulate()
        for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
            with pytest.raises(InputSizeError) as caught:
                private(row).decapsulate(wrong)
            facts = caught.value.facts
            assert ("ciphertext", len(wrong)) == (facts["field"], facts["actual"])
            assert len(ciphertext) == facts["maximum"]

    def test_public_half_can_not_decapsulate(self, row: Row) -> None:
        """
        A public key opens nothing.
        """
        _, ciphertext = public(row).encapsulate()
        with pytest.raises(UnsupportedOperationError):
            public(row).decapsulate(ciphertext)


class TestSymmetric:
    @pytest.mark.parametrize("row", rows(Family.AEAD), ids=label)
    def test_aead(self, row: Row) -> None:
        """
        Whatever is changed or cut, nothing is opened; a nonce has 12 bytes.
        """
        handle, nonce = private(row), bytes(range(12))
        sealed = handle.seal(nonce, MESSAGE, b"aad")
        wrong = [altered(sealed, place) for place in range(len(sealed))]
        wrong += [*(sealed[:size] for size in range(len(sealed))), sealed + b"\0"]

        assert len(MESSAGE) + 16 == len(sealed)
        assert MESSAGE == handle.open(nonce, sealed, b"aad")
        assert MESSAGE == handle.open(nonce, memoryview(sealed), b"aad")
        for bad in (
            *((nonce, w, b"aad") for w in wrong),
            (nonce, sealed, b"dad"),
            (bytes(12), sealed, b"aad"),
        ):
            with pytest.raises(DecryptionError) as refused:
                handle.open(*bad)
            assert {} == refused.value.facts
        for size in (0, 11, 13, 16):
            with pytest.raises(InputSizeError, match="nonce must be 12 bytes, got"):
                handle.seal(bytes(size), MESSAGE, b"")
            with pytest.raises(DecryptionError):
                handle.open(bytes(size), sealed, b"aad")

    @pytest.mark.parametrize("size", [0, 2**15, 2**15 + 1])
    @pytest.mark.parametrize("row", rows(Family.AEAD), ids=label)
    def test_aead_behind_a_start(self, row: Row, size: int) -> None:
        """
        What a caller puts in front is there, and the ciphertext behind it is the same.
        """
        handle, nonce, message = private(row), bytes(range(12)), b"m" * size

        whole = handle.seal(nonce, message, b"aad", b"start of it")

        assert type(whole) is bytes
        assert whole == b"start of it" + handle.seal(nonce, message, b"aad")
        assert message == handle.open(nonce, memoryview(whole)[11:], b"aad")

    @pytest.mark.parametrize("row", rows(Family.KEY_WRAP), ids=label)
    def test_key_wrap(self, row: Row) -> None:
        """
        Lengths are those of the mechanisms, and what was changed is not unwrapped.
        """
        handle = private(row)
        for size, padded, rule, least in (
            *((size, False, "a multiple of 8", 16) for size in (0, 8, 15, 17, 31)),
            (0, True, "bytes", 1),
        ):
            with pytest.raises(InputSizeError, match=rule) as caught:
                handle.wrap(bytes(size), padded=padded)
            facts = caught.value.facts
            assert ("data", least) == (facts["field"], facts["minimum"])
        for padded in (False, True):
            wrapped = handle.wrap(bytes(24), padded=padded)
            cut = (wrapped[:size] for size in range(len(wrapped)))
            changed = (altered(wrapped, place) for place in range(len(wrapped)))
            for wrong in (*cut, *changed, wrapped + bytes(8)):
                with pytest.raises(DecryptionError):
                    handle.unwrap(wrong, padded=padded)
            with pytest.raises(DecryptionError):
                handle.unwrap(wrapped, padded=not padded)

    @pytest.mark.parametrize("row", rows(Family.KDF), ids=label)
    def test_derivation(self, row: Row) -> None:
        """
        1 byte to 255 blocks can be derived; salt and info count.
        """
        most = 255 * spec(row[1]).hashes[0].digest_bytes
        handle = private(row)
        longest = handle.derive(b"salt", b"info", most)

        assert longest[:1] == handle.derive(b"salt", b"info", 1)
        assert longest[:32] != handle.derive(b"salt", b"", 32)
        assert longest[:32] != handle.derive(b"", b"info", 32)
        for size in (-1, 0, most + 1):
            with pytest.raises(InputSizeError) as caught:
                handle.derive(b"", b"", size)
            facts = caught.value.facts
            assert ("length", most) == (facts["field"], facts["maximum"])


class TestClassical:
    @pytest.mark.parametrize(
        "row",
        [r for r in rows(Family.ECDSA, Family.ECDH) if spec(r[1]).shared_secret_bytes],
        ids=label,
    )
    def test_agreement(self, row: Row) -> None:
        """
        Only keys of the same curve agree, and never on zeros.
        """
        handle = private(row)
        others = [r for r in rows(Family.ECDSA, Family.ECDH) if r[1] is not row[1]]
        wrong = [
            b"",
            handle.public_der()[:-1],
            *(public(r).public_der() for r in others),
        ]
        if row[1] is Algorithm.X25519:
            start = handle.public_der()[:-32]
            wrong += [start + bytes.fromhex(point) for point in LOW_ORDER]

        for peer in wrong:
            with pytest.raises(InvalidInputError) as caught:
                handle.agree(peer)
            assert "peer_public_key" == caught.value.facts["field"]

    @pytest.mark.parametrize("row", rows(Family.RSA), ids=label)
    @pytest.mark.parametrize("hashed", HashAlgorithm)
    @pytest.mark.parametrize("mgf_hash", HashAlgorithm)
    def test_oaep(
        self, row: Row, hashed: HashAlgorithm, mgf_hash: HashAlgorithm
    ) -> None:
        """
        What RSA encrypts it decrypts, up to the limit, and nothing that was changed.
        """
        oaep = OAEPParameters(hash=hashed, mgf_hash=mgf_hash, label=b"label")
        size = spec(row[1]).modulus_bits // 8
        most = size - 2 * hashed.digest_bytes - 2
        ciphertext = b""
        for plaintext in (b"", b"secret", bytes(most)):
            ciphertext = public(row).encrypt(plaintext, oaep)
            assert size == len(ciphertext)
            assert plaintext == private(row).decrypt(ciphertext, oaep)

        with pytest.raises(InputSizeError) as caught:
            public(row).encrypt(bytes(most + 1), oaep)
        facts = caught.value.facts
        assert ("plaintext", most) == (facts["field"], facts["maximum"])
        others = set(HashAlgorithm)
        for wrong, parameters in (
            *((bytes(length), oaep) for length in (0, 1, size - 1, size, size + 1)),
            (b"\xff" * size, oaep),
            (altered(ciphertext, -1), oaep),
            (ciphertext, replace(oaep, label=b"")),
            (ciphertext, replace(oaep, hash=min(others - {hashed}))),
            (ciphertext, replace(oaep, mgf_hash=min(others - {mgf_hash}))),
        ):
            with pytest.raises(DecryptionError) as refused:
                private(row).decrypt(wrong, parameters)
            assert {} == refused.value.facts


Pair = tuple[Row, Row]

PAIRS = [
    (one, other)
    for one in ROWS
    for other in ROWS
    if one != other and one[1] is other[1]
]
"""Every ordered pair of providers of one algorithm."""


def pair_label(value: object) -> str | None:
    """Return a readable id of a pair."""
    if isinstance(value, tuple):
        (one, algorithm), (other, _) = value
        return f"{algorithm}-{one}-{other}"
    return None


def pairs(*, is_kem: bool) -> list[Pair]:
    """Return the pairs of KEMs, or of signatures that are made here."""
    return [
        (one, other)
        for one, other in PAIRS
        if ALGORITHMS[one[1]].is_kem is is_kem and (is_kem or one in SIGNING)
    ]


@pytest.mark.parametrize("pair", PAIRS, ids=pair_label)
def test_same_key(pair: Pair) -> None:
    """Material of one provider is the same key to the other, and works there."""
    one, other = pair
    provider = PROVIDERS[other[0]]
    if not keeps_seeds(*other):
        with pytest.raises(AlgorithmUnavailableError, match="stored as a seed"):
            provider.load(other[1], material(one))
        return
    loaded = provider.load(other[1], material(one))

    assert private(one).public_der() == loaded.public_der()
    if is_prompt(other):
        flow(loaded)


@pytest.mark.parametrize("pair", pairs(is_kem=False), ids=pair_label)
def test_signed_here_verified_there(pair: Pair) -> None:
    """A signature of one provider verifies with the other."""
    one, other = pair
    verifier = PROVIDERS[other[0]].load_public(other[1], private(one).public_der())

    verifier.verify(MESSAGE, signature(one), signature_parameters(one[1]))


@pytest.mark.parametrize(
    "pair",
    [p for p in pairs(is_kem=False) if is_prompt(p[0])],
    ids=pair_label,
)
def test_with_context(pair: Pair) -> None:
    """So does one with the longest context."""
    one, other = pair
    parameters = signature_parameters(one[1], context=bytes(range(255)))
    made = private(one).sign(MESSAGE, parameters)
    verifier = PROVIDERS[other[0]].load_public(other[1], private(one).public_der())

    verifier.verify(MESSAGE, made, parameters)


@pytest.mark.parametrize("pair", pairs(is_kem=True), ids=pair_label)
def test_encapsulated_there_decapsulated_here(pair: Pair) -> None:
    """What the other provider encapsulates to a public key, its owner finds."""
    one, other = pair
    sender = PROVIDERS[other[0]].load_public(other[1], private(one).public_der())
    secret, ciphertext = sender.encapsulate()

    assert secret == private(one).decapsulate(ciphertext)


@pytest.mark.parametrize(
    "pair", [p for p in pairs(is_kem=True) if keeps_seeds(*p[1])], ids=pair_label
)
def test_same_rejection(pair: Pair) -> None:
    """Both reject a changed encapsulation with the same secret."""
    one, other = pair
    _, ciphertext = private(one).encapsulate()
    changed = altered(ciphertext, -1)
    loaded = PROVIDERS[other[0]].load(other[1], material(one))

    assert private(one).decapsulate(changed) == loaded.decapsulate(changed)

# SPDX-License-Identifier: MIT
"""KEM keys: Encapsulate, Decapsulate, Seal and Open."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core import errors, primitives
from hsm_core.algorithms import ALGORITHMS, Algorithm, KeyUsage
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import KEMS, facts_of, require_algorithm, session_of

KEM = Algorithm.ML_KEM_768
HYBRID = Algorithm.MLKEM768_X25519_SHA3_256


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


@pytest.fixture(scope="module")
def kem_key(session: Session) -> str:
    """Give the id of an ML-KEM-768 key."""
    return session.create_key(KEM).key_id


class TestEncapsulation:
    @pytest.mark.parametrize("algorithm", KEMS)
    def test_both_find_the_secret(self, session: Session, algorithm: Algorithm) -> None:
        """What is encapsulated, here or outside, is what decapsulation finds."""
        require_algorithm(session, algorithm)
        row, key = ALGORITHMS[algorithm], session.create_key(algorithm).key_id

        inside = session.encapsulate(key)
        outside = primitives.encapsulate(algorithm, session.public_key(key).der)

        assert row.ciphertext_bytes == len(inside.ciphertext)
        assert 32 == len(inside.shared_secret)
        assert algorithm is inside.algorithm
        for made in (inside, outside):
            assert made.shared_secret == session.decapsulate(key, made.ciphertext)

    @pytest.mark.parametrize("algorithm", KEMS)
    @pytest.mark.parametrize("surplus", [-1, 1])
    def test_other_lengths(
        self, session: Session, algorithm: Algorithm, surplus: int
    ) -> None:
        """An encapsulation of another length is refused with the right one."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id
        size = ALGORITHMS[algorithm].ciphertext_bytes

        with pytest.raises(errors.InputSizeError) as caught:
            session.decapsulate(key, bytes(size + surplus))

        assert ("ciphertext", size, size) == facts_of(caught)

    def test_implicit_rejection(self, session: Session, kem_key: str) -> None:
        """A changed encapsulation gives another secret, always the same, no error."""
        made = session.encapsulate(kem_key)
        changed = bytes([made.ciphertext[0] ^ 1]) + made.ciphertext[1:]

        found = {session.decapsulate(kem_key, changed) for _ in range(2)}

        assert 1 == len(found)
        assert made.shared_secret not in found

    def test_old_versions_decapsulate_when_named(self, session: Session) -> None:
        """A retired version still decapsulates; nothing new is made for it."""
        key = session.create_key(KEM).key_id
        made = session.encapsulate(key)
        session.rotate(key)

        assert made.shared_secret == session.decapsulate(
            key, made.ciphertext, version=1
        )
        assert made.shared_secret != session.decapsulate(key, made.ciphertext)
        assert 2 == session.encapsulate(key).version

    def test_missing_and_revoked_versions(self, session: Session) -> None:
        """A version that is not there, or compromised, decapsulates nothing."""
        key = session.create_key(KEM).key_id
        made = session.encapsulate(key)
        session.rotate(key)
        session.revoke(key, version=1)

        with pytest.raises(errors.KeyNotFoundError):
            session.decapsulate(key, made.ciphertext, version=3)
        with pytest.raises(errors.KeyStateError):
            session.decapsulate(key, made.ciphertext, version=1)


class TestSealing:
    def test_old_messages_open_after_rotations(self, session: Session) -> None:
        """A sealed message names its version."""
        key, sealed = session.create_key(HYBRID).key_id, []
        for number in range(3):
            sealed.append(session.seal(key, b"v%d" % number))
            session.rotate(key)

        opened = [session.open(key, message) for message in sealed]

        assert [b"v0", b"v1", b"v2"] == opened

    def test_every_failure_is_the_same(self, session: Session, kem_key: str) -> None:
        """Whatever is wrong with a message, the answer is one and the same."""
        other = session.create_key(KEM).key_id
        good = session.seal(kem_key, b"secret", b"aad")
        answers = set()

        for message, aad in (
            (good, b"other"),
            (good[:-1], b"aad"),
            (good[:100], b"aad"),
            (good[:28], b"aad"),
            (b"", b"aad"),
            (bytes([good[0] ^ 1]) + good[1:], b"aad"),
            (good[:25] + b"\x09" + good[26:], b"aad"),
            (good[:28] + bytes([good[28] ^ 1]) + good[29:], b"aad"),
            (session.seal(other, b"secret", b"aad"), b"aad"),
        ):
            with pytest.raises(errors.DecryptionError) as caught:
                session.open(kem_key, message, aad)
            answers.add((str(caught.value), tuple(caught.value.facts)))

        assert 1 == len(answers)

    def test_a_point_that_is_none(self, session: Session) -> None:
        """A hybrid's traditional half that is no public key is not told apart."""
        key = session.create_key(HYBRID).key_id
        sealed = session.seal(key, b"secret")
        start = 28 + ALGORITHMS[KEM].ciphertext_bytes
        zeros = sealed[:start] + bytes(32) + sealed[start + 32 :]

        with pytest.raises(errors.DecryptionError):
            session.open(key, zeros)

    @settings(max_examples=40)
    @given(position=st.integers(min_value=0), bit=st.integers(0, 7))
    def test_any_flipped_bit(
        self, session: Session, kem_key: str, position: int, bit: int
    ) -> None:
        """No bit of a message can be changed unnoticed."""
        sealed = bytearray(session.seal(kem_key, b"secret"))
        sealed[position % len(sealed)] ^= 1 << bit

        with pytest.raises(errors.DecryptionError):
            session.open(kem_key, bytes(sealed))

    def test_aad_has_a_limit(self, session: Session, kem_key: str) -> None:
        """Additional data above 64 KiB is refused with the limit."""
        for use in (session.seal, session.open):
            with pytest.raises(errors.PayloadTooLargeError) as caught:
                use(kem_key, b"m", bytes(65537))
            assert ("aad", 0, 65536) == facts_of(caught)


class TestOtherKeys:
    def test_encrypt_points_to_seal(self, session: Session, kem_key: str) -> None:
        """A KEM key asked to encrypt or decrypt says what it has instead."""
        with pytest.raises(errors.UnsupportedOperationError, match="use Seal") as one:
            session.encrypt(kem_key, b"m")
        with pytest.raises(errors.UnsupportedOperationError, match="use Open") as two:
            session.decrypt(kem_key, b"m")

        assert ["key_id"] * 2 == [facts_of(one)[0], facts_of(two)[0]]

    def test_seal_points_to_encrypt(self, session: Session) -> None:
        """A symmetric key asked to seal or open says what it has instead."""
        key = session.create_key("aes").key_id

        with pytest.raises(errors.UnsupportedOperationError, match="use Encrypt"):
            session.seal(key, b"m")
        with pytest.raises(errors.UnsupportedOperationError, match="use Decrypt"):
            session.open(key, b"m")

    @pytest.mark.parametrize("algorithm", [KEM, HYBRID])
    def test_a_kem_key_asked_to_sign(
        self, session: Session, algorithm: Algorithm
    ) -> None:
        """A KEM key signs nothing, and the message names algorithm and usages."""
        key = session.create_key(algorithm).key_id

        with pytest.raises(
            errors.KeyUsageError, match=f"{algorithm} key.*to sign"
        ) as c:
            session.sign(key, b"m")

        assert ("sign", "key_id") == (c.value.facts["usage"], c.value.facts["field"])

    def test_usages_are_enforced(self, session: Session) -> None:
        """A key that only encapsulates does not decapsulate, seal or open."""
        key = session.create_key(KEM, usages=[KeyUsage.ENCAPSULATE]).key_id
        made = session.encapsulate(key)

        uses: list[Callable[[], bytes]] = [
            lambda: session.decapsulate(key, made.ciphertext),
            lambda: session.seal(key, b"m"),
            lambda: session.open(key, b"m"),
        ]
        for use in uses:
            with pytest.raises(errors.KeyUsageError):
                use()

    def test_a_signature_key_encapsulates_nothing(self, session: Session) -> None:
        """An ML-DSA key is no KEM key."""
        key = session.create_key("ML-DSA-44").key_id

        with pytest.raises(errors.KeyUsageError):
            session.encapsulate(key)


class TestTrail:
    def test_no_secret_is_recorded(self, session: Session, kem_key: str) -> None:
        """The trail knows lengths, and no secret."""
        made = session.encapsulate(kem_key)
        session.decapsulate(kem_key, made.ciphertext)
        sealed = session.seal(kem_key, b"plaintext")
        session.open(kem_key, sealed)

        events = [e.event for e in session.audit_events(key_id=kem_key)][:4]

        assert [
            ("Open", {"ciphertext_bytes": len(sealed)}),
            ("Seal", {"plaintext_bytes": 9}),
            ("Decapsulate", {"ciphertext_bytes": 1088}),
            ("Encapsulate", {}),
        ] == [(event.kind, event.parameters) for event in events]

    def test_secrets_are_not_shown(self, session: Session, kem_key: str) -> None:
        """Results hide their secrets when they are printed."""
        made = session.encapsulate(kem_key)

        assert made.shared_secret.hex() not in repr(made)
        assert repr(made.shared_secret) not in repr(made)

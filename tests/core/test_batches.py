# SPDX-License-Identifier: MIT
"""Batches: each item is answered for itself, in order, and recorded together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.handlers.base import Speed
from hsm_core._internal.pipeline.pipeline import Pipeline
from hsm_core.algorithms import Algorithm, HashAlgorithm, KeyUsage
from hsm_core.factory import OpenHSM
from hsm_core.model import BatchDetail, Role
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.core.hsm_support import require_algorithm


@pytest.fixture
def hsm(gateway: OpenHSM) -> HSM:
    """Give that HSM for somebody who may do everything that is tested here."""
    return gateway.act_as(caller(Role.ADMINISTRATOR, Role.OPERATOR))


@pytest.fixture
def session(hsm: HSM) -> Session:
    """Give the same with methods."""
    return Session(hsm)


def record_of(session: Session, key_id: str, kind: str) -> tuple[str, int, BatchDetail]:
    """Return code, version and detail of the one record of a kind."""
    (event,) = (
        entry.event
        for entry in session.audit_events(key_id=key_id)
        if entry.event.kind == kind
    )
    assert isinstance(event.detail, BatchDetail)
    return event.code, event.version, event.detail


class TestFaultsOfItems:
    def test_decryption_that_was_repeated(self, session: Session) -> None:
        """
        An altered ciphertext and one of an older version are answered as at first.
        """
        key = session.create_key("aes").key_id
        old = session.encrypt(key, b"old")
        session.rotate(key)
        good = [session.encrypt(key, b"%d" % number) for number in range(3)]
        for _ in range(3):
            session.decrypt_batch(key, [ops.DecryptItem(ciphertext=c) for c in good])

        altered = good[1][:-1] + bytes([good[1][-1] ^ 1])
        for _ in range(2):
            given = [good[0], altered, old, good[2][:40]]
            opened = session.decrypt_batch(
                key, [ops.DecryptItem(ciphertext=c) for c in given]
            )
            assert [(2, b"0"), (0, b""), (1, b"old"), (0, b"")] == [
                (item.version, item.plaintext) for item in opened.items
            ]
            assert ["", "decryption_failed", "", "decryption_failed"] == [
                item.error.code if item.error else "" for item in opened.items
            ]

    def test_one_bad_item(self, session: Session) -> None:
        """
        An item that breaks a rule has its own error; the others are answered.
        """
        key = session.create_key("p256").key_id
        signed = session.sign_batch(
            key,
            [
                ops.SignItem(reference="good", message=b"m"),
                ops.SignItem(reference="both", message=b"m", digest=bytes(32)),
                ops.SignItem(reference="short", digest=bytes(31)),
                ops.SignItem(reference="none"),
                ops.SignItem(reference="digest", digest=bytes(32)),
            ],
        )

        codes = [item.error.code if item.error else "" for item in signed.items]
        assert ["", "invalid_input", "input_size", "invalid_input", ""] == codes
        assert all(
            bool(item.signature) is (item.error is None) for item in signed.items
        )
        assert signed.items[2].error is not None
        assert "digest must be 32 bytes, got 31." == signed.items[2].error.detail
        assert 2 == session.describe(key).use.uses  # type: ignore[union-attr]

    @pytest.mark.parametrize("length", [0, 63])
    def test_a_short_mu(self, session: Session, length: int) -> None:
        """A mu of another length is its item's fault, as a digest is."""
        key = session.create_key("ml-dsa-44").key_id
        items = (ops.SignItem(mu=bytes(64)), ops.SignItem(mu=bytes(length)))

        good, bad = session.sign_batch(key, items).items

        assert good.error is None
        assert bad.error is not None
        assert ("input_size", b"") == (bad.error.code, bad.signature)

    def test_versions_that_are_gone(self, session: Session) -> None:
        """
        An envelope of a revoked version, of none or of another key is its item's fault.
        """
        key, other = (session.create_key("aes").key_id for _ in range(2))
        old = session.encrypt(key, b"old")
        session.rotate(key)
        session.revoke(key, version=1)
        new = session.encrypt(key, b"new")
        foreign = session.encrypt(other, b"foreign")

        opened = session.decrypt_batch(
            key, [ops.DecryptItem(ciphertext=one) for one in (old, new, foreign, b"")]
        )

        codes = [item.error.code if item.error else "" for item in opened.items]
        assert ["wrong_state", "", *["decryption_failed"] * 2] == codes
        assert [b"", b"new", b"", b""] == [item.plaintext for item in opened.items]


class TestFaultsOfTheWhole:
    def test_usage(self, session: Session) -> None:
        """
        A key that may not be used so refuses the batch.
        """
        key = session.create_key("aes", usages=[KeyUsage.DECRYPT]).key_id
        with pytest.raises(errors.KeyUsageError):
            session.encrypt_batch(key, [ops.EncryptItem(plaintext=b"m")])

    def test_state(self, session: Session) -> None:
        """
        A revoked key refuses the batch.
        """
        key = session.create_key("ed25519").key_id
        session.revoke(key)
        with pytest.raises(errors.KeyStateError):
            session.sign_batch(key, [ops.SignItem(message=b"m")])

    def test_parameters_of_all(self, session: Session) -> None:
        """
        A parameter that all items share refuses the batch, not each of them.
        """
        key = session.create_key("p256").key_id
        with pytest.raises(errors.UnsupportedOperationError) as caught:
            session.sign_batch(
                key, [ops.SignItem(message=b"m")], hash=HashAlgorithm.SHA_512
            )
        assert "hash" == caught.value.facts["field"]
        with pytest.raises(errors.KeyNotFoundError):
            session.verify_batch(
                key, [ops.VerifyItem(message=b"m", signature=b"s")], version=9
            )

    def test_a_kem_key(self, session: Session) -> None:
        """
        A key that has another operation for this is not an item's fault.
        """
        key = session.create_key("ml-kem-768").key_id
        with pytest.raises(errors.UnsupportedOperationError, match="Seal"):
            session.encrypt_batch(key, [ops.EncryptItem(plaintext=b"m")])

    def test_a_stopped_algorithm(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        An algorithm that is not to be used refuses the batch.
        """
        key = session.create_key("ed25519").key_id

        def require(self: CryptoRegistry, algorithm: Algorithm) -> None:
            raise errors.SelfTestFailedError

        monkeypatch.setattr(CryptoRegistry, "require", require)
        with pytest.raises(errors.SelfTestFailedError):
            session.sign_batch(key, [ops.SignItem(message=b"m")])

    def test_the_use_limit(self) -> None:
        """
        A batch that is larger than what is left is refused, and takes nothing.
        """
        with memory_hsm(use_limit=5) as gateway:
            session = Session(gateway.act_as(caller()))
            key = session.create_key("aes").key_id
            items = [ops.EncryptItem(plaintext=b"m")] * 6
            with pytest.raises(errors.UseLimitError):
                session.encrypt_batch(key, items)

            session.encrypt_batch(key, items[:5])
            assert 5 == session.describe(key).use.uses  # type: ignore[union-attr]

    def test_the_total(self, session: Session, gateway: OpenHSM) -> None:
        """
        All items together are bound by the limit of one payload, and the error says so.
        """
        key = session.create_key("hmac-sha-256").key_id
        limit = gateway._services.settings.limits.payload_bytes  # noqa: SLF001 (64 MiB)
        half = bytes(limit // 2)
        whole = [ops.MacInput(message=half), ops.MacInput(message=half)]
        assert 2 == len(session.mac_batch(key, whole).items)

        with pytest.raises(errors.PayloadTooLargeError, match="items") as caught:
            session.mac_batch(key, [*whole, ops.MacInput(message=b"m")])

        assert "items" == caught.value.facts["field"]
        assert (limit + 1, limit) == (
            caught.value.facts["actual"],
            caught.value.facts["maximum"],
        )

    @pytest.mark.parametrize("count", [0, 1001])
    def test_the_number(self, session: Session, count: int) -> None:
        """
        A batch has 1 to 1,000 items.
        """
        key = session.create_key("ed25519").key_id
        with pytest.raises(errors.InvalidInputError):
            session.sign_batch(key, [ops.SignItem(message=b"m")] * count)

    def test_the_number_of_slow_ones(self, session: Session) -> None:
        """A batch that would take minutes is refused before it begins."""
        require_algorithm(session, Algorithm.SLH_DSA_SHA2_128F)
        key = session.create_key("slh-dsa-sha2-128f").key_id
        items = (ops.SignItem(message=b""),) * 101

        with pytest.raises(errors.InputSizeError, match="100") as caught:
            session.sign_batch(key, items)
        checks = (ops.VerifyItem(message=b"", signature=b""),) * 101
        checked = session.verify_batch(key, checks)

        assert "items" == caught.value.facts["field"]
        assert 101 == len(checked.items)

    def test_the_number_of_slow_ones_when_repeated(self, session: Session) -> None:
        """A shorter batch before it changes nothing."""
        require_algorithm(session, Algorithm.SLH_DSA_SHA2_128F)
        key = session.create_key("slh-dsa-sha2-128f").key_id
        session.sign_batch(key, [ops.SignItem(message=b"")])

        with pytest.raises(errors.InputSizeError, match="100"):
            session.sign_batch(key, [ops.SignItem(message=b"")] * 101)

    def test_an_item_of_a_wrong_type_when_repeated(self, session: Session) -> None:
        """What is no byte string is none after a good batch, too."""
        key = session.create_key("aes-256-gcm").key_id
        bad: Any = None
        session.encrypt_batch(key, [ops.EncryptItem(plaintext=b"m")])

        with pytest.raises(errors.InvalidInputError, match="aad"):
            session.encrypt_batch(key, [ops.EncryptItem(plaintext=b"m", aad=bad)])

    def test_one_pass_through_policy(self, session: Session, gateway: OpenHSM) -> None:
        """
        Who may not use the key is refused once, for the whole batch.
        """
        key = session.create_key("ed25519").key_id
        auditor = Session(gateway.act_as(caller(Role.AUDITOR)))
        with pytest.raises(errors.AccessDeniedError):
            auditor.sign_batch(key, [ops.SignItem(message=b"m")] * 3)

        denied = [
            entry.event
            for entry in session.audit_events(key_id=key)
            if entry.event.kind == "SignBatch"
        ]
        assert ["access_denied"] == [event.code for event in denied]


class TestRecord:
    def test_what_is_recorded(self, session: Session, gateway: OpenHSM) -> None:
        """
        One record tells how many items, and how many failed.
        """
        key = session.create_key("aes").key_id
        good = session.encrypt(key, b"secret text")
        items = (
            ops.DecryptItem(reference="one", ciphertext=good),
            ops.DecryptItem(reference="two", ciphertext=b"bad"),
        )
        session.decrypt_batch(key, items)

        code, version, detail = record_of(session, key, "DecryptBatch")
        assert BatchDetail(count=2, failed=1) == detail
        assert ("ok", 1) == (code, version)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20))
def test_round_trip(hsm: HSM, texts: list[bytes]) -> None:
    """
    Whatever is encrypted together is decrypted together, in any other order.
    """
    session = Session(hsm)
    key = session.create_key("chacha20-poly1305").key_id
    sealed = session.encrypt_batch(
        key,
        [
            ops.EncryptItem(reference=str(number), plaintext=text, aad=text[:3])
            for number, text in enumerate(texts)
        ],
    ).items
    shuffled = sorted(sealed, key=lambda item: item.ciphertext[-8:])
    opened = session.decrypt_batch(
        key,
        [
            ops.DecryptItem(
                reference=item.reference,
                ciphertext=item.ciphertext,
                aad=texts[int(item.reference)][:3],
            )
            for item in shuffled
        ],
    ).items

    assert [item.reference for item in shuffled] == [item.reference for item in opened]
    assert [texts[int(item.reference)] for item in opened] == [
        item.plaintext for item in opened
    ]


def test_what_is_quick(session: Session, gateway: OpenHSM) -> None:
    """
    A small batch of a fast algorithm is computed at once; others go to the pools.
    """
    pipeline: Pipeline = gateway._pipeline  # noqa: SLF001 (is asked directly)
    sign = [ops.SignItem(message=b"m")]
    long = ops.SignItem(message=bytes(70_000))
    quick = {}
    for algorithm, items in itertools.product(
        ("ed25519", "rsa2048", "ml-dsa-44"), (sign * 8, sign * 9, [long])
    ):
        key = session.create_key(algorithm).key_id
        batch = ops.SignBatch(key_id=key, items=tuple(items))
        quick[algorithm, len(items)] = pipeline.speed_of(batch) is Speed.QUICK

    assert [("ed25519", 8)] == [which for which, is_quick in quick.items() if is_quick]

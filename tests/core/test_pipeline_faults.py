# SPDX-License-Identifier: MIT
"""What the pipeline does when store or trail fail: closed, and honest about it."""

from __future__ import annotations

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.session import Session
from hsm_core.testing import Faults, caller, memory_hsm
from tests.core.hsm_support import memory_session

NO_TRAIL = errors.AuditUnavailableError()


class TestTrailFails:
    @pytest.mark.parametrize(
        "operation",
        [
            ops.Decrypt(key_id="aes", ciphertext=b""),
            ops.Encrypt(key_id="aes", plaintext=b"secret"),
            ops.Sign(key_id="ed", message=b"m"),
            ops.GenerateRandom(length=32),
            ops.ListAuditEvents(),
            ops.RotateKey(key_id="ed"),
            ops.DestroyKey(key_id="ed"),
            ops.DestroyKey(key_id="ed", waiting_days=3),
            ops.UpdateKey(key_id="ed", name="other"),
            ops.CreateKey(algorithm="aes"),
        ],
        ids=lambda operation: type(operation).__name__,
    )
    def test_nothing_is_answered_and_nothing_is_done(
        self, operation: ops.Operation[object]
    ) -> None:
        """Without a trail there is no secret and no change, only one clear error."""
        faults = Faults()
        with memory_hsm(faults=faults) as gateway:
            hsm = gateway.act_as(caller())
            session = Session(hsm)
            before = {session.create_key("aes", name="aes").key_id: 1}
            before[session.create_key("ed25519", name="ed").key_id] = 1
            faults.plan("audit.append", NO_TRAIL, times=1000)

            with pytest.raises(errors.AuditUnavailableError):
                hsm.execute(operation)

            faults.clear()
            assert before == {k.key_id: k.generation for k in session.keys()}

    def test_public_facts_are_still_told(self) -> None:
        """Reads that are not recorded go on while the trail is away."""
        faults = Faults()
        with memory_session(faults=faults) as session:
            key = session.create_key("ed25519").key_id
            faults.plan("audit.append", NO_TRAIL, times=1000)

            assert key == session.describe(key).key_id
            assert session.public_key(key).der

            faults.clear()

    def test_outcome_unknown(self) -> None:
        """
        A change that was stored but not recorded is not acknowledged.

        The same request with the same idempotency key finds it later and records it,
        without doing it twice.
        """
        faults = Faults()
        with memory_session(faults=faults) as session:
            faults.plan("audit.append.outcome", NO_TRAIL, times=2)

            with pytest.raises(errors.OutcomeUnknownError) as first:
                session.create_key("ed25519", name="k", idempotency_key="once")
            with pytest.raises(errors.OutcomeUnknownError) as second:
                session.create_key("ed25519", name="k", idempotency_key="once")
            found = session.create_key("ed25519", name="k", idempotency_key="once")

            operation_id = first.value.facts["operation_id"]
            outcomes = [
                entry.event
                for entry in session.audit_events(limit=100)
                if entry.event.phase == "outcome"
            ]
            assert operation_id == second.value.facts["operation_id"]
            assert [operation_id] == [event.operation_id for event in outcomes]
            assert [found.key_id] == [key.key_id for key in session.keys()]


class TestStoreFails:
    @pytest.mark.parametrize(
        "error",
        [errors.StorageFullError(), errors.StoreUnavailableError()],
        ids=lambda error: error.code,
    )
    def test_a_failed_commit_has_its_outcome(self, error: errors.HSMError) -> None:
        """The intent of a change that the store refused is closed with the code."""
        faults = Faults()
        with memory_session(faults=faults) as session:
            faults.plan("store.commit", error)

            with pytest.raises(type(error)):
                session.create_key("ed25519", name="k")

            outcome, intent = (e.event for e in session.audit_events(limit=3)[:2])
            assert ("outcome", "intent") == (outcome.phase, intent.phase)
            assert (error.code, intent.operation_id) == (
                outcome.code,
                outcome.operation_id,
            )
            assert "k" == session.create_key("ed25519", name="k").name

    def test_a_counter_that_cannot_be_stored_has_its_outcome(self) -> None:
        """A key without its first use counter is not made, and the trail says so."""
        faults = Faults()
        with memory_session(faults=faults) as session:
            faults.plan("counters.put", errors.StorageFullError())

            with pytest.raises(errors.StorageFullError):
                session.create_key("AES-256-GCM", name="k")

            outcome, intent = (e.event for e in session.audit_events(limit=3)[:2])
            assert ("outcome", "intent") == (outcome.phase, intent.phase)
            assert (errors.StorageFullError.code, intent.operation_id) == (
                outcome.code,
                outcome.operation_id,
            )
            assert [] == list(session.keys())
            assert "k" == session.create_key("AES-256-GCM", name="k").name

    def test_an_unknown_commit_leaves_the_intent_open(self) -> None:
        """If the store itself does not know, the trail does not pretend to."""
        faults = Faults()
        with memory_session(faults=faults) as session:
            faults.plan("store.commit", errors.OutcomeUnknownError("Lost."))

            with pytest.raises(errors.OutcomeUnknownError):
                session.create_key("ed25519")

            newest = session.audit_events(limit=2)[0].event
            assert ("intent", "CreateKey") == (newest.phase, newest.kind)

    def test_an_unreadable_store_is_not_a_missing_key(self) -> None:
        """EIO is 'unavailable', never 'not found'."""
        faults = Faults()
        with memory_session(faults=faults) as session:
            key = session.create_key("ed25519").key_id
            faults.plan("store.entry", errors.StoreUnavailableError())

            with pytest.raises(errors.StoreUnavailableError):
                session.sign(key, b"m")

    def test_unexpected_exceptions_are_recorded_and_not_hidden(self) -> None:
        """A bug is recorded as internal and raised as it is."""
        faults = Faults()
        with memory_session(faults=faults) as session:
            key = session.create_key("ed25519").key_id
            faults.plan("store.get_blob", ZeroDivisionError())

            with pytest.raises(ZeroDivisionError):
                session.sign(key, b"m")

            newest = session.audit_events(limit=1)[0].event
            assert ("Sign", "internal") == (newest.kind, newest.code)


class TestDeadlines:
    def test_a_late_request_is_not_begun(self) -> None:
        """A request that waited past its deadline does nothing."""
        with memory_hsm() as gateway:
            late = ops.CreateKey(algorithm="ed25519")
            hsm = gateway.act_as(
                type(caller())(principal="p", roles=caller().roles, deadline=0.000_001)
            )

            with pytest.raises(errors.DeadlineExceededError):
                hsm.execute(late)

            assert [] == list(Session(gateway.act_as(caller())).keys())

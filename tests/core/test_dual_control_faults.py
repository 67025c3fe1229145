# SPDX-License-Identifier: MIT
"""Approvals while store or trail fail: never used twice, never lost, healed later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Phase
from hsm_core.protocols import ApprovalChange
from hsm_core.testing import Faults
from tests.core.dual_support import (
    TWO_PEOPLE,
    DemandingPolicy,
    agreed,
    approve,
    ask,
    dual_hsm,
    ed25519,
    events_of,
    person,
    sign,
)

S = ApprovalState


class FailingStore(MemoryApprovalStore):
    """
    A store in memory that refuses to make some states, or does not say it made them.

    Attributes:
        refused: What is refused.
        unknown: What is made, and then not acknowledged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[ApprovalState] = set()
        self.unknown: set[ApprovalState] = set()

    def commit(self, change: ApprovalChange, /) -> None:
        """Make a change, or fail."""
        if change.entry.state in self.refused:
            raise errors.StoreUnavailableError
        super().commit(change)
        if change.entry.state in self.unknown:
            raise errors.OutcomeUnknownError("a test", operation_id="x")


def heal(gateway: OpenHSM) -> None:
    """Do what is done every second."""
    gateway._maintenance.heal_approvals()  # noqa: SLF001 (not wait for it)


def state(gateway: OpenHSM, asked: ops.ApprovalInfo) -> ApprovalState:
    """Return where an approval stands."""
    get = ops.GetApproval(approval_id=asked.approval_id)
    return person(gateway, "onlooker").execute(get).state


def done(gateway: OpenHSM) -> int:
    """Return how many signatures are on record as made."""
    return len(events_of(gateway, lambda e: e.kind == "Sign" and e.code == "ok"))


@pytest.mark.parametrize("unknown", [False, True], ids=["refused", "unknown"])
def test_use_that_can_not_be_written(*, unknown: bool) -> None:
    """What was done is answered; until its use is written down nobody uses it again."""
    store, policy = FailingStore(), DemandingPolicy(Sign=TWO_PEOPLE)
    with dual_hsm(policy, approvals=store) as gateway:
        ann, key, asked = agreed(gateway)
        failing = store.unknown if unknown else store.refused
        failing.add(S.CONSUMED)

        assert ann.execute(sign(key)).signature
        with pytest.raises((errors.ApprovalRequiredError, errors.ConflictError)):
            ann.execute(sign(key), approval_id=asked.approval_id)
        failing.clear()
        heal(gateway)
        heal(gateway)

        assert S.CONSUMED is state(gateway, asked)
        assert 1 == done(gateway)
        status = ann.execute(ops.Status()).approvals
        assert (0, True) == (status.findings, status.available)


def test_grant_that_is_not_acknowledged() -> None:
    """A grant whose store did not answer is found out, and then on record."""
    store, policy = FailingStore(), DemandingPolicy(Sign=TWO_PEOPLE)
    with dual_hsm(policy, approvals=store) as gateway:
        ann, key = person(gateway, "ann"), ed25519(gateway)
        asked = ask(ann, sign(key))
        store.unknown.add(S.GRANTED)
        with pytest.raises(errors.OutcomeUnknownError):
            approve(person(gateway, "bob"), asked)
        store.unknown.clear()
        heal(gateway)

        assert S.GRANTED is state(gateway, asked)
        told = events_of(
            gateway, lambda e: e.kind == "Approve" and e.phase is Phase.OUTCOME
        )
        assert ["ok"] == [event.code for event in told]
        assert ann.execute(sign(key)).signature


@pytest.mark.parametrize("made", [True, False], ids=["made", "not-made"])
def test_refused_repetition_of_an_unknown_change(*, made: bool) -> None:
    """It frees no approval: that is used up, or given back, when the store is read."""
    faults, policy = Faults(), DemandingPolicy(RotateKey=TWO_PEOPLE)
    with dual_hsm(policy, faults=faults) as gateway:
        ann = person(gateway, "ann")
        rotate = ops.RotateKey(key_id=ed25519(gateway))
        asked = ask(ann, rotate)
        approve(person(gateway, "bob"), asked)
        desk = gateway.desk
        faults.plan("store.reopen", errors.StoreUnavailableError(), times=1000)
        faults.plan_unknown_commit(made=made)
        with pytest.raises(errors.OutcomeUnknownError):
            ann.execute(rotate, idempotency_key="once")
        with pytest.raises(errors.StoreUnavailableError):
            ann.execute(rotate, idempotency_key="once")
        heal(gateway)

        assert S.RESERVED is desk.state_of(asked.approval_id).state

        faults.plan("store.reopen", errors.StoreUnavailableError(), times=0)
        expected: AbstractContextManager[object] = nullcontext()
        if not made:
            expected = pytest.raises(errors.OperationAbortedError)
        with expected:
            ann.execute(rotate, idempotency_key="once")
        heal(gateway)

        wanted = S.CONSUMED if made else S.GRANTED
        assert wanted is desk.state_of(asked.approval_id).state


def test_repetition_before_its_approval_is_free() -> None:
    """Nobody is asked for another approval: it waits, and then it is not known."""
    faults, store = Faults(), FailingStore()
    policy = DemandingPolicy(RotateKey=TWO_PEOPLE)
    with dual_hsm(policy, faults=faults, approvals=store) as gateway:
        ann = person(gateway, "ann")
        rotate = ops.RotateKey(key_id=ed25519(gateway))
        asked = ask(ann, rotate)
        approve(person(gateway, "bob"), asked)
        store.refused.add(S.GRANTED)
        faults.plan("store.commit", errors.StoreUnavailableError())
        with pytest.raises(errors.StoreUnavailableError):
            ann.execute(rotate, idempotency_key="once")
        with pytest.raises(errors.OutcomeUnknownError):
            ann.execute(rotate, idempotency_key="once")
        store.refused.clear()
        heal(gateway)

        assert 2 == ann.execute(rotate, idempotency_key="once").version
        assert S.CONSUMED is state(gateway, asked)


def test_reservation_tried_again_while_it_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is found out of the first try settles the first try only."""
    store, policy = FailingStore(), DemandingPolicy(RotateKey=TWO_PEOPLE)

    def fail(patch: pytest.MonkeyPatch, name: str) -> None:
        if name == "approval.before_settling":
            refused = mock.Mock(side_effect=errors.StoreUnavailableError)
            patch.setattr(store, "get", refused)

    with dual_hsm(policy, approvals=store) as gateway:
        ann = person(gateway, "ann")
        rotate = ops.RotateKey(key_id=ed25519(gateway))
        asked = ask(ann, rotate)
        approve(person(gateway, "bob"), asked)
        users: Any = gateway._maintenance._care._consents  # noqa: SLF001 (no other way)
        store.refused.add(S.RESERVED)
        with monkeypatch.context() as patch, install(lambda name: fail(patch, name)):
            with pytest.raises(errors.StoreUnavailableError):
                ann.execute(rotate, idempotency_key="once")
        held = users.held

        @contextmanager
        def late(approval_id: str) -> Iterator[None]:
            # The second try runs after the healing has looked, and before it acts.
            users.held = held
            store.refused = {S.CONSUMED}
            ann.execute(rotate, idempotency_key="once")
            store.refused = set()
            with held(approval_id):
                yield

        users.held = late
        heal(gateway)
        heal(gateway)

        assert S.CONSUMED is state(gateway, asked)


def test_trail_that_fails_before_the_request() -> None:
    """Without a trail nothing is asked; after it has healed the request is new."""
    faults, policy = Faults(), DemandingPolicy(Sign=TWO_PEOPLE)
    with dual_hsm(policy, faults=faults) as gateway:
        ann, key = person(gateway, "ann"), ed25519(gateway)
        faults.fail_trail()
        with pytest.raises(errors.AuditUnavailableError):
            ann.execute(sign(key))
        faults.heal_trail()

        assert S.PENDING is ask(ann, sign(key)).state


@pytest.mark.parametrize(
    "point", ["approval.after_intent", "approval.after_store", "approval.reserved"]
)
def test_trail_that_fails_while_it_is_used(point: str) -> None:
    """AP-08: whatever the trail can't take is made up for; it is used once, or kept."""
    faults, policy = Faults(), DemandingPolicy(Sign=TWO_PEOPLE)
    with dual_hsm(policy, faults=faults) as gateway:
        ann, key, asked = agreed(gateway)

        def fail(name: str) -> None:
            if name == point:
                faults.fail_trail()

        with install(fail), pytest.raises(errors.UnavailableError):
            ann.execute(sign(key))
        faults.heal_trail()
        heal(gateway)
        heal(gateway)

        assert 0 == done(gateway)
        assert S.GRANTED is state(gateway, asked)
        assert ann.execute(sign(key)).signature
        assert S.CONSUMED is state(gateway, asked)
        assert 0 == ann.execute(ops.Status()).approvals.findings

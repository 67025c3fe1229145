# SPDX-License-Identifier: MIT
"""Keys that the HSM rotates by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.model import KeyState, Phase, RotationRule
from hsm_core.policies import parse_policy
from hsm_core.session import Session
from hsm_core.testing import FakeClock, Faults, caller, memory_hsm
from tests.core.hsm_support import recorded

DAY = 24 * 3600


@pytest.fixture
def faults() -> Faults:
    """Give what fails when a test says so."""
    return Faults()


@pytest.fixture
def gateway(clock: FakeClock, faults: Faults) -> Iterator[OpenHSM]:
    """Give a fresh HSM in memory."""
    with memory_hsm(clock=clock, faults=faults) as opened:
        yield opened


@pytest.fixture
def session(gateway: OpenHSM) -> Session:
    """Give a session of somebody who may do everything."""
    return Session(gateway.act_as(caller()))


def look(gateway: OpenHSM) -> None:
    """Let the scheduler look at every key once."""
    gateway.schedulers.rotation.run()


def rotating(session: Session, **rule: Any) -> str:
    """Return a new key that has a rule."""
    return session.set_rotation(session.create_key("aes").key_id, **rule).key_id


class TestRule:
    def test_is_shown_and_taken_back(self, session: Session) -> None:
        """
        A key says when it is rotated, until that is taken back.
        """
        key = session.create_key("aes").key_id

        set_ = session.set_rotation(key, max_age_days=90, max_uses=1000)
        assert RotationRule(max_age_days=90, max_uses=1000) == set_.rotation
        assert (
            RotationRule(max_uses=5) == session.set_rotation(key, max_uses=5).rotation
        )
        assert session.set_rotation(key).rotation is None
        assert 4 == session.describe(key).generation

    @pytest.mark.parametrize(
        "rule",
        [
            RotationRule(max_age_days=0),
            RotationRule(max_age_days=36_501),
            RotationRule(max_uses=0),
        ],
    )
    def test_limits(self, session: Session, rule: RotationRule) -> None:
        """
        A rule that can't be meant is refused.
        """
        key = session.create_key("aes").key_id

        with pytest.raises(errors.InvalidInputError, match="max_"):
            session.set_rotation(
                key, max_age_days=rule.max_age_days, max_uses=rule.max_uses
            )

    def test_of_a_destroyed_key(self, session: Session) -> None:
        """
        There is nothing to rotate any more.
        """
        key = session.create_key("aes").key_id
        session.destroy(key)

        with pytest.raises(errors.KeyStateError, match="destroyed"):
            session.set_rotation(key, max_uses=1)


class TestAge:
    def test_due(self, gateway: OpenHSM, session: Session, clock: FakeClock) -> None:
        """
        A version is rotated when it is old enough, again and again, by the HSM's name.
        """
        key = session.create_key("aes").key_id
        sealed = [session.encrypt(key, b"m")]
        session.set_rotation(key, max_age_days=30)
        for version in range(1, 6):
            clock.advance(30 * DAY - 1)
            look(gateway)
            assert version == session.describe(key).version
            clock.advance(1)
            look(gateway)
            look(gateway)
            assert version + 1 == session.describe(key).version
            sealed.append(session.encrypt(key, b"m"))

        assert [b"m"] * 6 == [session.decrypt(key, one) for one in sealed]
        outcome = recorded(gateway, "RotateKey")[0]
        assert outcome.caller is not None
        assert ("system.rotation", Phase.OUTCOME) == (
            outcome.caller.principal,
            outcome.phase,
        )
        assert (1, 0) == (
            session.status().schedules.rotating,
            session.status().schedules.rotations_due,
        )
        session.verify_audit()

    def test_counts_from_the_activation(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        Time that a version was staged does not make it old; a rest does not renew it.
        """
        key = session.create_key("aes", staged=True).key_id
        session.set_rotation(key, max_age_days=30)
        clock.advance(29 * DAY)
        session.activate(key)
        clock.advance(29 * DAY)
        session.suspend(key)
        session.resume(key)
        look(gateway)
        assert 1 == session.describe(key).version

        clock.advance(DAY)
        look(gateway)
        assert 2 == session.describe(key).version

    @pytest.mark.parametrize("days", [40, 3650])
    def test_leaping_clock(
        self, gateway: OpenHSM, session: Session, clock: FakeClock, days: int
    ) -> None:
        """
        A clock that leaps rotates nothing; setting it right does not either.
        """
        keys = [rotating(session, max_age_days=30) for _ in range(10)]
        clock.step(days * DAY)
        look(gateway)
        assert {1} == {session.describe(key).version for key in keys}
        clock.advance(DAY)
        clock.step(-days * DAY)
        look(gateway)
        assert {1} == {session.describe(key).version for key in keys}

        clock.advance(30 * DAY)
        look(gateway)
        assert {2} == {session.describe(key).version for key in keys}


class TestUses:
    def test_due(self, gateway: OpenHSM, session: Session) -> None:
        """
        A version is rotated when its material has protected often enough.
        """
        key = rotating(session, max_uses=3)
        for uses in range(3):
            look(gateway)
            assert 1 == session.describe(key).version, uses
            session.encrypt(key, b"m")
        look(gateway)
        assert 2 == session.describe(key).version
        look(gateway)
        assert 2 == session.describe(key).version

    def test_whatever_comes_first(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        Where both limits are given, one is enough.
        """
        key = rotating(session, max_age_days=30, max_uses=1)
        session.encrypt(key, b"m")
        look(gateway)
        assert 2 == session.describe(key).version
        clock.advance(30 * DAY)
        look(gateway)
        assert 3 == session.describe(key).version


class TestNotRotated:
    def test_a_staged_version_waits(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        A key whose next version is staged counts as due, and waits for its activation.
        """
        key = rotating(session, max_age_days=1)
        session.rotate(key, staged=True)
        clock.advance(DAY)
        records = session.status().audit.head_seq
        look(gateway)

        assert 1 == session.status().schedules.rotations_due
        assert records == session.status().audit.head_seq
        session.activate(key)
        look(gateway)
        assert 0 == session.status().schedules.rotations_due
        assert 2 == session.describe(key).version

    @pytest.mark.parametrize("state", ["suspended", "revoked", "waiting"])
    def test_states(
        self, gateway: OpenHSM, session: Session, clock: FakeClock, state: str
    ) -> None:
        """
        Only an active version is renewed.
        """
        key = rotating(session, max_age_days=1)
        clock.advance(DAY)
        if state == "suspended":
            session.suspend(key)
        elif state == "revoked":
            session.revoke(key)
        else:
            session.destroy(key, waiting_days=9)
        look(gateway)

        assert 1 == session.describe(key).version

    def test_without_a_rule(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        Nobody asked for it, and nothing is done.
        """
        key = session.create_key("aes").key_id
        clock.advance(3650 * DAY)
        look(gateway)

        assert 1 == session.describe(key).version
        assert [] == recorded(gateway, "RotateKey")


DUAL = """
version: 1
extends: default
rules:
  - name: two-people
    effect: require-approval
    match: {operations: [RotateKey]}
    approval: {quorum: 1, ttl_seconds: 864000}
"""


class TestRefused:
    def test_an_approval_is_missing(self, clock: FakeClock) -> None:
        """
        A rotation that others must agree to is asked for once, and done when they have.
        """
        with memory_hsm(clock=clock, policy=parse_policy(DUAL)) as gateway:
            hsm = gateway.act_as(caller())
            session = Session(hsm)
            key = rotating(session, max_age_days=1)
            clock.advance(DAY)
            for _ in range(3):
                look(gateway)
                assert 1 == session.describe(key).version
                assert 1 == session.status().schedules.rotations_due
                clock.advance(3600)
            (asked,) = hsm.execute(ops.ListApprovals()).items
            assert "system.rotation" == asked.operation.requester
            hsm.execute(ops.Approve(approval_id=asked.approval_id, digest=asked.digest))
            look(gateway)

            assert 2 == session.describe(key).version
            assert 0 == session.status().schedules.rotations_due
            look(gateway)
            assert 2 == session.describe(key).version

    def test_store_that_fails(
        self, gateway: OpenHSM, session: Session, clock: FakeClock, faults: Faults
    ) -> None:
        """
        What can't be stored now is done later, and no other key waits for it.
        """
        keys = [rotating(session, max_age_days=1) for _ in range(3)]
        clock.advance(DAY)
        faults.plan("store.commit", errors.StorageFullError())
        look_until_it_works(gateway)

        assert {2} == {session.describe(key).version for key in keys}

    def test_locked(self, gateway: OpenHSM, session: Session, clock: FakeClock) -> None:
        """
        A locked HSM does nothing by itself either.
        """
        key = rotating(session, max_age_days=1)
        clock.advance(DAY)
        lock = gateway._services.inventory.lock  # noqa: SLF001 (no operation locks)
        lock.set("a test", {})
        look(gateway)
        lock.open()

        assert 1 == session.describe(key).version


def look_until_it_works(gateway: OpenHSM) -> None:
    """Let the scheduler look twice, whatever it runs into at first."""
    for _ in range(2):
        try:
            look(gateway)
        except errors.UnavailableError:
            continue


class TestBounded:
    def test_steps(self, gateway: OpenHSM, session: Session, clock: FakeClock) -> None:
        """
        A step rotates 4 keys at most, and the next goes on where it stopped.
        """
        keys = [rotating(session, max_age_days=1) for _ in range(10)]
        clock.advance(DAY)
        step, counts = gateway.schedulers.rotation.step, []
        while step() is not None:
            counts.append(sum(session.describe(k).version == 2 for k in keys))

        assert [4, 8] == counts
        assert {2} == {session.describe(key).version for key in keys}

    def test_many_keys(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        A round over more keys than a page has finds the one that is due.
        """
        due = session.create_key("aes").key_id
        session.set_rotation(due, max_age_days=1)
        clock.advance(DAY)
        for _ in range(150):
            session.create_key("aes")
        step, steps = gateway.schedulers.rotation.step, 1
        while step() is not None:
            steps += 1

        assert 3 == steps
        assert 2 == session.describe(due).version
        assert KeyState.ACTIVE is session.describe(due).state

# SPDX-License-Identifier: MIT
"""Destruction that can be thought better of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from operator import attrgetter
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core._internal.handlers.destruction import CompleteDestruction
from hsm_core.factory import OpenHSM
from hsm_core.model import KeyState, Phase, Role
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.contract.hsm_ways import disk_session, filesystem_hsm
from tests.core.hsm_support import memory_session, recorded
from tests.core.test_staging import states, told

STAGED, ACTIVE, RETIRED, SUSPENDED, REVOKED, SCHEDULED, DESTROYED = KeyState
DAY = 24 * 3600
WAIT = Settings(destroy_waiting_days=30)


@pytest.fixture
def gateway(clock: FakeClock) -> Iterator[OpenHSM]:
    """Give a fresh HSM in memory."""
    with memory_hsm(clock=clock) as opened:
        yield opened


def make_all_states(session: Session, *, suspended: bool) -> str:
    """Make a key with a version in each state that a destruction may find."""
    key = session.create_key("ed25519", name="pay", tags=["prod"]).key_id
    session.rotate(key)
    session.revoke(key, version=1)
    session.rotate(key)
    session.rotate(key, staged=True)
    if suspended:
        session.suspend(key, reason="why not")
    return key


class TestWaiting:
    @pytest.mark.parametrize("suspended", [False, True])
    def test_cancelled(
        self, session: Session, clock: FakeClock, *, suspended: bool
    ) -> None:
        """
        A destruction that is cancelled leaves every version in the state it was in.
        """
        key = make_all_states(session, suspended=suspended)
        before = session.versions(key)
        current = SUSPENDED if suspended else ACTIVE
        assert [REVOKED, RETIRED, current, STAGED] == [v.state for v in before]

        waiting = session.destroy(key, waiting_days=7)
        due = told(clock) + timedelta(days=7)

        assert (SCHEDULED, due) == (waiting.state, waiting.destroy_at)
        assert {(SCHEDULED, due)} == {
            (v.state, v.purge_at) for v in session.versions(key)
        }
        clock.advance(3 * DAY)
        cancelled = session.cancel_destroy(key)
        assert (current, None) == (cancelled.state, cancelled.destroy_at)
        unchanged = attrgetter(
            "state", "reason", "retired_at", "revoked_at", "purge_at"
        )
        assert [*map(unchanged, before)] == [*map(unchanged, session.versions(key))]

    def test_name_stays_taken(self, session: Session) -> None:
        """
        The name of a key that waits is its own, until it is destroyed.
        """
        session.create_key("aes", name="box")
        session.destroy("box", waiting_days=1)

        with pytest.raises(errors.NameTakenError):
            session.create_key("aes", name="box")
        session.cancel_destroy("box")

    def test_not_twice(self, session: Session) -> None:
        """
        A waiting time is changed by cancelling it first, not by asking again.
        """
        key = session.create_key("aes").key_id
        session.destroy(key, waiting_days=7)

        for days in (None, 0, 1, 30):
            with pytest.raises(errors.KeyStateError, match="Cancel it"):
                session.destroy(key, waiting_days=days)
        assert SCHEDULED is session.describe(key).state

    def test_nothing_to_cancel(self, session: Session) -> None:
        """
        A key that no scheduled destruction, and one that is destroyed, are refused.
        """
        key = session.create_key("aes").key_id
        with pytest.raises(errors.KeyStateError, match="no scheduled destruction"):
            session.cancel_destroy(key)
        session.destroy(key)
        with pytest.raises(errors.KeyStateError, match="no scheduled destruction"):
            session.cancel_destroy(key)

    def test_survives_a_restart(self, tmp_path: Path) -> None:
        """
        A later process knows that a key waits, and can give it back.
        """
        with disk_session(tmp_path) as session:
            key = session.create_key("aes").key_id
            sealed = session.encrypt(key, b"m")
            session.destroy(key, waiting_days=7)

        with filesystem_hsm(tmp_path) as gateway:
            session = Session(gateway.act_as(caller()))
            gateway.schedulers.destruction.run()
            assert SCHEDULED is session.describe(key).state
            session.cancel_destroy(key)
            assert b"m" == session.decrypt(key, sealed)


class TestLeast:
    def test_is_the_default(self, clock: FakeClock) -> None:
        """
        An HSM may ask for a waiting time, which holds where nothing else is asked for.
        """
        with memory_session(clock=clock, settings=WAIT) as session:
            key = session.create_key("aes").key_id

            due = session.destroy(key).destroy_at

        assert told(clock) + timedelta(days=30) == due

    @pytest.mark.parametrize("days", [0, 1, 29])
    def test_is_the_least(self, days: int) -> None:
        """
        Nobody gets round it by asking for less.
        """
        with memory_session(settings=WAIT) as session:
            key = session.create_key("aes").key_id
            with pytest.raises(errors.InvalidInputError, match="at least 30"):
                session.destroy(key, waiting_days=days)

            assert ACTIVE is session.describe(key).state


class TestCompletion:
    def test_when_it_is_due(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        Not a microsecond early, and then with a tombstone, by the HSM's own name.
        """
        key = make_all_states(session, suspended=False)
        session.destroy(key, waiting_days=7)
        clock.advance(7 * DAY - 1)
        gateway.schedulers.destruction.run()
        assert {SCHEDULED} == set(states(session, key))
        assert 1 == session.status().schedules.destructions

        clock.advance(1)
        gateway.schedulers.destruction.run()

        assert {DESTROYED} == set(states(session, key))
        assert session.describe(key).destroy_at is None
        assert 0 == session.status().schedules.destructions
        outcome, intent = recorded(gateway, "CompleteDestruction")
        assert intent.caller is not None
        assert "system.destruction" == intent.caller.principal
        assert (Phase.OUTCOME, "ok") == (outcome.phase, outcome.code)
        session.create_key("aes", name="pay")

    def test_bounded(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        A step destroys a few, and says when to go on; what was cancelled stays.
        """
        keys = [session.create_key("aes").key_id for _ in range(11)]
        for key in keys:
            session.destroy(key, waiting_days=1)
        session.cancel_destroy(keys[5])
        clock.advance(DAY)

        again = gateway.schedulers.destruction.step()

        assert again is not None
        left = [k for k in keys if session.describe(k).state is SCHEDULED]
        assert 6 == len(left)
        gateway.schedulers.destruction.run()
        assert [keys[5]] == [
            k for k in keys if session.describe(k).state is not DESTROYED
        ]

    def test_nobody_else(self, gateway: OpenHSM, clock: FakeClock) -> None:
        """
        No caller sends what the HSM asks itself, whatever their roles.
        """
        hsm = gateway.act_as(caller(*Role))
        session = Session(hsm)
        key = session.create_key("aes").key_id
        session.destroy(key, waiting_days=1)
        clock.advance(DAY)

        with pytest.raises(errors.AccessDeniedError):
            hsm.execute(CompleteDestruction(key_id=key))
        assert SCHEDULED is session.describe(key).state


class TestLeapingClock:
    @pytest.mark.parametrize("days", [3, 30, 3650])
    def test_waits_for_what_was_left_out(
        self, gateway: OpenHSM, session: Session, clock: FakeClock, days: int
    ) -> None:
        """
        A clock that leaps destroys nothing: it takes the time that it takes.
        """
        keys = [session.create_key("aes").key_id for _ in range(5)]
        for key in keys:
            session.destroy(key, waiting_days=2)
        clock.advance(DAY)
        clock.step(days * DAY)
        gateway.schedulers.destruction.run()

        assert {SCHEDULED} == {session.describe(key).state for key in keys}
        status = session.status()
        assert ("degraded", 5) == (status.state, status.schedules.held)
        assert days * DAY == status.schedules.left_out_seconds
        assert 1 == len(recorded(gateway, "system.clock-leap"))
        clock.advance(DAY)
        gateway.schedulers.destruction.run()
        assert {DESTROYED} == {session.describe(key).state for key in keys}
        assert "operational" == session.status().state

    def test_somebody_confirms(
        self, gateway: OpenHSM, session: Session, clock: FakeClock
    ) -> None:
        """
        Who knows better sends the destruction again, and it is done at once.
        """
        key, other = (session.create_key("aes").key_id for _ in range(2))
        session.destroy(key, waiting_days=2)
        session.destroy(other, waiting_days=2)
        clock.step(30 * DAY)
        gateway.schedulers.destruction.run()

        with pytest.raises(errors.KeyStateError):
            session.destroy(key, waiting_days=5)
        destroyed = session.destroy(key)
        assert (DESTROYED, None) == (destroyed.state, destroyed.destroy_at)
        gateway.schedulers.destruction.run()
        assert SCHEDULED is session.describe(other).state

    def test_after_a_restart(self, tmp_path: Path) -> None:
        """
        What the clock leapt over before a restart does not count after it either.
        """
        clock = FakeClock()
        with filesystem_hsm(tmp_path, clock) as gateway:
            session = Session(gateway.act_as(caller()))
            key = session.create_key("aes").key_id
            session.destroy(key, waiting_days=20)
            clock.step(3650 * DAY)
            gateway.schedulers.destruction.run()
        clock.advance(60)

        for number in range(3):
            with filesystem_hsm(tmp_path, clock) as gateway:
                session = Session(gateway.act_as(caller()))
                gateway.schedulers.destruction.run()
                assert SCHEDULED is session.describe(key).state, number
            # While it is off, a week of what the clock says is believed.
            clock.step(365 * DAY)
        with filesystem_hsm(tmp_path, clock) as gateway:
            session = Session(gateway.act_as(caller()))
            gateway.schedulers.destruction.run()
            assert DESTROYED is session.describe(key).state

    @pytest.mark.parametrize("stored", [None, b"", b"older"])
    def test_after_a_loss_of_its_history(
        self, tmp_path: Path, stored: bytes | None
    ) -> None:
        """
        Nothing becomes due because the file of clock jumps is gone or was damaged.
        """
        clock = FakeClock()
        with filesystem_hsm(tmp_path, clock) as gateway:
            session = Session(gateway.act_as(caller()))
            key = session.create_key("aes").key_id
            session.destroy(key, waiting_days=20)
            clock.step(30 * DAY)
            gateway.schedulers.destruction.run()
        (history,) = tmp_path.rglob("clock-leaps")
        if stored is None:
            history.unlink()
        else:
            history.write_bytes(stored)

        for _ in range(2):
            with filesystem_hsm(tmp_path, clock) as gateway:
                session = Session(gateway.act_as(caller()))
                gateway.schedulers.destruction.run()
                assert SCHEDULED is session.describe(key).state

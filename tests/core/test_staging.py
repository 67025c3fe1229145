# SPDX-License-Identifier: MIT
"""Versions that wait for their activation, rest, or are compromised."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from hsm_core import errors
from hsm_core.model import KeyState
from hsm_core.session import Session
from hsm_core.testing import FakeClock, caller, memory_hsm

STAGED, ACTIVE, RETIRED, SUSPENDED, REVOKED, SCHEDULED, DESTROYED = KeyState


@pytest.fixture
def session(clock: FakeClock) -> Iterator[Session]:
    """Give a fresh HSM in memory."""
    with memory_hsm(clock=clock) as gateway:
        yield Session(gateway.act_as(caller()))


def states(session: Session, key: str) -> list[KeyState]:
    """Return the state of each version of a key."""
    return [version.state for version in session.versions(key)]


def told(clock: FakeClock) -> datetime:
    """Return what the clock says."""
    return datetime.fromtimestamp(clock.now() / 1_000_000, UTC)


class TestStaged:
    def test_next_version(self, session: Session) -> None:
        """
        A staged version leaves the current one in its place, and retires it in the end.
        """
        key = session.create_key("ed25519").key_id
        old = session.sign(key, b"m")
        staged = session.rotate(key, staged=True)
        announced = session.public_key(key, version=2).der

        assert (STAGED, 2) == (staged.state, staged.version)
        assert 1 == session.describe(key).version == session.sign(key, b"m").version
        with pytest.raises(errors.KeyStateError):
            session.verify(key, b"m", old.signature, version=2)
        activated = session.activate(key)
        assert (ACTIVE, 2) == (activated.state, activated.version)
        assert [RETIRED, ACTIVE] == states(session, key)
        assert 2 == session.sign(key, b"m").version
        assert announced == session.public_key(key).der
        session.verify(key, b"m", old.signature)

    @pytest.mark.parametrize("staged", [False, True])
    def test_one_at_most(self, session: Session, *, staged: bool) -> None:
        """
        A key with a staged version is not rotated; a revoked one is out of the way.
        """
        key = session.create_key("ed25519").key_id
        session.rotate(key, staged=True)

        with pytest.raises(errors.KeyStateError, match="Version 2 is staged"):
            session.rotate(key, staged=staged)
        session.revoke(key, version=2)
        assert 3 == session.rotate(key, staged=staged).version
        assert REVOKED is states(session, key)[1]

    def test_revocation_of_all(self, session: Session) -> None:
        """
        What was staged can't come into force after its key was revoked.
        """
        key = session.create_key("ed25519").key_id
        session.rotate(key, staged=True)
        session.revoke(key)

        assert [REVOKED, REVOKED] == states(session, key)
        with pytest.raises(errors.KeyStateError):
            session.activate(key, version=2)

    def test_after_a_rollback(self, session: Session) -> None:
        """
        Whatever came into force meanwhile is retired by the activation.
        """
        key = session.create_key("ed25519").key_id
        session.rotate(key)
        session.rotate(key, staged=True)
        session.rollback(key, 1)
        activated = session.activate(key)

        assert 3 == activated.version == session.sign(key, b"m").version
        assert [RETIRED, RETIRED, ACTIVE, RETIRED] == states(session, key)

    def test_refusals(self, session: Session) -> None:
        """
        What is not staged, or not there, is not activated.
        """
        key = session.create_key("ed25519").key_id

        with pytest.raises(errors.KeyStateError, match="no staged version"):
            session.activate(key)
        with pytest.raises(errors.KeyStateError, match="only a staged version"):
            session.activate(key, version=1)
        with pytest.raises(errors.KeyNotFoundError, match="no version 9"):
            session.activate(key, version=9)

    def test_while_the_current_one_rests(self, session: Session) -> None:
        """
        A suspended version is first resumed or revoked, so that it is not forgotten.
        """
        key = session.create_key("ed25519").key_id
        session.rotate(key, staged=True)
        session.suspend(key)

        with pytest.raises(errors.KeyStateError, match="Resume or revoke"):
            session.activate(key)


class TestSuspended:
    def test_rests(self, session: Session) -> None:
        """
        A suspended version does nothing; the retired ones go on, and it comes back.
        """
        key = session.create_key("ed25519").key_id
        old = session.sign(key, b"m").signature
        session.rotate(key)
        new = session.sign(key, b"m").signature
        session.suspend(key, reason="audit")

        assert "audit" == session.versions(key)[1].reason
        for attempt in (
            lambda: session.sign(key, b"m"),
            lambda: session.verify(key, b"m", new, version=2),
            lambda: session.rotate(key),
        ):
            with pytest.raises(errors.KeyStateError):
                attempt()
        session.verify(key, b"m", old)
        session.resume(key)
        session.verify(key, b"m", new)
        assert "" == session.versions(key)[1].reason


class TestCompromised:
    def test_since_when(self, session: Session, clock: FakeClock) -> None:
        """
        The instant of the compromise is kept with the versions, and in the trail.
        """
        key = session.create_key("ed25519").key_id
        session.rotate(key)
        since = told(clock) - timedelta(days=9)
        session.revoke(key, version=1, reason="leak", compromised_at=since)

        first, second = session.versions(key)
        assert ("leak", since) == (first.reason, first.compromised_at)
        assert second.compromised_at is None
        outcome = session.audit_events(key_id=key)[0].event
        assert ("RevokeKey", "2025-06-06T15:06:40Z") == (
            outcome.kind,
            outcome.parameters["compromised_at"],
        )

    @pytest.mark.parametrize(
        "instant",
        [datetime(2020, 1, 1), datetime(1969, 12, 31, tzinfo=UTC)],
    )
    def test_impossible_instants(self, session: Session, instant: datetime) -> None:
        """
        An instant without an offset, or from before 1970, is refused by name.
        """
        key = session.create_key("ed25519").key_id

        with pytest.raises(errors.InvalidInputError) as caught:
            session.revoke(key, compromised_at=instant)
        assert "compromised_at" == caught.value.facts["field"]


def test_instants_of_a_version(session: Session, clock: FakeClock) -> None:
    """When a version was retired is told, however it came about."""
    key = session.create_key("ed25519").key_id
    clock.advance(60)
    session.rotate(key)
    rotated = told(clock)
    clock.advance(60)
    session.rotate(key, staged=True)
    clock.advance(60)
    session.activate(key)
    activated = told(clock)

    found = [version.retired_at for version in session.versions(key)]
    assert [rotated, activated, None] == found
    begun = [version.activated_at for version in session.versions(key)]
    assert [None, None, activated] == begun

# SPDX-License-Identifier: MIT
"""Retention: what is old is purged once, with consent, and nothing else ever is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hsm_core.errors import HSMError, KeyStateError
from hsm_core.model import ApprovalState, KeyState
from tests.core.retention_support import DAY, World, events_of, keep_pipeline

__all__ = ["keep_pipeline"]

RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an HSM in memory whose old versions are kept for 30 days."""
    made = World(tmp_path)
    yield made
    made.close()


def until(world: World, days: float) -> datetime:
    """Return an instant so many days from now."""
    now = datetime.fromtimestamp(world.clock.now() / 1e6, UTC)
    return now + timedelta(days=days)


class TestPurge:
    def test_an_old_version_is_purged_once(self, world: World) -> None:
        """After window, consent and grace the material goes, and is attested once."""
        key = world.old_key()
        world.pass_time(29)

        assert [] == world.people.waiting()

        world.pass_time(2)
        (asked,) = world.people.waiting("PurgeVersion")

        assert [RETIRED, ACTIVE] == world.states(key)

        world.pass_time(5)
        world.people.grant()
        world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(0.9, every=0.1)

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(30)

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert 1 == len(world.people.made)
        intent, outcome = world.attested()
        assert ("intent", "outcome") == (intent.phase, outcome.phase)
        assert "ok" == outcome.code
        assert asked.approval_id == intent.parameters["approval_id"]
        report = world.session.retention()
        assert (1, 1, 0) == (
            report.scheduled_total,
            report.completed_total,
            report.queue,
        )

    def test_a_purged_version_decrypts_nothing(self, world: World) -> None:
        """Its material is gone; what the key protects now is not touched."""
        key = world.old_key(1)
        old = world.session.encrypt(key, b"old")
        world.session.rotate(key)
        new = world.session.encrypt(key, b"new")
        world.pass_time(31)

        assert b"old" == world.session.decrypt(key, old)

        world.people.grant()
        world.sweep()
        with pytest.raises(KeyStateError):
            world.session.decrypt(key, old)
        world.pass_time(2)

        assert [DESTROYED, ACTIVE] == world.states(key)
        with pytest.raises(HSMError):
            world.session.decrypt(key, old)
        assert b"new" == world.session.decrypt(key, new)

    def test_material_goes_with_its_last_version(self, world: World) -> None:
        """Versions made by rollback share material: they wait for each other."""
        key = world.old_key(2)
        world.session.rollback(key, 1)
        world.pass_time(20)
        world.session.rotate(key)
        # Versions 1 and 3 share material; 3 was retired 20 days after 1 and 2.
        world.pass_time(12)

        assert [(2,)] == world.people.versions()

        world.pass_time(20)

        assert {(2,), (1, 3)} == set(world.people.versions())

        world.people.grant()
        world.pass_time(3)

        assert [DESTROYED] * 3 + [ACTIVE] == world.states(key)
        assert ["1", "3"] in [e.parameters.get("versions") for e in world.attested()]

    def test_a_revoked_version_is_kept_from_its_revocation_on(
        self, world: World
    ) -> None:
        """The window opens when it was revoked, however old it is."""
        key = world.old_key()
        world.pass_time(20)
        world.session.revoke(key, version=1)
        world.pass_time(29)

        assert [] == world.people.waiting()

        world.pass_time(2)

        assert 1 == len(world.people.waiting())


class TestWhatIsKept:
    def test_a_current_version_is_never_asked_for(self, world: World) -> None:
        """Not the only one, not an active one, not a revoked one without successor."""
        only = world.old_key(1)
        revoked = world.old_key(1)
        world.session.revoke(revoked)
        world.pass_time(400, every=50)

        assert [] == world.people.made
        assert [ACTIVE] == world.states(only)
        assert [KeyState.REVOKED] == world.states(revoked)

    def test_what_was_rolled_back_to_is_never_asked_for(self, world: World) -> None:
        """Version 1 has the material that the key uses now."""
        key = world.old_key(2)
        world.session.rollback(key, 1)
        world.pass_time(400, every=50)

        assert [2] == [item.version for item in world.session.retention().items]
        assert [RETIRED, RETIRED, ACTIVE] == world.states(key)

    def test_a_hold_keeps_all(self, world: World) -> None:
        """It is not purged, not scheduled and not destroyed while it is held."""
        key = world.old_key()
        world.session.hold(key, "case 4711")
        world.pass_time(100, every=10)

        assert [] == world.people.made
        assert "case 4711" == world.session.describe(key).hold
        with pytest.raises(KeyStateError, match="case 4711"):
            world.session.destroy(key)

        world.session.release(key, "closed")
        world.pass_time(1)

        assert 1 == len(world.people.waiting())

    def test_a_hold_takes_back_what_is_scheduled(self, world: World) -> None:
        """At once, and the version serves again."""
        key = world.old_key(1)
        old = world.session.encrypt(key, b"old")
        world.session.rotate(key)
        world.pass_time(31)
        world.people.grant()
        world.sweep()
        world.session.hold(key, "wait")

        assert b"old" == world.session.decrypt(key, old)

        world.pass_time(5)
        world.session.release(key, "go on")
        world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(0.9)

        # The grace period began anew.
        assert [SCHEDULED, ACTIVE] == world.states(key)

    def test_an_extension_takes_back_what_is_scheduled(self, world: World) -> None:
        """Until it ends; then people are asked, or have consented already."""
        key = world.old_key()
        world.pass_time(31)
        world.people.grant()
        world.sweep()
        world.session.extend_retention(key, 1, until(world, 40))

        assert [RETIRED, ACTIVE] == world.states(key)

        world.pass_time(39)

        assert [RETIRED, ACTIVE] == world.states(key)

        world.pass_time(2)

        assert 2 == len(world.people.made)

    def test_an_extension_is_never_taken_back(self, world: World) -> None:
        """Neither by a shorter one nor by one into the past."""
        key = world.old_key()
        world.session.extend_retention(key, 1, until(world, 100))
        for days in (-1, 0, 50):
            with pytest.raises(HSMError, match="until"):
                world.session.extend_retention(key, 1, until(world, days))
        found = world.session.versions(key)[0].retain_until

        assert found == until(world, 100)


class TestConsent:
    @pytest.mark.parametrize("end", [ApprovalState.DENIED, ApprovalState.CANCELLED])
    def test_consent_that_ends_in_the_grace_period_gives_the_version_back(
        self, world: World, end: ApprovalState
    ) -> None:
        """The version decrypts again, and nobody is asked for 30 days."""
        key = world.old_key(1)
        old = world.session.encrypt(key, b"old")
        world.session.rotate(key)
        world.pass_time(31)
        world.people.grant()
        world.sweep()
        world.people.end(world.people.made[0], end)
        world.pass_time(0.1)

        assert [RETIRED, ACTIVE] == world.states(key)
        assert b"old" == world.session.decrypt(key, old)

        world.pass_time(29)

        assert 1 == len(world.people.made)

        world.pass_time(2)

        assert 2 == len(world.people.made)
        assert [] == world.attested()

    def test_a_request_that_nobody_answers_is_made_again(self, world: World) -> None:
        """After it has expired, and a day."""
        key = world.old_key()
        world.pass_time(100)

        assert [RETIRED, ACTIVE] == world.states(key)
        assert len(world.people.made) > 2
        states = [found.state for found in world.people.made]
        assert {ApprovalState.EXPIRED} == set(states[:-1])
        assert ApprovalState.PENDING is states[-1]

    def test_consent_outlives_the_longest_grace_period(self, tmp_path: Path) -> None:
        """It is given as late as people may; the purge completes all the same."""
        world = World(tmp_path, retention_grace_seconds=200 * DAY)
        key = world.old_key()
        world.pass_time(31)
        world.pass_time(13, every=6.5)
        world.people.grant()
        world.sweep()
        world.pass_time(199, every=50)

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(2)

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert 1 == len(world.people.made)
        world.close()

    def test_without_a_demand_for_consent_nothing_is_purged(
        self, tmp_path: Path
    ) -> None:
        """A policy that asks nobody purges nothing, and the status says so."""
        clock_world = World(tmp_path)
        clock_world.people.demands = False
        key = clock_world.old_key()
        clock_world.pass_time(60)

        assert [RETIRED, ACTIVE] == clock_world.states(key)
        assert "approvals" == clock_world.session.retention().paused
        clock_world.close()


class TestFailingKeys:
    def test_one_key_that_fails_keeps_no_other_back(self, tmp_path: Path) -> None:
        """A tampered key is counted; the others are purged."""
        world = World(tmp_path, memory=False)
        keys = [world.old_key() for _ in range(4)]
        world.close()
        found = next(
            path
            for path in (tmp_path / "keys").rglob("*")
            if path.is_file() and keys[1] in str(path) and b'"mac"' in path.read_bytes()
        )
        found.write_bytes(found.read_bytes().replace(b"AES-256", b"AES-128"))
        world.open()
        world.pass_time(31)
        world.people.grant()
        world.pass_time(2)

        assert 3 == world.session.retention().completed_total
        assert world.session.retention().failures
        world.close()


class TestTrail:
    def test_every_step_is_recorded_under_a_reserved_name(self, world: World) -> None:
        """No person, and no token, can have the scheduler's name."""
        world.old_key()
        world.pass_time(31)
        world.people.grant()
        world.pass_time(2)
        events = [entry.event for entry in world.session.audit_events(limit=200)]
        steps = {"SchedulePurge", "PurgeVersion"}
        found = [e for e in events if e.kind in steps]

        assert steps == {e.kind for e in found}
        assert {"system.retention"} == {
            e.caller.principal for e in found if e.caller is not None
        }

    def test_the_trail_says_how_far_the_ledger_reaches(self, world: World) -> None:
        """After intent and outcome of each purge."""
        world.old_key()
        world.pass_time(31)
        world.people.grant()
        world.pass_time(2)
        events = [entry.event for entry in world.session.audit_events(limit=200)]
        anchors = [e for e in events if e.kind == "system.ledger"]
        head = world.session.retention().ledger

        assert head is not None
        assert 2 == len(anchors)
        assert head.head_hash == anchors[0].parameters["leaf_hash"]
        assert [0, 1] == [e.seq for e in events_of(world.retention.ledger.log)]

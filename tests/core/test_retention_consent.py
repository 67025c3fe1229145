# SPDX-License-Identifier: MIT
"""Purges under real approvals, and approvers who may no longer decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.errors import AccessDeniedError, HSMError
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.operations import (
    ApprovalInfo,
    Approve,
    Deny,
    GetApproval,
    ListApprovals,
    Withdraw,
)
from tests.core.retention_support import DAY, World, keep_pipeline

__all__ = ["keep_pipeline"]

RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED
OPEN = b"version: 1\nextends: default\n"
BLOCKED = (
    OPEN + b"rules:\n  - name: blocked\n    effect: deny\n"
    b"    match: {principals: [anton]}\n"
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an HSM over files with a policy of its own, which asks real people."""
    path = tmp_path / "policy.yaml"
    path.write_bytes(OPEN)
    path.chmod(0o600)
    made = World(tmp_path, memory=False, asks_people=True, policy_config=path)
    yield made
    made.close()


def put_policy(world: World, content: bytes) -> None:
    """Put an access policy in force."""
    (world.folder / "policy.yaml").write_bytes(content)
    assert not world.hsm.reload_policy()


def purges(world: World) -> list[ApprovalInfo]:
    """Return the approvals of purges, newest first."""
    olga = Caller(principal="olga", roles=frozenset({Role.OPERATOR}))
    page = world.hsm.act_as(olga).execute(ListApprovals())
    return [a for a in page.items if a.operation.kind == "PurgeVersion"]


def ends_of(world: World) -> list[str]:
    """Return how the purges ended that were begun."""
    return [e.code for e in world.attested() if e.phase == "outcome"]


def test_an_approver_who_is_blocked_in_the_grace_period(world: World) -> None:
    """The version is given back, nothing is purged, and it serves again."""
    key = world.old_key(1)
    old = world.session.encrypt(key, b"old")
    world.session.rotate(key)
    world.pass_time(31, every=15.5)
    world.consent()
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    put_policy(world, BLOCKED)
    for _ in range(10):
        world.pass_time(0.5)
        assert DESTROYED not in world.states(key)

    assert [RETIRED, ACTIVE] == world.states(key)
    assert b"old" == world.session.decrypt(key, old)
    assert ["approval_required"] == ends_of(world)
    assert 0 == world.session.retention().completed_total
    (asked,) = purges(world)
    assert ApprovalState.PENDING is asked.state

    with pytest.raises(HSMError):
        world.consent()  # Anton is blocked; Olga alone is not enough.
    world.pass_time(3)

    assert [RETIRED, ACTIVE] == world.states(key)

    put_policy(world, OPEN)
    world.consent()
    world.sweep()

    # The grace period is a whole new one.
    assert [SCHEDULED, ACTIVE] == world.states(key)

    world.pass_time(0.9)

    assert [SCHEDULED, ACTIVE] == world.states(key)

    world.pass_time(1)

    assert [DESTROYED, ACTIVE] == world.states(key)
    assert ["approval_required", "ok"] == ends_of(world)


SHORT = b"""version: 1
extends: default
rules:
  - name: short
    effect: require-approval
    match: {operations: [PurgeVersion]}
    approval: {roles: [Auditor], ttl_seconds: 3600}
"""
POLICIES = {"built-in": OPEN, "an hour": SHORT}


def with_grace(folder: Path, policy: bytes, days: int) -> World:
    """Return an HSM over files with a grace period."""
    path = folder / "policy.yaml"
    path.write_bytes(policy)
    path.chmod(0o600)
    return World(
        folder,
        memory=False,
        asks_people=True,
        policy_config=path,
        retention_grace_seconds=days * DAY,
    )


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("grace_days", [1, 90])
def test_consent_given_late_lives_through_the_grace_period(
    tmp_path: Path, grace_days: int, policy: bytes
) -> None:
    """Though the policy gives it an hour, two weeks may pass before it is given."""
    world = with_grace(tmp_path, policy, grace_days)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = purges(world)
    life = (asked.expires_at - asked.created_at).total_seconds()

    assert life >= (14 + grace_days + 2) * DAY

    world.pass_time(14, every=7)
    world.consent()
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    world.pass_time(grace_days - 0.5, every=grace_days / 3)

    assert [SCHEDULED, ACTIVE] == world.states(key)

    world.pass_time(1, every=0.5)

    assert [DESTROYED, ACTIVE] == world.states(key)
    world.close()


def test_consent_that_would_not_last_schedules_nothing(tmp_path: Path) -> None:
    """Given so late that it would expire in the grace period, it is asked for anew."""
    world = with_grace(tmp_path, SHORT, 90)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.pass_time(17, every=8.5)
    world.consent()
    world.pass_time(88, every=22)

    assert [RETIRED, ACTIVE] == world.states(key)

    world.pass_time(4)

    assert [RETIRED, ACTIVE] == world.states(key)
    assert [ApprovalState.PENDING, ApprovalState.EXPIRED] == [
        found.state for found in purges(world)
    ]
    assert [] == world.attested()
    world.close()


def person(world: World, name: str, *roles: Role) -> Person:
    """Return somebody who may be asked."""
    return Person(world, Caller(principal=name, roles=frozenset(roles)))


class Person:
    """Somebody with a name and roles."""

    def __init__(self, world: World, who: Caller) -> None:
        self._world = world
        self._who = who

    def asked(self) -> list[ApprovalInfo]:
        """Return the purges that wait for consent."""
        hsm = self._world.hsm.act_as(self._who)
        page = hsm.execute(ListApprovals(states=(ApprovalState.PENDING,)))
        return list(page.items)

    def approve(self, found: ApprovalInfo) -> None:
        """Consent to what was shown."""
        hsm = self._world.hsm.act_as(self._who)
        hsm.execute(Approve(approval_id=found.approval_id, digest=found.digest))

    def deny(self, found: ApprovalInfo) -> None:
        """Refuse it."""
        hsm = self._world.hsm.act_as(self._who)
        hsm.execute(Deny(approval_id=found.approval_id, reason="not yet"))

    def withdraw(self, found: ApprovalInfo) -> None:
        """Withdraw their approval of it."""
        hsm = self._world.hsm.act_as(self._who)
        hsm.execute(Withdraw(approval_id=found.approval_id))

    def state(self, found: ApprovalInfo) -> ApprovalState:
        """Return where an approval stands."""
        hsm = self._world.hsm.act_as(self._who)
        return hsm.execute(GetApproval(approval_id=found.approval_id)).state


def test_a_purge_completes_once_in_thirty_days(world: World) -> None:
    """Asked, granted by both, scheduled, after the grace period purged; once."""
    olga = person(world, "olga", Role.OPERATOR)
    anton = person(world, "anton", Role.AUDITOR)
    oscar = person(world, "oscar", Role.OPERATOR)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = olga.asked()

    assert ("PurgeVersion", "system.retention", 1) == (
        asked.operation.kind,
        asked.operation.requester,
        asked.operation.version,
    )

    olga.approve(asked)
    oscar.approve(asked)
    world.pass_time(3)

    assert [RETIRED, ACTIVE] == world.states(key)

    anton.approve(asked)
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    world.pass_time(30)

    assert [DESTROYED, ACTIVE] == world.states(key)
    assert ApprovalState.CONSUMED is anton.state(asked)
    assert 1 == world.session.retention().completed_total
    intent, outcome = world.attested()
    agreed = intent.parameters["agreed"]
    assert isinstance(agreed, list)
    assert ["olga", "oscar", "anton"] == [text.split()[0] for text in agreed]
    assert "ok" == outcome.code


def test_who_denies_in_the_grace_period_stops_it(world: World) -> None:
    """The version is as before, and nobody is asked for 30 days, restarts included."""
    olga = person(world, "olga", Role.OPERATOR)
    anton = person(world, "anton", Role.AUDITOR)
    oscar = person(world, "oscar", Role.OPERATOR)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = olga.asked()
    olga.approve(asked)
    anton.approve(asked)
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    oscar.deny(asked)
    world.pass_time(0.2)

    assert [RETIRED, ACTIVE] == world.states(key)

    world.close()
    world.open()
    world.pass_time(28, every=7)

    assert [] == olga.asked()

    world.pass_time(3)

    assert 1 == len(olga.asked())
    assert [RETIRED, ACTIVE] == world.states(key)
    assert [] == world.attested()


def test_who_withdraws_in_the_grace_period_stops_it(world: World) -> None:
    """The version is as before; once others agree, it is purged on their word alone."""
    olga = person(world, "olga", Role.OPERATOR)
    anton = person(world, "anton", Role.AUDITOR)
    anna = person(world, "anna", Role.AUDITOR)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = olga.asked()
    olga.approve(asked)
    anton.approve(asked)
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    anton.withdraw(asked)
    world.pass_time(0.2)

    assert [RETIRED, ACTIVE] == world.states(key)
    assert ApprovalState.PENDING is olga.state(asked)

    anna.approve(asked)
    world.pass_time(8, every=1)

    assert [DESTROYED, ACTIVE] == world.states(key)
    intent = world.attested()[0]
    agreed = intent.parameters["agreed"]
    assert isinstance(agreed, list)
    assert ["olga", "anna"] == [text.split()[0] for text in agreed]


def test_nobody_speaks_for_the_scheduler(world: World) -> None:
    """Its name is nobody's, and its operations are in nobody's reach."""
    for name in ("system.retention", "retention-scheduler", "System.Retention"):
        with pytest.raises(HSMError, match="principal"):
            world.hsm.act_as(Caller(principal=name, roles=frozenset(Role)))
    service = person(world, "sam", Role.SERVICE)
    world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = person(world, "olga", Role.OPERATOR).asked()
    with pytest.raises(AccessDeniedError):
        service.approve(asked)

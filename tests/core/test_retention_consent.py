# SPDX-License-Identifier: MIT
"""Purges under real approvals, and approvers who may no longer decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.errors import AccessDeniedError, HSMError
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.operations import ApprovalInfo, Deny, ListApprovals, Withdraw
from tests.core.dual_support import approve, person
from tests.core.retention_support import DAY, World

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
    made = World(tmp_path, memory=False, policy_config=path)
    yield made
    made.close()


def put_policy(world: World, content: bytes) -> None:
    """Put an access policy in force."""
    (world.folder / "policy.yaml").write_bytes(content)
    assert not world.hsm.reload_policy()


def purges(world: World) -> list[ApprovalInfo]:
    """Return the approvals of purges, newest first."""
    page = person(world.hsm, "olga", Role.OPERATOR).execute(ListApprovals())
    return [a for a in page.items if a.operation.kind == "PurgeVersion"]


def pending(world: World) -> list[ApprovalInfo]:
    """Return those that wait for consent."""
    return [a for a in purges(world) if a.state is ApprovalState.PENDING]


def scheduled(world: World, *names: tuple[str, Role]) -> tuple[str, ApprovalInfo]:
    """Make an old key whose purge people approve; return it with its approval."""
    key = world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = purges(world)
    for name, role in names:
        approve(person(world.hsm, name, role), asked)
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    return key, asked


OLGA, ANTON = ("olga", Role.OPERATOR), ("anton", Role.AUDITOR)


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


def test_a_purge_completes_once_in_thirty_days(world: World) -> None:
    """Asked, granted by both, scheduled, after the grace period purged; once."""
    key = world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = purges(world)

    assert ("PurgeVersion", "system.retention", 1) == (
        asked.operation.kind,
        asked.operation.requester,
        asked.operation.version,
    )

    for name in ("olga", "oscar"):
        approve(person(world.hsm, name, Role.OPERATOR), asked)
    world.pass_time(3)

    assert [RETIRED, ACTIVE] == world.states(key)

    approve(person(world.hsm, *ANTON), asked)
    world.sweep()

    assert [SCHEDULED, ACTIVE] == world.states(key)

    world.pass_time(30)

    assert [DESTROYED, ACTIVE] == world.states(key)
    assert [ApprovalState.CONSUMED] == [found.state for found in purges(world)]
    assert 1 == world.session.retention().completed_total
    assert ["olga", "oscar", "anton"] == approvers(world)
    assert ["ok"] == ends_of(world)


def approvers(world: World) -> list[str]:
    """Return who the ledger says agreed to the first purge."""
    agreed = world.attested()[0].parameters["agreed"]
    assert isinstance(agreed, list)
    return [text.split()[0] for text in agreed]


def test_who_denies_in_the_grace_period_stops_it(world: World) -> None:
    """The version is as before, and nobody is asked for 30 days, restarts included."""
    key, asked = scheduled(world, OLGA, ANTON)
    oscar = person(world.hsm, "oscar", Role.OPERATOR)
    oscar.execute(Deny(approval_id=asked.approval_id, reason="not yet"))
    world.pass_time(0.2)

    assert [RETIRED, ACTIVE] == world.states(key)

    world.close()
    world.open()
    world.pass_time(28, every=7)

    assert [] == pending(world)

    world.pass_time(3)

    assert 1 == len(pending(world))
    assert [RETIRED, ACTIVE] == world.states(key)
    assert [] == world.attested()


def test_who_withdraws_in_the_grace_period_stops_it(world: World) -> None:
    """The version is as before; once others agree, it is purged on their word alone."""
    key, asked = scheduled(world, OLGA, ANTON)
    person(world.hsm, *ANTON).execute(Withdraw(approval_id=asked.approval_id))
    world.pass_time(0.2)

    assert [RETIRED, ACTIVE] == world.states(key)
    assert [asked.approval_id] == [found.approval_id for found in pending(world)]

    approve(person(world.hsm, "anna", Role.AUDITOR), asked)
    world.pass_time(8, every=1)

    assert [DESTROYED, ACTIVE] == world.states(key)
    assert ["olga", "anna"] == approvers(world)


def test_nobody_speaks_for_the_scheduler(world: World) -> None:
    """Its name is nobody's, and its operations are in nobody's reach."""
    for name in ("system.retention", "retention-scheduler", "System.Retention"):
        with pytest.raises(HSMError, match="principal"):
            world.hsm.act_as(Caller(principal=name, roles=frozenset(Role)))
    world.old_key()
    world.pass_time(31, every=15.5)
    (asked,) = purges(world)
    with pytest.raises(AccessDeniedError):
        approve(person(world.hsm, "sam", Role.SERVICE), asked)

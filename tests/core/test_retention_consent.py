# SPDX-License-Identifier: MIT
"""Purges under real approvals: an Operator and an Auditor, both, and nobody else."""

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
from tests.core.retention_support import World, keep_pipeline

__all__ = ["keep_pipeline"]

RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an HSM over files with one key whose old version is due."""
    made = World(tmp_path, memory=False, asks_people=True)
    yield made
    made.close()


def person(world: World, name: str, *roles: Role) -> "Person":
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

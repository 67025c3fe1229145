# SPDX-License-Identifier: MIT
"""That people came and went is recorded, and never in their way."""

from hsm_core.errors import AuditUnavailableError
from hsm_core.factory import open_async
from hsm_core.model import Phase, Role
from hsm_core.operations import ListAuditEvents
from hsm_core.testing import Faults, caller, memory_hsm

ALICE = caller(Role.AUDITOR, principal="alice")
MANY = 300


def test_a_visit_is_one_record() -> None:
    """It says who, with which roles, and what."""
    with memory_hsm() as hsm:
        hsm.record_visit(ALICE, kind="SignIn")
        (entry,) = hsm.act_as(ALICE).execute(ListAuditEvents(limit=1)).items

    event = entry.event
    assert ("SignIn", "ok", Phase.SINGLE) == (event.kind, event.code, event.phase)
    assert event.caller is not None
    assert ("alice", ("Auditor",)) == (event.caller.principal, event.caller.roles)


async def test_visits_have_no_budget() -> None:
    """Who comes is known, and no flood of strangers hides it."""
    with memory_hsm() as hsm:
        gateway = open_async(hsm)
        for _ in range(MANY):
            await gateway.record_refusal(caller(), "authentication_failed")
        await gateway.record_visit(ALICE, kind="SignOut")
        found = hsm.act_as(ALICE).execute(ListAuditEvents(limit=1)).items

    assert ["SignOut"] == [entry.event.kind for entry in found]


async def test_a_visit_needs_no_trail() -> None:
    """People may come when the trail can't be written, to see why."""
    faults = Faults()
    with memory_hsm(faults=faults) as hsm:
        faults.plan("audit.append", AuditUnavailableError(), times=2)

        hsm.record_visit(ALICE, kind="SignIn")
        await open_async(hsm).record_visit(ALICE, kind="SignIn")

        kinds = [
            entry.event.kind
            for entry in hsm.act_as(ALICE).execute(ListAuditEvents(limit=9)).items
        ]
    assert "SignIn" not in kinds

# SPDX-License-Identifier: MIT
"""Approvals that were changed in their store: noticed, told, and never served."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Integrity, Role
from hsm_core.settings import AuditStoreKind
from hsm_core.testing import FakeClock, caller
from tests.core.approval_attacks import ATTACKS, ApprovalAttack, Case, Records
from tests.core.dual_disk import (
    ANN,
    CREATE,
    KINDS,
    approval,
    ask,
    grant,
    keys_named,
    open_disk,
    settings_of,
)
from tests.self_tests import open_tested

S = ApprovalState
AUDITOR = caller(Role.AUDITOR, principal="eve")


def findings(gateway: OpenHSM) -> tuple[str, int]:
    """Return what the status says."""
    status = gateway.act_as(ANN).execute(ops.Status())
    return status.state, status.approvals.findings


def alarms(gateway: OpenHSM) -> set[str]:
    """Return the approvals that the trail tells of as changed."""
    events = gateway.act_as(AUDITOR).execute(ops.ListAuditEvents(limit=200)).items
    found = [e.event for e in events if e.event.kind == "system.approval-tampered"]
    assert {event.parameters["reason"] for event in found} <= REASONS
    return {event.approval_id for event in found}


def recover(gateway: OpenHSM) -> ops.Recovered:
    """Let ann recover the store, with the approval of bob."""
    asked = ask(gateway, RECOVER)
    grant(gateway, asked)
    return gateway.act_as(ANN).execute(RECOVER)


REASONS = {"edited", "foreign", "index", "missing", "newer", "older"}
RECOVER = ops.RecoverStore(reason="a test")
WAITING = ops.CreateKey(algorithm="ML-KEM-768", name="waiting")


@pytest.mark.parametrize(
    ("kind", "running"),
    [("filesystem", False), ("filesystem", True), ("sqlite", False)],
    ids=["filesystem", "filesystem-running", "sqlite"],
)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_every_way(
    tmp_path: Path, kind: str, attack: ApprovalAttack, *, running: bool
) -> None:
    """
    O-07, AP-09: whatever is done to approvals, what was changed is named, and no more.

    It serves nothing, neither now nor after a restart. A database that is in use is
    locked, so that nobody else writes to it.
    """
    gateway, case = prepare(tmp_path, kind)
    if not running:
        gateway.close()
    bad = attack(Records(tmp_path / "hsm", kind), case)
    if running:
        gateway._maintenance.compare_approvals()  # noqa: SLF001 (as it does in time)
    else:
        gateway = open_disk(tmp_path / "hsm", kind)

    with gateway:
        # What is added to a running one is not looked at; the next start finds it.
        noticed = bad & {case.granted, case.pending} if running else bad
        assert ("degraded" if noticed else "operational", len(noticed)) == (
            findings(gateway)
        )
        assert noticed == alarms(gateway)
        check_served(gateway, case, bad)
    with open_disk(tmp_path / "hsm", kind) as gateway:
        assert "degraded" == findings(gateway)[0]
        assert bad == alarms(gateway)


def prepare(folder: Path, kind: str) -> tuple[OpenHSM, Case]:
    """Open an HSM with an approval that is granted and one that waits."""
    for name in ("hsm", "other"):
        (folder / name).mkdir(mode=0o700)
    with open_disk(folder / "other", kind) as other:
        foreign = ask(other)
        grant(other, foreign)
    gateway = open_disk(folder / "hsm", kind)
    asked, waiting = ask(gateway), ask(gateway, WAITING)
    if kind == "sqlite":
        gateway.close()
    before = Records(folder / "hsm", kind)[asked.approval_id]
    if kind == "sqlite":
        gateway = open_disk(folder / "hsm", kind)
    grant(gateway, asked)
    theirs = Records(folder / "other", kind)[foreign.approval_id]
    of_another = foreign.approval_id, theirs
    return gateway, Case(asked.approval_id, before, waiting.approval_id, of_another)


def check_served(gateway: OpenHSM, case: Case, bad: set[str]) -> None:
    """Check that what is bad serves nothing, and that the rest goes on."""
    for approval_id in bad:
        with pytest.raises(
            (errors.ApprovalTamperedError, errors.ApprovalNotFoundError)
        ):
            approval(gateway, approval_id)
        with pytest.raises(errors.HSMError):
            gateway.act_as(ANN).execute(CREATE, approval_id=approval_id)
    assert 0 == keys_named(gateway)
    if case.pending in bad:
        assert case.pending != ask(gateway, WAITING).approval_id
    else:
        assert S.PENDING is approval(gateway, case.pending)
    if case.granted in bad:
        assert case.granted != ask(gateway).approval_id
    else:
        gateway.act_as(ANN).execute(CREATE)
        assert S.CONSUMED is approval(gateway, case.granted)


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_store(tmp_path: Path, kind: str) -> None:
    """AP-03: a used approval that is put back with its whole store serves nothing."""
    folder, kept = tmp_path / "hsm", tmp_path / "kept"
    folder.mkdir(mode=0o700)
    nameless = ops.CreateKey(algorithm="ML-KEM-768")
    with open_disk(folder, kind) as gateway:
        asked = ask(gateway, nameless)
        grant(gateway, asked)
    shutil.copytree(folder, kept)
    with open_disk(folder, kind) as gateway:
        gateway.act_as(ANN).execute(nameless)
        assert S.CONSUMED is approval(gateway, asked.approval_id)
    for file in folder.glob("approvals*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    for file in kept.glob("approvals*"):
        shutil.move(file, folder / file.name)

    with open_disk(folder, kind) as gateway:
        assert ("degraded", 1) == findings(gateway)
        assert asked.approval_id != ask(gateway, nameless).approval_id
        with pytest.raises(errors.ApprovalTamperedError):
            gateway.act_as(ANN).execute(nameless, approval_id=asked.approval_id)


@pytest.mark.parametrize("how", ["recover", "accept_changed_store"])
@pytest.mark.parametrize("change", ["newer", "foreign"])
def test_an_older_trail(tmp_path: Path, change: str, how: str) -> None:
    """Keys and trail that are put back to before an approval lock the HSM."""
    folder, kept = tmp_path / "hsm", tmp_path / "kept"
    folder.mkdir(mode=0o700)
    with open_disk(folder) as gateway:
        asked = ask(gateway) if change == "newer" else None
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("approvals"))
    with open_disk(folder) as gateway:
        asked = asked or ask(gateway)
        grant(gateway, asked)
    for file in folder.iterdir():
        if file.name != "approvals":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    shutil.copytree(kept, folder, dirs_exist_ok=True)

    if how == "recover":
        for _ in range(2):
            with open_disk(folder) as gateway:
                with pytest.raises(errors.HSMLockedError, match="older") as caught:
                    ask(gateway)
                facts = caught.value.facts
                assert ("trail_older", asked.approval_id) == (
                    facts["reason"],
                    facts["approval_id"],
                )
        with open_disk(folder) as gateway:
            done = recover(gateway)
            assert (asked.approval_id,) == done.approvals
            assert ("operational", 0) == findings(gateway)
    for accept in (how == "accept_changed_store", False):
        with open_disk(folder, accept_changed_store=accept) as gateway:
            assert ("operational", 0) == findings(gateway)
            assert asked.approval_id != ask(gateway).approval_id


def test_used_up_for_ever(tmp_path: Path) -> None:
    """AP-03: after a restart a used approval serves nothing either."""
    nameless = ops.CreateKey(algorithm="ML-KEM-768")
    with open_disk(tmp_path) as gateway:
        asked = ask(gateway, nameless)
        grant(gateway, asked)
        gateway.act_as(ANN).execute(nameless)
    with open_disk(tmp_path) as gateway:
        assert asked.approval_id != ask(gateway, nameless).approval_id
        with pytest.raises(errors.ConflictError, match="consumed"):
            gateway.act_as(ANN).execute(nameless, approval_id=asked.approval_id)


def test_recovery_forgets(tmp_path: Path) -> None:
    """Recovering the store removes what differs, says so, and leaves the rest."""
    with open_disk(tmp_path) as gateway:
        asked = ask(gateway)
        other = ops.CreateKey(algorithm="ML-KEM-768", name="other")
        with pytest.raises(errors.ApprovalRequiredError) as caught:
            gateway.act_as(ANN).execute(other)
        kept = str(caught.value.facts["approval_id"])
    edit_state(tmp_path / "approvals" / f"{asked.approval_id}.json")
    with open_disk(tmp_path) as gateway:
        assert ("degraded", 1) == findings(gateway)
        done = recover(gateway)

        assert (asked.approval_id,) == done.approvals
        assert ("operational", 0) == findings(gateway)
        assert S.PENDING is approval(gateway, kept)
    with open_disk(tmp_path) as gateway:
        assert ("operational", 0) == findings(gateway)
        assert S.PENDING is approval(gateway, kept)
        fresh = ask(gateway)
        grant(gateway, fresh)
        gateway.act_as(ANN).execute(CREATE)


def test_recovery_keeps_what_was_put_back(tmp_path: Path) -> None:
    """An approval that is again what the audit log says is not removed, and serves."""
    with open_disk(tmp_path) as gateway:
        asked = ask(gateway)
        file = tmp_path / "approvals" / f"{asked.approval_id}.json"
        older = file.read_bytes()
        grant(gateway, asked)
        newest = file.read_bytes()
        file.write_bytes(older)
        with pytest.raises(errors.ApprovalTamperedError, match="older"):
            approval(gateway, asked.approval_id)
        file.write_bytes(newest)
        done = recover(gateway)

        assert () == done.approvals
        assert ("operational", 0) == findings(gateway)
        gateway.act_as(ANN).execute(CREATE)
        assert S.CONSUMED is approval(gateway, asked.approval_id)


def edit_state(file: Path) -> None:
    """Call it granted."""
    file.write_bytes(file.read_bytes().replace(b'"pending"', b'"granted"'))


def test_an_index_that_lies(tmp_path: Path) -> None:
    """A row of the database that says granted of what is not changes nothing."""
    with open_disk(tmp_path, "sqlite") as gateway:
        asked = ask(gateway)
    with sqlite3.connect(tmp_path / "approvals.sqlite") as database:
        database.execute("update approvals set state = 'granted'")
    database.close()

    with open_disk(tmp_path, "sqlite") as gateway:
        assert S.PENDING is ask(gateway).state
        assert keys_named(gateway) == 0
        assert asked.approval_id


def test_a_store_of_another_hsm(tmp_path: Path) -> None:
    """Approvals that another HSM has written are foreign here."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir(mode=0o700)
        with open_disk(folder) as gateway:
            grant(gateway, ask(gateway))
    shutil.rmtree(one / "approvals")
    shutil.copytree(two / "approvals", one / "approvals")

    with open_disk(one) as gateway:
        assert ("degraded", 2) == findings(gateway)
        assert S.PENDING is ask(gateway).state


def test_honest_histories_raise_no_alarm(tmp_path: Path) -> None:
    """Restarts between all steps, ends of all kinds: nothing is called changed."""
    states = set()
    for number in range(8):
        create = ops.CreateKey(algorithm="ML-KEM-768", name=f"key-{number}")
        with open_disk(tmp_path) as gateway:
            with pytest.raises(errors.ApprovalRequiredError) as caught:
                gateway.act_as(ANN).execute(create)
            asked = caught.value.approval
            assert isinstance(asked, ops.ApprovalInfo)
        with open_disk(tmp_path) as gateway:
            if number % 4 == 0:
                grant(gateway, asked)
                gateway.act_as(ANN).execute(create)
            elif number % 4 == 1:
                deny = ops.Deny(approval_id=asked.approval_id, reason="no")
                gateway.act_as(AUDITOR).execute(deny)
            elif number % 4 == 2:
                cancel = ops.CancelApproval(approval_id=asked.approval_id)
                gateway.act_as(ANN).execute(cancel)
            states.add(approval(gateway, asked.approval_id))
            assert ("operational", 0) == findings(gateway)
            assert set() == alarms(gateway)

    assert {S.CONSUMED, S.DENIED, S.CANCELLED, S.PENDING} == states


def test_ends_are_known_after_a_prune(tmp_path: Path) -> None:
    """Without the records of an approval that ended, only the altered one is bad."""
    clock = FakeClock()
    settings = replace(
        settings_of(tmp_path, "filesystem"),
        audit_store=AuditStoreKind.SQLITE,
        audit_retention_days=10,
    )
    with open_tested(settings, clock=clock) as gateway:
        ended = ask(gateway, WAITING)
        deny = ops.Deny(approval_id=ended.approval_id, reason="no")
        gateway.act_as(AUDITOR).execute(deny)
        for _ in range(20):
            clock.advance(86_400)
            gateway.act_as(ANN).execute(ops.GenerateRandom(length=16))
        house = gateway._maintenance  # noqa: SLF001 (as it does in time)
        house.prune_trail()
        assert gateway.act_as(ANN).execute(ops.Status()).audit.first_seq > 0
        altered = ask(gateway)
    edit_state(tmp_path / "approvals" / f"{altered.approval_id}.json")

    with open_tested(settings, clock=clock) as gateway:
        assert ("degraded", 1) == findings(gateway)
        assert {altered.approval_id} == alarms(gateway)
        assert S.DENIED is approval(gateway, ended.approval_id)


def test_a_key_that_was_tampered_with(tmp_path: Path) -> None:
    """Every read that is about it says so, approvals of it too; none shows nothing."""
    with open_disk(tmp_path) as gateway:
        grant(gateway, ask(gateway))
        key = gateway.act_as(ANN).execute(CREATE).key_id
        with pytest.raises(errors.ApprovalRequiredError) as caught:
            gateway.act_as(ANN).execute(ops.DestroyKey(key_id=key))
        asked = str(caught.value.facts["approval_id"])
    file = tmp_path / "keys" / "keys" / key / "key.json"
    file.write_bytes(file.read_bytes().replace(CREATE.name.encode(), b"x", 1))

    with open_disk(tmp_path) as gateway:
        eve, ann = gateway.act_as(AUDITOR), gateway.act_as(ANN)
        reads: tuple[ops.Operation[Any], ...] = (
            ops.ListVersions(key_id=key),
            ops.GetPublicKey(key_id=key),
            ops.ExplainPolicy(operation="Sign", principal="eve", key_id=key),
            ops.GetApproval(approval_id=asked),
            ops.Deny(approval_id=asked, reason="it was tampered with"),
        )
        for operation in reads:
            with pytest.raises(errors.KeyTamperedError):
                eve.execute(operation)
        for wanted in (ops.ListApprovals(), ops.ListApprovals(key_id=key)):
            page = eve.execute(wanted)
            assert asked not in {one.approval_id for one in page.items}
            assert (asked,) == page.key_tampered
        assert Integrity.TAMPERED is eve.execute(ops.DescribeKey(key_id=key)).integrity
        (listed,) = eve.execute(ops.ListKeys()).items
        assert (key, Integrity.TAMPERED) == (listed.key_id, listed.integrity)
        assert 1 == eve.execute(ops.Status()).tampered_keys
        own = ann.execute(ops.ListApprovals(states=(S.PENDING,)))
        assert (asked,) == tuple(one.approval_id for one in own.items)

# SPDX-License-Identifier: MIT
"""
A crash between any two steps of an approval, and of what is done under it.

At every named point the whole disk is copied, as a kill at that moment would leave it;
each copy is then opened, and must be in order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState
from tests.core.dual_disk import (
    ANN,
    CREATE,
    KINDS,
    approval,
    ask,
    grant,
    keys_named,
    open_disk,
)

S = ApprovalState


class Camera:
    """Copies a folder at every named point."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self._folder = folder
        self._copies = copies
        self.taken: list[tuple[str, Path]] = []

    def __call__(self, name: str) -> None:
        """Take a copy."""
        if not name.startswith(("approval.", "mutation.")):
            return
        copy = self._copies / f"{len(self.taken):02}-{name}"
        shutil.copytree(self._folder, copy)
        self.taken.append((name, copy))


def check(gateway: OpenHSM) -> None:
    """Look for anything that is called changed."""
    status = gateway.act_as(ANN).execute(ops.Status())
    assert ("operational", 0) == (status.state, status.approvals.findings)


def finish(gateway: OpenHSM, approval_id: str) -> None:
    """Bring it to its end from wherever it stands: one key, one approval used."""
    if not keys_named(gateway):
        found = approval(gateway, approval_id)
        assert found in {S.PENDING, S.GRANTED}
        if found is S.PENDING:
            grant(gateway, ask(gateway))
        gateway.act_as(ANN).execute(CREATE)
    assert S.CONSUMED is approval(gateway, approval_id)
    assert 1 == keys_named(gateway)
    with pytest.raises((errors.ApprovalRequiredError, errors.NameTakenError)):
        gateway.act_as(ANN).execute(CREATE)
    check(gateway)


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_of_a_life(tmp_path: Path, kind: str) -> None:
    """
    AP-08: nothing is used up without its effect, and nothing done without using it up.

    Whatever was acknowledged is there; what was not is there wholly or not at all; no
    copy raises an alarm.
    """
    folder, copies = tmp_path / "hsm", tmp_path / "copies"
    folder.mkdir(mode=0o700)
    camera = Camera(folder, copies)
    marks = {}
    with open_disk(folder, kind) as gateway, install(camera):
        asked = ask(gateway)
        marks["asked"] = len(camera.taken)
        grant(gateway, asked)
        marks["granted"] = len(camera.taken)
        gateway.act_as(ANN).execute(CREATE)
        marks["done"] = len(camera.taken)

    names = [name for name, _ in camera.taken]
    assert {
        "approval.after_intent",
        "approval.after_store",
        "approval.after_outcome",
        "approval.reserved",
        "approval.before_settling",
        "mutation.after_intent",
        "mutation.after_store",
        "mutation.after_outcome",
    } <= set(names)
    for number, (_, copy) in enumerate(camera.taken):
        with open_disk(copy, kind) as gateway:
            check(gateway)
            there = keys_named(gateway)
            try:
                found = approval(gateway, asked.approval_id)
            except errors.ApprovalNotFoundError:
                assert number < marks["asked"]
                continue
            assert found is not S.RESERVED
            assert bool(there) is (found is S.CONSUMED)
            assert number < marks["granted"] or found in {S.GRANTED, S.CONSUMED}
            finish(gateway, asked.approval_id)
        with open_disk(copy, kind) as gateway:
            assert S.CONSUMED is approval(gateway, asked.approval_id)
            check(gateway)


@pytest.mark.parametrize("step", ["deny", "cancel"])
def test_other_ends(tmp_path: Path, step: str) -> None:
    """An end that was acknowledged stays; one that was not is there or is not."""
    folder, copies = tmp_path / "hsm", tmp_path / "copies"
    folder.mkdir(mode=0o700)
    with open_disk(folder) as gateway:
        asked = ask(gateway)
        grant(gateway, asked)
        camera = Camera(folder, copies)
        with install(camera):
            operation: ops.Deny | ops.CancelApproval
            operation = ops.CancelApproval(approval_id=asked.approval_id)
            who = ANN
            if step == "deny":
                operation = ops.Deny(approval_id=asked.approval_id, reason="no")
                who = type(ANN)(principal="carl", roles=ANN.roles)
            ended = gateway.act_as(who).execute(operation).state

    seen = []
    for name, copy in camera.taken:
        with open_disk(copy) as gateway:
            check(gateway)
            seen.append((name, approval(gateway, asked.approval_id)))

    assert [
        ("approval.after_intent", S.GRANTED),
        ("approval.after_store", ended),
        ("approval.after_outcome", ended),
    ] == seen


def test_a_recovered_step_stays_known(tmp_path: Path) -> None:
    """A step that recovery recorded is no tampering when the store is compared."""
    folder, copies = tmp_path / "hsm", tmp_path / "copies"
    folder.mkdir(mode=0o700)
    camera = Camera(folder, copies)
    with open_disk(folder) as gateway:
        other = ask(gateway, ops.CreateKey(algorithm="ML-KEM-768", name="other"))
        asked = ask(gateway)
        with install(camera):
            grant(gateway, asked)
    copy = dict(camera.taken)["approval.after_store"]
    with open_disk(copy) as gateway:
        check(gateway)
    (copy / "approvals" / f"{other.approval_id}.json").unlink()

    with open_disk(copy) as gateway:
        status = gateway.act_as(ANN).execute(ops.Status())
        assert 1 == status.approvals.findings
        assert S.GRANTED is approval(gateway, asked.approval_id)

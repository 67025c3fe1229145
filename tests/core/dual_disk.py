# SPDX-License-Identifier: MIT
"""An HSM on disk under the strict profile, and an operation that needs an approval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Role
from hsm_core.operations import ApprovalInfo
from hsm_core.settings import AuditStoreKind, PolicyProfile, Settings
from hsm_core.testing import caller
from tests.self_tests import open_tested

KINDS = ["filesystem", "sqlite"]
CREATE = ops.CreateKey(algorithm="ML-KEM-768", name="twice-agreed")
ANN = caller(principal="ann")


def settings_of(folder: Path, kind: str, **facts: Any) -> Settings:
    """Return where everything lies, and further settings."""
    form = AuditStoreKind.SQLITE if kind == "sqlite" else AuditStoreKind.FILE
    return Settings(
        key_store=kind,
        key_dir=folder / "keys",
        sqlite_path=folder / "keys.sqlite",
        audit_store=form,
        audit_log=folder / "audit.log",
        audit_sqlite_path=folder / "audit.sqlite",
        approval_store=form.value,
        approval_dir=folder / "approvals",
        approval_sqlite_path=folder / "approvals.sqlite",
        policy_profile=PolicyProfile.STRICT,
        audit_retention_days=0,
        approval_retention_days=0,
        **facts,
    )


def open_disk(folder: Path, kind: str = "filesystem", **facts: Any) -> OpenHSM:
    """Open the HSM of a folder."""
    return open_tested(settings_of(folder, kind, **facts))


def ask(gateway: OpenHSM, operation: ops.Operation[Any] = CREATE) -> ApprovalInfo:
    """Let ann ask for an operation."""
    with pytest.raises(errors.ApprovalRequiredError) as caught:
        gateway.act_as(ANN).execute(operation)
    asked = caught.value.approval
    assert isinstance(asked, ApprovalInfo)
    return asked


def grant(gateway: OpenHSM, asked: ApprovalInfo) -> None:
    """Let bob approve it."""
    bob = gateway.act_as(caller(Role.AUDITOR, principal="bob"))
    bob.execute(ops.Approve(approval_id=asked.approval_id, digest=asked.digest))


def approval(gateway: OpenHSM, approval_id: str) -> ApprovalState:
    """Return where an approval stands."""
    found = gateway.act_as(ANN).execute(ops.GetApproval(approval_id=approval_id))
    return found.state


def keys_named(gateway: OpenHSM) -> int:
    """Return how many keys the operation has made."""
    page = gateway.act_as(ANN).execute(ops.ListKeys())
    return sum(key.name == CREATE.name for key in page.items)

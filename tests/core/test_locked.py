# SPDX-License-Identifier: MIT
"""What a locked HSM serves: what is needed to decide about it, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.keyring import recovery
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState
from hsm_core.operations import OPERATIONS, Operation
from hsm_core.policies import parse_policy
from hsm_core.testing import caller, memory_hsm
from tests.core.changed_stores import session_on
from tests.core.cluster_nodes import node
from tests.core.dual_support import approve, ask, person
from tests.core.test_roles import sample

SERVED = {
    "Approve",
    "BackUpStores",
    "CancelApproval",
    "Deny",
    "DescribeCaller",
    "GetApproval",
    "ListAlgorithms",
    "ListApprovals",
    "ListAuditEvents",
    "ListNodes",
    "RecoverKey",
    "RecoverStore",
    "RetireNode",
    "SelfTest",
    "ShowPolicy",
    "Status",
    "VerifyAudit",
    "VerifyStore",
    "Withdraw",
}


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OpenHSM, str]]:
    """Give an HSM that is locked, and the id of a key of it."""
    with memory_hsm() as gateway:
        key = session_on(gateway).create_key("ed25519", name="old").key_id
        services: Any = gateway._services  # noqa: SLF001 (to lock it)
        services.inventory.lock.set("A test.", {"reason": "test"})
        # The registry is that of all HSMs in memory.
        monkeypatch.setattr(services.crypto, "self_test", lambda closing: [])
        yield gateway, key


def is_served(gateway: OpenHSM, operation: Operation[Any], *, loop: bool) -> bool:
    """Return whether an operation gets past the lock."""
    try:
        if loop:
            asyncio.run(gateway.act_as_async().act_as(caller()).execute(operation))
        else:
            gateway.act_as(caller()).execute(operation)
    except errors.HSMLockedError:
        return False
    except errors.HSMError:
        pass
    return True


@pytest.mark.parametrize("loop", [False, True], ids=["called", "awaited"])
def test_every_operation(locked: tuple[OpenHSM, str], *, loop: bool) -> None:
    """Exactly these pass, in whatever way they are asked for."""
    gateway, key = locked
    last = [ops.RecoverStore]
    kinds = [kind for kind in OPERATIONS if kind not in last] + last

    passed = {
        kind.__name__
        for kind in kinds
        if is_served(gateway, sample(kind, key), loop=loop)
    }

    assert passed == SERVED
    assert passed == {kind.__name__ for kind in OPERATIONS if kind.while_locked}


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "node"])
def test_no_repeat_is_answered(database: str, tmp_path: Path, *, shared: bool) -> None:
    """Nor is a change answered again that was made before."""
    with node(database, tmp_path, "a") if shared else memory_hsm() as gateway:
        session = session_on(gateway)
        session.create_key("ed25519", idempotency_key="once")
        gateway._services.inventory.lock.set("A test.", {})  # noqa: SLF001

        with pytest.raises(errors.HSMLockedError):
            session.create_key("ed25519", idempotency_key="once")


def test_consent_to_a_recovery_is_withdrawn() -> None:
    """Who has approved it thinks again, while the HSM is locked as it was."""
    rule = "{name: r, effect: require-approval, match: {operations: [RecoverStore]}}"
    policy = parse_policy(f"version: 1\nextends: default\nrules:\n  - {rule}\n")
    with memory_hsm(policy=policy) as gateway:
        gateway._services.inventory.lock.set("A test.", {})  # noqa: SLF001
        adam, bob = person(gateway, "adam"), person(gateway, "bob")
        asked = ask(adam, ops.RecoverStore(reason="fine"))
        assert approve(bob, asked).state is ApprovalState.GRANTED

        withdrawn = bob.execute(ops.Withdraw(approval_id=asked.approval_id))

        assert withdrawn.state is ApprovalState.PENDING
        with pytest.raises(errors.ApprovalRequiredError):
            adam.execute(ops.RecoverStore(reason="fine"))


def test_recovery_opens_it_once(locked: tuple[OpenHSM, str]) -> None:
    """Recovered twice, it is open, and there is nothing to accept."""
    gateway, key = locked
    hsm, session = gateway.act_as(caller()), session_on(gateway)
    assert "locked" == session.status().state

    for _ in range(2):
        assert ops.Recovered() == hsm.execute(ops.RecoverStore(reason="fine"))
        assert "operational" == session.status().state
    assert ops.Recovered() == hsm.execute(ops.RecoverKey(key_id=key, reason="fine"))
    session.sign("old", b"m")


def test_recovery_without_findings_reads_no_log(
    locked: tuple[OpenHSM, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no key is to be decided on, as for approvals, no log is read for it."""
    gateway, _ = locked
    monkeypatch.delattr(recovery, "AuditWalk")

    done = gateway.act_as(caller()).execute(ops.RecoverStore(reason="fine"))

    assert ops.Recovered() == done

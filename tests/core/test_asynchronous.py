# SPDX-License-Identifier: MIT
"""Refusals and visits are recorded, and a failing audit log is the HSM's own error."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core.algorithms import Algorithm
from hsm_core.errors import AuditUnavailableError
from hsm_core.factory import open_async
from hsm_core.model import Phase, Role
from hsm_core.operations import ListAuditEvents
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import Faults, caller, memory_hsm
from tests.contract.hsm_ways import filesystem_hsm


@pytest.mark.parametrize("point", ["audit.before_write", "audit.before_sync"])
def test_a_failing_disk_is_our_own_error(point: str, tmp_path: Path) -> None:
    """Whatever the disk says, callers under a loop see audit_unavailable alone."""
    gateway = filesystem_hsm(tmp_path)
    Session(gateway.act_as(caller())).create_key("ed25519", name="k")
    hsm = open_async(gateway).act_as(caller())
    reached = []

    def fail(name: str) -> None:
        if name == point:
            reached.append(name)
            raise OSError(28, "No space left on device")

    async def use() -> list[object]:
        work = [hsm.execute(ops.Sign(key_id="k", message=b"m")) for _ in range(5)]
        return await asyncio.gather(*work, return_exceptions=True)

    with install(fail):
        answers = asyncio.run(use())
        with pytest.raises(errors.AuditUnavailableError):
            gateway.close()

    assert reached
    assert {errors.AuditUnavailableError} == {type(answer) for answer in answers}


def test_refusals_keep_no_payload() -> None:
    """What was sent in vain is freed at once, not by garbage collection."""
    text = os.urandom(1000)
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        signer = hsm.execute(ops.CreateKey(algorithm=Algorithm.ED25519)).key_id

        def requests() -> list[Request]:
            return [
                Request(caller(), ops.Encrypt(key_id=key, plaintext=text))
                for key in (signer, "nobody")
            ]

        async def refuse() -> list[BaseException]:
            answers = open_async(gateway).execute_many(requests())
            return list(await asyncio.gather(*answers, return_exceptions=True))

        kept = sys.getrefcount(text)
        gc.disable()
        try:
            answers = asyncio.run(refuse())
            with suppress(errors.KeyUsageError):
                hsm.execute(requests()[0].operation)
            for _ in range(500):  # A thread may just be letting go of it.
                if kept == sys.getrefcount(text):
                    break
                time.sleep(0.02)
            assert kept == sys.getrefcount(text)
        finally:
            gc.enable()

    assert [errors.KeyUsageError, errors.KeyNotFoundError] == [type(a) for a in answers]


def test_a_refusal_is_in_the_trail_before_it_is_answered(tmp_path: Path) -> None:
    """Who was refused finds the record of it at once, blocking or under a loop."""
    with filesystem_hsm(tmp_path) as gateway:
        loop_gateway, me = open_async(gateway), caller()
        audit = gateway._services.audit  # noqa: SLF001 (what is written by now)
        heads = [audit.head().seq]

        async def refuse() -> None:
            await loop_gateway.record_refusal(me, "malformed", kind="Sign", key_id="k")

        for _ in range(20):
            gateway.record_refusal(me, "malformed", kind="Sign", key_id="k")
            heads.append(audit.head().seq)
            asyncio.run(refuse())
            heads.append(audit.head().seq)

        assert list(range(heads[0], heads[0] + 41)) == heads


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


async def test_the_hsm_can_be_closed_after_a_record_failed_for_lack_of_memory() -> None:
    """A use that failed so runs no more, and closing does not wait for it."""
    faults = Faults()
    hsm = memory_hsm(faults=faults, settings=Settings(audit_timeout_seconds=600.0))
    Session(hsm.act_as(caller())).create_key("ed25519", name="k")
    alone, sign = open_async(hsm).act_as(caller()), ops.Sign(key_id="k", message=b"m")
    await alone.execute(sign)
    faults.plan("audit.append", MemoryError(), times=1)

    with pytest.raises(MemoryError):
        await alone.execute(sign)

    closing = threading.Thread(target=hsm.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()

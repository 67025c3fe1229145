# SPDX-License-Identifier: MIT
"""An HSM that has no memory at some moment keeps what it has acknowledged."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from hsm_core import operations as ops
from hsm_core._internal.audit.medium import Ticket
from hsm_core._internal.lib.concurrency import Locks
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import KeyStateError
from hsm_core.factory import OpenHSM
from hsm_core.model import Caller, KeyState, Role
from hsm_core.protocols import HSM
from hsm_core.settings import AuditSync
from tests.core.audit_support import events, open_any, verified
from tests.support import REPOSITORY

CHILDREN = 400 if os.environ.get("FERROHSM_FAULTS") == "1" else 10
BEGINS = range(160) if CHILDREN > 10 else range(85, 120)
"""Where memory ends while a record is appended; a writer gets it about here."""
SEED = os.environ.get("FERROHSM_MEMORY_SEED", "1")
EVERYBODY = frozenset({Role.ADMINISTRATOR, Role.OPERATOR, Role.AUDITOR})


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["filesystem", "sqlite"])
def test_no_memory_at_any_moment(memory_path: Path, kind: str) -> None:
    """
    A request fails, no other one hangs, and what is there afterwards is whole.
    """
    child = pytest.importorskip("tests.core.memory_child", exc_type=ImportError)
    answer = _run("memory_child", memory_path, kind, SEED, CHILDREN)
    failed = 0
    for number in range(CHILDREN):
        folder = memory_path / str(number)
        told = _told(folder)
        failed += any(code == "no memory" for code in told.values())
        with child.open_again(folder, kind) as hsm:
            _check(hsm, told)

    _check_ends(answer, child.OUT_OF_MEMORY)
    assert failed >= CHILDREN // 4


@pytest.mark.parametrize("sync", list(AuditSync))
@pytest.mark.parametrize("name", ["audit.log", "audit.sqlite"])
def test_no_memory_while_a_record_is_appended(
    memory_path: Path, name: str, sync: AuditSync
) -> None:
    """
    The log heals, and all records follow on each other.
    """
    pytest.importorskip("tests.core.memory_audit_child", exc_type=ImportError)

    memory_path.chmod(0o700)
    answer = _run(
        "memory_audit_child", memory_path, name, sync.value, BEGINS.start, BEGINS.stop
    )

    for number in BEGINS:
        path = memory_path / str(number) / name
        told = set(path.with_name("told").read_text().split())
        with closing(open_any(path)) as log:
            assert told <= {event.request_id for event in events(log)}
        verified(path)
    _check_ends(answer)


def test_no_memory_while_the_lock_of_a_key_is_asked_for() -> None:
    """
    Nothing is left held, also where a lock itself would need memory to end.
    """
    testcapi = pytest.importorskip("_testcapi")
    locks = Locks()
    for begin in range(30):
        # CPython keeps what a block's end takes, and drops it when it collects all.
        gc.collect()
        with suppress(MemoryError, RuntimeError):
            testcapi.set_nomemory(begin, begin + 30)
            try:
                with locks.held("key", "other"):
                    pass
            finally:
                testcapi.remove_mem_hooks()

        other = threading.Thread(target=_hold, args=(locks,), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive(), begin


def test_no_memory_while_a_ticket_is_completed() -> None:
    """
    Who waits is told when it is tried again.
    """
    testcapi = pytest.importorskip("_testcapi")
    for begin in range(10):
        ticket = Ticket(60.0)
        waiting = threading.Thread(target=ticket.wait, daemon=True)
        waiting.start()
        time.sleep(0.01)
        with suppress(MemoryError):
            testcapi.set_nomemory(begin, begin + 1)
            try:
                ticket.complete()
            finally:
                testcapi.remove_mem_hooks()
        ticket.complete()

        waiting.join(30)
        assert not waiting.is_alive(), begin


def _hold(locks: Locks) -> None:
    with locks.held("key", "other"):
        pass


def _run(child: str, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a module of children, and return what it says."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.core.{child}", str(folder), *map(str, words)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )


def _check_ends(answer: subprocess.CompletedProcess[str], *expected: int) -> None:
    """Check that no child waited for what never comes; the interpreter may give up."""
    ends = {int(line.split()[1]) for line in answer.stdout.splitlines()}
    assert ends <= {0, -signal.SIGSEGV, -signal.SIGABRT, *expected}, answer.stderr[
        max(answer.stderr.find("Timeout") - 1000, -3000) :
    ][:6000]


def _told(folder: Path) -> dict[str, str]:
    """Return what each step was answered; the last line may be cut short."""
    lines = folder.with_suffix(".told").read_text().splitlines()
    return dict(json.loads(line) for line in lines)


def _check(hsm: OpenHSM, told: dict[str, str]) -> None:
    person = hsm.act_as(Caller(principal="eve", roles=EVERYBODY))
    done = {name for name, code in told.items() if code == "ok"}
    assert () == person.execute(ops.VerifyStore()).findings
    person.execute(ops.VerifyAudit(start_seq=0, limit=1000))
    recorded = _recorded(person)
    for name in done:
        assert "ok" in recorded.get(name.replace(" ", "-"), ()), name
    keys = {key.name: key for key in person.execute(ops.ListKeys(per_page=100)).items}
    _check_keys(person, keys, done)
    for name, key in keys.items():
        made = f"make-{name}"
        assert made in recorded, name
        if KeyUsage.SIGN in key.usages:
            _use(person, key)


def _recorded(person: HSM) -> dict[str, set[str]]:
    """Return the codes that the trail has of each request, intents left out."""
    found: dict[str, set[str]] = {}
    page = person.execute(ops.ListAuditEvents(limit=1000))
    for entry in page.items:
        event = entry.event
        codes = found.setdefault(event.request_id, set())
        if event.phase != "intent":
            codes.add(event.code)
    return found


def _check_keys(person: HSM, keys: dict[str, Any], done: set[str]) -> None:
    """Check that what was acknowledged is there, and nothing else by halves."""
    for name in ("signer", "cipher"):
        if f"make {name}" not in done:
            continue
        versions = person.execute(ops.ListVersions(key_id=keys[name].key_id)).items
        assert list(range(1, len(versions) + 1)) == [v.version for v in versions]
        assert len(versions) <= 2
        if f"rotate {name}" in done:
            assert 2 == len(versions)
        if name == "signer" and "revoke" in done:
            assert KeyState.REVOKED is versions[0].state
    if "tag" in done:
        assert ("tagged",) == keys["cipher"].tags
    if "destroy" in done:
        gone = keys.get("other")
        assert gone is None or KeyState.DESTROYED is gone.state


def _use(person: HSM, key: Any) -> None:
    """Use the newest version, if it may still be used."""
    with suppress(KeyStateError):
        made = person.execute(ops.Sign(key_id=key.key_id, message=b"later"))
        person.execute(
            ops.Verify(key_id=key.key_id, message=b"later", signature=made.signature)
        )

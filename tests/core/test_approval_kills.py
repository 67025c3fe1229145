# SPDX-License-Identifier: MIT
"""A process that is killed at any step on approvals leaves old state or new."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsm_core.errors import StoreLockedError
from hsm_core.model import ApprovalState
from tests.core.approval_kills import CALLS, assert_old_or_new, row_of, sweep
from tests.core.approval_steps import STEPS, make_template, seen, step
from tests.core.approval_support import approval_id_of, register_of
from tests.support import REPOSITORY

ALL = [(kind, name) for kind in CALLS for name in STEPS]
SHORT = [("filesystem", "insert"), ("sqlite", "consume")]
TRIED = ALL if os.environ.get("FERROHSM_FAULTS") == "1" else SHORT


@pytest.mark.parametrize(("kind", "name"), TRIED)
def test_kill_before_every_call(tmp_path: Path, kind: str, name: str) -> None:
    """
    SIGKILL before each changing system call: wholly before or after, nothing lost.
    """
    trials = sweep(kind, name, tmp_path)

    assert_old_or_new(kind, name, tmp_path, trials)


@pytest.mark.parametrize("kind", CALLS)
def test_between_reservation_and_end(tmp_path: Path, kind: str) -> None:
    """
    An approval whose operation was cut off is still reserved, for recovery to settle.
    """
    for end in ("release", "consume"):
        folder = tmp_path / end
        store = row_of(kind).open(folder)
        make_template(store)
        store.close()
        process = start(kind, folder, "reserve")
        process.communicate("go\n")
        store = row_of(kind).open(folder)
        register = register_of(store)

        held = register.get(approval_id_of(2))
        assert (ApprovalState.RESERVED, "op") == (held.state, held.operation_id)
        if end == "release":
            register.release(held.approval_id, operation_id="op")
            step(store, "reserve")
        else:
            register.consume(held.approval_id, operation_id="op")
        store.close()


@pytest.mark.parametrize("kind", CALLS)
def test_two_processes(tmp_path: Path, kind: str) -> None:
    """
    A second process is refused; when the first is killed, the lock is free at once.
    """
    process = start(kind, tmp_path, "insert")
    with pytest.raises(StoreLockedError):
        row_of(kind).open(tmp_path)

    process.kill()
    process.communicate()
    store = row_of(kind).open(tmp_path)
    assert {} == seen(store)
    store.close()


def start(kind: str, folder: Path, name: str) -> subprocess.Popen[str]:
    """Start a process that has the store open, and makes the step when told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.core.approval_steps", kind, str(folder), name],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "open\n" == process.stdout.readline()
    return process

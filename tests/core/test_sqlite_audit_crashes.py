"""A writer of a trail in SQLite is killed, or its disk fails: nothing is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hsm_core.settings import AuditSync
from tests.core.audit_support import events
from tests.core.sqlite_audit_support import opened, verified
from tests.support import REPOSITORY, require_program

WRITING = [
    "audit.before_write",
    "audit.after_write",
]
PRUNING = [
    "audit.prune.after_stage",
    "audit.prune.after_record",
    "audit.prune.after_chunk",
]


def _start(
    path: Path,
    *,
    sync: AuditSync = AuditSync.STRICT,
    count: int = 100,
    point: str = "-",
    hits: int = 1,
    seed: int = 0,
    prune: bool = False,
    under: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    last = "prune" if prune else "-"
    arguments = [str(path), sync.value, str(count), point, str(hits), str(seed), last]
    return subprocess.Popen(
        [*under, sys.executable, "-m", "tests.core.sqlite_audit_writer", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )


def _said(process: subprocess.Popen[bytes]) -> tuple[int, list[float]]:
    """Return the last record that was acknowledged, and how long refusals took."""
    output = process.communicate(timeout=60)[0].decode()
    words = [line.split() for line in output.splitlines()]
    acknowledged = [int(value) for word, value in words if word == "ack"]
    refused = [float(value) for word, value in words if word == "refused"]
    return max(acknowledged, default=-1), refused


def _assert_nothing_lost(path: Path, acknowledged: int) -> None:
    """Check a killed trail offline, reopen it, and check it once more."""
    assert verified(path).head_seq >= acknowledged
    with opened(path) as log:
        found = events(log)
        assert log.head().seq >= acknowledged
        expected = list(range(log.first_seq, log.head().seq + 1))
        assert expected == [event.seq for event in found]
    assert verified(path).clean


@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_kill_at_each_point_of_writing_loses_nothing(
    tmp_path: Path, sync: AuditSync
) -> None:
    """One trail is killed at each point, early and late, and goes on every time."""
    path = tmp_path / "log" / "audit.sqlite"
    rounds = [(point, hits, 60) for point in WRITING for hits in (1, 4)]
    if sync is AuditSync.BOUNDED:
        rounds += [("audit.before_sync", 1, 2000), ("audit.after_sync", 1, 2000)]

    for point, hits, count in [*rounds, ("audit.before_clean_mark", 1, 60)]:
        process = _start(path, sync=sync, count=count, point=point, hits=hits)
        acknowledged = _said(process)[0]
        assert -signal.SIGKILL == process.returncode, point
        _assert_nothing_lost(path, acknowledged)


@pytest.mark.parametrize("point", PRUNING)
def test_a_kill_at_each_point_of_a_prune_is_finished_by_the_next_start(
    tmp_path: Path, point: str
) -> None:
    """The trail verifies as it was left, and begins where the last record says."""
    path = tmp_path / "log" / "audit.sqlite"

    for hit in (1, 2):
        process = _start(path, point=point, hits=hit, prune=True)
        acknowledged = _said(process)[0]
        assert -signal.SIGKILL == process.returncode
        _assert_nothing_lost(path, acknowledged)


@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, sync: AuditSync) -> None:
    """A writer that prunes too is killed at random moments, four times on one trail."""
    path = tmp_path / "log" / "audit.sqlite"
    moments = random.Random(20)

    for run in range(4):
        process = _start(path, sync=sync, count=100_000, seed=run, prune=run % 2 == 0)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.random() / 10)
        process.kill()
        acknowledged = _said(process)[0]
        assert -signal.SIGKILL == process.returncode
        _assert_nothing_lost(path, acknowledged)


def _strace(*rules: str) -> list[str]:
    program = require_program("strace")
    options = [word for rule in rules for word in ("-e", f"inject={rule}")]
    return [program, "-f", "-qq", "-o", "/dev/null", *options]


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_kill_before_a_call_that_changes_the_disk_loses_nothing(
    tmp_path: Path, call: str
) -> None:
    """The n-th such call of the process is its last, for some n of each half."""
    for number in (3, 9, 20):
        path = tmp_path / str(number) / "audit.sqlite"
        rule = f"{call}:signal=SIGKILL:when={number}"
        process = _start(path, count=60, under=_strace(rule), prune=True)
        acknowledged = _said(process)[0]
        assert process.returncode
        if acknowledged >= 0:
            _assert_nothing_lost(path, acknowledged)
        else:
            with opened(path) as log:
                assert log.available


FAULTS = [
    "fdatasync,fsync:error=EIO:when=6",
    "fdatasync,fsync:error=EIO:when=6..9",
    "pwrite64:error=EIO:when=20",
    "pwrite64:error=ENOSPC:when=20..21",
]


@pytest.mark.parametrize("rule", FAULTS)
@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_fault_of_the_disk_is_told_and_healed(
    tmp_path: Path, sync: AuditSync, rule: str
) -> None:
    """Who waits is told within 2 s; later appends succeed, and a record tells it."""
    path = tmp_path / "log" / "audit.sqlite"
    with opened(path):
        pass
    process = _start(path, sync=sync, count=300, under=_strace(rule))
    acknowledged, refused = _said(process)

    assert 0 == process.returncode
    assert acknowledged >= 299
    # In bounded mode a sync that nobody waits for may fail and heal in between.
    assert refused or sync is AuditSync.BOUNDED
    assert max(refused, default=0) < 2
    with opened(path) as log:
        resumed = [event for event in events(log) if event.kind == "system.resume"]
    assert resumed
    _assert_nothing_lost(path, acknowledged)


def test_a_disk_that_stays_broken_gets_no_answer_and_keeps_what_it_had(
    tmp_path: Path,
) -> None:
    """Once no sync succeeds any more nothing is acknowledged, and nothing is lost."""
    path = tmp_path / "log" / "audit.sqlite"
    rule = "fdatasync,fsync:error=EIO:when=22+"
    process = _start(path, count=1000, under=_strace(rule))
    acknowledged, refused = _said(process)

    assert 0 <= acknowledged < 500
    assert max(refused) < 2
    _assert_nothing_lost(path, acknowledged)

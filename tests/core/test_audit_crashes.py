"""A writer is killed at every named point, and at random: nothing is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hsm_core.settings import AuditSync
from tests.core.audit_support import copy_of, events, fill, open_log, opened, verified
from tests.support import REPOSITORY

WRITING = [
    "audit.before_write",
    "audit.after_write",
    "audit.before_sync",
    "audit.after_sync",
    "audit.after_mark",
    "audit.rotate.before_rename",
    "audit.rotate.after_rename",
    "audit.rotate.after_directory_sync",
    "audit.rotate.after_create",
]
OPENING = ["audit.open.after_mark", "audit.before_clean_mark"]
REPAIRING = [
    "audit.repair.after_fragment",
    "audit.repair.after_truncate",
    "audit.repair.after_sync",
    "audit.repair.after_record",
    "audit.open.after_mark",
    "audit.after_write",
    "audit.after_sync",
]


def _start(
    path: Path,
    *,
    sync: AuditSync = AuditSync.STRICT,
    count: int = 200,
    point: str = "-",
    hits: int = 1,
    seed: int = 0,
) -> subprocess.Popen[bytes]:
    arguments = [str(path), sync.value, "4096", str(count), point, str(hits), str(seed)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.core.audit_writer", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )


def _acknowledged(process: subprocess.Popen[bytes]) -> int:
    output = process.communicate(timeout=60)[0]
    return max((int(line) for line in output.splitlines()), default=-1)


def _assert_nothing_lost(path: Path, acknowledged: int) -> None:
    """Check a killed trail offline, reopen it, and check it once more."""
    if path.with_name("audit.log.head").exists():
        assert verified(path).head_seq >= acknowledged
    with opened(path, segment_bytes=4096) as log:
        kept = [event for event in events(log) if event.kind == "Sign"]
        assert [f"request-{event.seq}" for event in kept] == [
            event.request_id for event in kept
        ]
        assert log.head().seq >= acknowledged
    assert verified(path).clean


@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_kill_at_each_point_of_writing_loses_nothing(
    tmp_path: Path, sync: AuditSync
) -> None:
    """One trail is killed at each point, early and late, and goes on every time."""
    path = tmp_path / "log" / "audit.log"

    for point in [*WRITING, *OPENING]:
        hits = [1] if point in OPENING else [1, 3]
        for hit in hits:
            process = _start(path, sync=sync, count=60, point=point, hits=hit)
            acknowledged = _acknowledged(process)
            assert -signal.SIGKILL == process.returncode, point
            _assert_nothing_lost(path, acknowledged)


@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, sync: AuditSync) -> None:
    """A writer is killed at random moments, ten times on one trail."""
    path = tmp_path / "log" / "audit.log"
    moments = random.Random(20)

    for run in range(10):
        process = _start(path, sync=sync, count=100_000, seed=run)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.random() / 10)
        process.kill()
        acknowledged = max(int(first), _acknowledged(process))
        assert -signal.SIGKILL == process.returncode
        _assert_nothing_lost(path, acknowledged)


def test_a_kill_while_a_trail_is_made_leaves_none_or_an_empty_one(
    tmp_path: Path,
) -> None:
    """The next start makes what the first one could not."""
    for point in ("audit.create.after_head", "audit.open.after_mark"):
        path = tmp_path / point / "audit.log"
        process = _start(path, point=point)
        assert -1 == _acknowledged(process)
        assert -signal.SIGKILL == process.returncode

        with opened(path) as log:
            fill(log, 3)
        assert 3 == verified(path).records


@pytest.mark.parametrize("leftover", ["audit.log.head.new", "audit.log.torn.new"])
def test_a_half_written_temporary_file_is_no_obstacle(
    tmp_path: Path, leftover: str
) -> None:
    """What an interrupted write left is removed by the next one."""
    path = tmp_path / "audit.log"
    (tmp_path / leftover).write_bytes(b"half")
    log = open_log(path)
    fill(log, 5)
    killed = copy_of(path, tmp_path / "killed")
    log.close()
    with killed.open("ab") as file:
        file.write(b'{"event":')

    with opened(killed) as log:
        assert "system.repair" == events(log)[-1].kind


def _torn(tmp_path: Path) -> tuple[Path, bytes]:
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    fill(log, 10)
    killed = copy_of(path, tmp_path / "torn")
    log.close()
    fragment = b'{"event":{"format":1,"log_'
    with killed.open("ab") as file:
        file.write(fragment)
    return killed, fragment


@pytest.mark.parametrize("point", REPAIRING)
def test_a_kill_at_each_point_of_a_repair_is_repaired(
    tmp_path: Path, point: str
) -> None:
    """The fragment is kept once and its repair recorded once, wherever it broke off."""
    path, fragment = _torn(tmp_path)
    process = _start(path, count=0, point=point)
    process.communicate(timeout=60)
    assert -signal.SIGKILL == process.returncode
    with opened(path) as log:
        repairs = [event for event in events(log) if event.kind == "system.repair"]

    assert [10] == [event.seq for event in repairs]
    assert [fragment] == [kept.read_bytes() for kept in path.parent.glob("*.torn-*")]
    assert verified(path).clean


def test_a_repair_that_is_torn_itself_is_repaired(tmp_path: Path) -> None:
    """The record of a repair may be torn by the next crash."""
    path, fragment = _torn(tmp_path)
    head = path.with_name("audit.log.head").read_bytes()
    with opened(path):
        killed = copy_of(path, tmp_path / "again")
    whole = killed.read_bytes()
    record = whole.splitlines(keepends=True)[-1]
    killed.write_bytes(whole[: -len(record) // 2])
    # No sync covered the record, so the head mark is still the one before.
    killed.with_name("audit.log.head").write_bytes(head)

    with opened(killed) as log:
        repairs = [event for event in events(log) if event.kind == "system.repair"]
    kept = {file.read_bytes() for file in killed.parent.glob("*.torn-*")}
    assert [10, 11] == [event.seq for event in repairs]
    assert {fragment, record[: len(record) - (len(record) + 1) // 2]} == kept


@pytest.mark.parametrize("scenario", ["new", "closed", "torn"])
@pytest.mark.parametrize("mode", ["before", "within"])
def test_every_call_that_changes_a_file_is_a_crash_point(
    tmp_path: Path, scenario: str, mode: str
) -> None:
    """A writer dies at its n-th call, for every n, and nothing is lost."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.core.audit_sweep", str(tmp_path), scenario, mode],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert 0 == result.returncode, result.stderr
    assert int(result.stdout) > 100

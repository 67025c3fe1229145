"""Whoever works on a log is killed at every point, call and moment: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hsm_core.settings import AuditSync
from tests.core.audit_faults import BEGINNINGS
from tests.core.audit_kills import check_nothing_lost
from tests.core.audit_support import (
    copy_of,
    events,
    fill,
    open_any,
    open_log,
    opened,
    torn_log,
)
from tests.support import REPOSITORY, require_program


def _kill(folder: Path, *scenario: str) -> int:
    """Run a scenario of `audit_kills`, and return how many rounds it had."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.core.audit_kills", str(folder), *scenario],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert 0 == result.returncode, result.stderr
    return int(result.stdout)


@pytest.mark.parametrize("suffix", [".log", ".sqlite"])
@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_kill_at_each_point_of_writing_loses_nothing(
    tmp_path: Path, suffix: str, sync: AuditSync
) -> None:
    """One log is killed at each point, early and late, and goes on every time."""
    assert _kill(tmp_path, "points", suffix, sync.value) >= 12


@pytest.mark.parametrize("suffix", [".log", ".sqlite"])
@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_kill_at_any_moment_loses_nothing(
    tmp_path: Path, suffix: str, sync: AuditSync
) -> None:
    """A writer that prunes too is killed at random moments, six times on one log."""
    assert 6 == _kill(tmp_path, "moments", suffix, sync.value)


def test_a_kill_at_each_point_of_a_repair_is_repaired(tmp_path: Path) -> None:
    """The fragment is kept and recorded once; of a log half made, the rest is made."""
    assert 9 == _kill(tmp_path, "repairs")


@pytest.mark.parametrize("state", ["new", "closed", "torn"])
def test_every_call_that_changes_a_file_is_a_crash_point(
    tmp_path: Path, state: str
) -> None:
    """A writer dies at its n-th call, for many n, and nothing is lost."""
    assert _kill(tmp_path, "writing", state) > 40


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_kill_at_each_call_of_a_healing_loses_nothing(
    tmp_path: Path, beginning: str
) -> None:
    """A writer dies while it heals, at many calls, and all acknowledged is kept."""
    assert _kill(tmp_path, "healing", beginning) > 8


@pytest.mark.parametrize("scenario", ["first", "again"])
def test_every_call_of_a_prune_is_a_crash_point(tmp_path: Path, scenario: str) -> None:
    """A prune dies at its n-th call, for many n; it is finished or never was."""
    assert _kill(tmp_path, "pruning", scenario) > 40


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


def test_a_repair_that_is_torn_itself_is_repaired(tmp_path: Path) -> None:
    """The record of a repair may be torn by the next crash."""
    fragment = b'{"event":{"format":1,"log_'
    path = torn_log(tmp_path, fragment, 10)
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


def _write_under(
    rule: str, path: Path, sync: AuditSync, count: int, prune: str = "-"
) -> tuple[int, int, list[float]]:
    """
    Write a database while calls of the system fail, or kill the writer, as a rule says.

    Returns:
        How the writer ended, the last record that was acknowledged, and how long
        refusals took.
    """
    strace = [require_program("strace"), "-f", "-qq"]
    if "error" in rule:
        # Quicker, but then strace sends no signals.
        strace.append("--seccomp-bpf")
    process = subprocess.run(
        [
            *(*strace, "-o", "/dev/null", "-e", f"trace={rule.split(':')[0]}"),
            *("-e", f"inject={rule}", sys.executable, "-m", "tests.core.audit_writer"),
            *(str(path), sync.value, str(count), prune),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    words = [line.split() for line in process.stdout.splitlines()]
    acknowledged = [int(value) for word, value in words if word == "ack"]
    refused = [float(value) for word, value in words if word == "refused"]
    return process.returncode, max(acknowledged, default=-1), refused


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_kill_before_a_call_that_changes_the_disk_loses_nothing(
    tmp_path: Path, call: str
) -> None:
    """The n-th such call of the process is its last, for some n of each half."""
    for number in (3, 9, 20):
        path = tmp_path / str(number) / "audit.sqlite"
        rule = f"{call}:signal=SIGKILL:when={number}"
        ended, acknowledged, _ = _write_under(
            rule, path, AuditSync.STRICT, 120, "prune"
        )
        assert ended
        if acknowledged >= 0:
            check_nothing_lost(path, acknowledged)
        else:
            open_any(path).close()


@pytest.mark.parametrize(
    ("rule", "sync"),
    [
        ("fdatasync,fsync:error=EIO:when=6", AuditSync.STRICT),
        ("fdatasync,fsync:error=EIO:when=6..9", AuditSync.BOUNDED),
        ("pwrite64:error=EIO:when=20", AuditSync.BOUNDED),
        ("pwrite64:error=ENOSPC:when=20..21", AuditSync.STRICT),
    ],
)
def test_a_fault_of_the_disk_is_told_and_healed(
    tmp_path: Path, rule: str, sync: AuditSync
) -> None:
    """Who waits is told in time; later appends succeed, and a record tells it."""
    path = tmp_path / "log" / "audit.sqlite"
    open_any(path).close()
    ended, acknowledged, refused = _write_under(rule, path, sync, 300)

    assert 0 == ended
    assert acknowledged >= 299
    # In bounded mode a sync that nobody waits for may fail and heal in between.
    assert refused or sync is AuditSync.BOUNDED
    assert max(refused, default=0) < 30
    log = open_any(path)
    assert "system.resume" in {event.kind for event in events(log)}
    log.close()
    check_nothing_lost(path, acknowledged)


def test_a_disk_that_stays_broken_gets_no_answer_and_keeps_what_it_had(
    tmp_path: Path,
) -> None:
    """Once no sync succeeds any more nothing is acknowledged, and nothing is lost."""
    path = tmp_path / "log" / "audit.sqlite"
    rule = "fdatasync,fsync:error=EIO:when=22+"
    _, acknowledged, refused = _write_under(rule, path, AuditSync.STRICT, 1000)

    assert 0 <= acknowledged < 500
    assert max(refused) < 30
    check_nothing_lost(path, acknowledged)

"""
A trail whose disk failed heals by itself: nothing acknowledged is lost, nothing hidden.

Calls of the system are made to fail in the process itself, once, for a time, and while
it heals; files are moved and removed as other programs do it.
"""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core._internal.audit import outage
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem import audit_medium as healing
from hsm_core.errors import AuditUnavailableError
from hsm_core.settings import AuditSync
from tests.core.audit_faults import (
    BEGINNINGS,
    CHANGING,
    Faults,
    Writer,
    begun,
    check_all_there,
    close_and_check,
    detail_of,
    is_well,
    resumes,
    until,
)
from tests.core.audit_support import (
    draft,
    events,
    open_log,
    opened,
    read_lines,
    verified,
)
from tests.support import REPOSITORY, open_files, require_program

CLOSED = "audit.log.00000001.0000000000000000"

FAULTS = {
    "no room to write": (["write"], errno.ENOSPC, "audit.log", False, "full"),
    "a write fails half-way": (["write"], errno.EIO, "audit.log", True, "write"),
    "a sync fails": (["fdatasync"], errno.EIO, "audit.log", False, "sync"),
    "no room at the sync": (["fdatasync"], errno.ENOSPC, "audit.log", False, "full"),
    "the mark is not written": (["pwrite"], errno.EIO, ".head", False, "sync"),
    "the mark is torn": (["pwrite"], errno.EIO, ".head", True, "sync"),
}
"""Which calls fail, how, on which file, whether half is done, and the cause told."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that is not made yet."""
    return tmp_path / "log" / "audit.log"


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Give calls that can be made to fail."""
    with Faults().installed() as faults:
        yield faults


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trail try again at once, so that a test may try often."""
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(outage, "_LONGEST_PAUSE", 0.01)


@pytest.mark.parametrize("sync", list(AuditSync))
@pytest.mark.parametrize("fault", FAULTS)
def test_what_failed_once_heals(
    path: Path, faults: Faults, fault: str, sync: AuditSync
) -> None:
    """The caller is told, appends are refused, and soon all goes on by itself."""
    names, code, at, short, cause = FAULTS[fault]
    log, writer = begun(path, 3, durable=True, sync=sync)
    faults.fail(*names, code=code, at=at, short=short)
    seen = threading.Event()

    def handler(reached: str) -> None:
        if reached == "audit.outage":
            seen.wait(20)

    with install(handler):
        assert not writer.append(durable=True)
        assert (log.available, log.health.state) == (False, "failing")
        assert log.health.cause == cause
        with pytest.raises(AuditUnavailableError, match="audit log"):
            log.append([draft(99)])
        seen.set()
    until(lambda: is_well(log))
    assert writer.append(durable=True)

    (resume,) = resumes(log)
    assert (cause, 1) == (detail_of(resume).cause, detail_of(resume).attempts)
    assert detail_of(resume).rewritten_from == 4
    assert detail_of(resume).failed_at > 0
    assert (1, 1) == (log.health.failures, log.health.resumes)
    assert log.available
    close_and_check(log, writer, path)
    assert faults.repeated == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_for_a_time_heals_when_that_is_over(
    path: Path, faults: Faults, fault: str
) -> None:
    """It goes on failing, tries ever more rarely, and heals when the cause is gone."""
    names, code, at, short, _cause = FAULTS[fault]
    log, writer = begun(path, 1)
    faults.fail(*names, code=code, at=at, short=short, times=float("inf"))
    if "fdatasync" in names:
        faults.fail("fsync", code=code, times=float("inf"))

    for _ in range(3):
        assert not writer.append()
        time.sleep(0.1)
        assert not log.available
    assert faults.failed >= 2
    faults.lift()
    until(lambda: is_well(log))
    assert writer.append()

    close_and_check(log, writer, path)
    assert faults.repeated == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_bounded_mode_has_acknowledged_outlives_a_failure(
    path: Path, faults: Faults, fault: str
) -> None:
    """Records that were written and not synced are written again."""
    names, code, at, short, _cause = FAULTS[fault]
    log, writer = begun(path, sync=AuditSync.BOUNDED)
    if names == ["write"]:
        # The sync of what comes before must be pending when the write fails.
        faults.fail(*names, code=code, at=at, short=short, skip=5)
    else:
        faults.fail(*names, code=code, at=at, short=short)
    acknowledged = [writer.append() for _ in range(7)]
    assert sum(acknowledged) >= 1
    until(lambda: log.health.failures)
    until(lambda: is_well(log))

    assert log.health.failures == 1
    assert resumes(log)
    close_and_check(log, writer, path)


def test_after_a_failed_sync_the_file_is_left_behind(
    path: Path, faults: Faults
) -> None:
    """What is not known to be durable goes to a new segment; the old one is closed."""
    log, writer = begun(path, 1)
    old = path.stat().st_ino
    faults.fail("fdatasync", code=errno.EIO, at="audit.log")
    writer.append()
    until(lambda: is_well(log))

    closed = path.with_name(CLOSED)
    assert (old, 1) == (closed.stat().st_ino, closed.stat().st_nlink)
    assert path.stat().st_ino != old
    assert len(read_lines(closed)) == 3
    assert [1, 2, 3] == [event.seq for event in events(log)[1:]]
    close_and_check(log, writer, path)
    assert faults.repeated == []


def test_a_segment_without_anything_durable_is_not_closed(
    path: Path, faults: Faults
) -> None:
    """The new file takes its place."""
    log, writer = begun(path)
    faults.fail("fdatasync", code=errno.EIO, at="audit.log")
    assert not writer.append()
    until(lambda: is_well(log))

    assert not path.with_name(CLOSED).exists()
    close_and_check(log, writer, path)


@pytest.mark.parametrize("calls", [["fdatasync"], ["fdatasync", "fsync"]])
def test_a_disk_that_never_syncs_does_not_fill_the_trail(
    path: Path, faults: Faults, calls: list[str]
) -> None:
    """Records of outages are at most as frequent as attempts, and those get rarer."""
    log, writer = begun(path)
    faults.fail(*calls, code=errno.EIO, times=float("inf"))
    writer.append()
    began = time.monotonic()
    time.sleep(0.7)
    assert log.available is False
    faults.lift()
    until(lambda: is_well(log))

    assert len(resumes(log)) <= 6 + (time.monotonic() - began)
    assert writer.append()
    close_and_check(log, writer, path)
    assert faults.repeated == []


@pytest.mark.parametrize(
    ("beginning", "times"),
    [("write", 1), ("sync", 1), ("sync", 2), ("mark", 1), ("moved", 2)],
)
def test_a_fault_while_it_heals_is_healed(
    tmp_path: Path, hasty: None, beginning: str, times: int
) -> None:
    """Whichever call of a healing fails, the next attempt mends that too."""
    for number in range(40):
        path = tmp_path / f"{number}" / "audit.log"
        if not _reaches(path, beginning, number, times):
            break
    assert 5 < number < 40


def _reaches(path: Path, beginning: str, number: int, times: int) -> bool:
    """Let the healing's n-th call fail, check all, and return whether there was one."""
    log, writer = begun(path, 2, durable=True, sync=AuditSync.BOUNDED)
    with Faults().installed() as faults:
        before: list[int] = []

        def handler(reached: str) -> None:
            if reached == "audit.outage" and not before:
                before.append(faults.failed)
                faults.fail(*CHANGING, code=errno.EIO, skip=number, times=times)

        BEGINNINGS[beginning](path, faults)
        with install(handler):
            writer.append(durable=True)
            until(lambda: is_well(log))
        reached = faults.failed > before[0]
        faults.lift()
        assert writer.append()
        close_and_check(log, writer, path)
    assert faults.repeated == []
    return reached


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_acknowledged_that_a_power_cut_could_lose(
    tmp_path: Path, hasty: None, seed: int
) -> None:
    """Under any faults, what was promised is durable under a durable name."""
    choice = random.Random(seed)
    path = tmp_path / "log" / "audit.log"
    cuts: list[tuple[list[str], dict[str, bytes]]] = []
    with Faults(path.parent).installed() as faults:
        log = open_log(path, segment_bytes=4096)
        writer = Writer(log)
        for _ in range(30):
            if choice.random() < 0.4:
                call = choice.choice([*CHANGING, "fdatasync", "fsync", "write"])
                times, skip = choice.choice([1, 1, 2, 5]), choice.choice([0, 0, 1, 3])
                code = choice.choice([errno.EIO, errno.ENOSPC, errno.EMFILE])
                faults.fail(call, code=code, times=times, skip=skip)
            if choice.random() < 0.1:
                # Healing may have moved it just now.
                with suppress(FileNotFoundError):
                    path.replace(path.with_name("audit.log.1"))
            if writer.append():
                cuts.append((list(writer.acknowledged), faults.after_power_cut()))
            elif choice.random() < 0.7:
                until(lambda: is_well(log))
        faults.lift()
        until(lambda: is_well(log))
        close_and_check(log, writer, path)
    assert faults.repeated == []
    assert log.health.failures
    for number, (acknowledged, left) in enumerate(choice.sample(cuts, 3)):
        _check_left(tmp_path / f"cut-{number}", acknowledged, left)


def _check_left(folder: Path, acknowledged: list[str], left: dict[str, bytes]) -> None:
    """Check what a power cut has left: nothing promised is missing."""
    folder.mkdir(0o700)
    for name, content in left.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    assert verified(folder / "audit.log").records >= len(acknowledged)
    with opened(folder / "audit.log") as log:
        there = {event.request_id for event in events(log)}
        assert [name for name in acknowledged if name not in there] == []
    assert verified(folder / "audit.log").clean


def test_syncs_that_fail_for_hours_leave_few_files(
    path: Path, hasty: None, faults: Faults
) -> None:
    """Each try ends where the one before began: files and handles do not add up."""
    log, writer = begun(path, 3)
    held, threads = len(open_files(path.parent)), threading.active_count()
    faults.fail("fdatasync", code=errno.EIO, at="audit.log", times=float("inf"))
    assert not writer.append()
    until(lambda: faults.failed > 60)
    faults.lift()
    until(lambda: is_well(log))
    assert writer.append()

    assert held == len(open_files(path.parent))
    assert threads >= threading.active_count()
    assert [path.with_name(CLOSED)] == list(path.parent.glob("audit.log.0*"))
    close_and_check(log, writer, path)
    assert faults.repeated == []


def test_a_leftover_that_reads_otherwise_is_not_copied(
    path: Path, hasty: None, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was durable stays in its file if the disk no longer gives it back right."""
    log, writer = begun(path, 1)
    faults.fail("fdatasync", code=errno.EIO, at="audit.log")
    assert not writer.append()
    until(lambda: is_well(log))
    assert writer.append()
    whole = os.pread

    def forgetful(descriptor: int, size: int, offset: int) -> bytes:
        found = whole(descriptor, size, offset)
        return bytes(40) + found[40:] if offset == 0 else found

    with monkeypatch.context() as patch:
        patch.setattr(healing, "_check_durable", lambda _segments: None)
        patch.setattr(os, "pread", forgetful)
        faults.fail("fdatasync", code=errno.EIO, at="audit.log")
        assert not writer.append()
        until(lambda: is_well(log))

    assert 2 == len(list(path.parent.glob("audit.log.0*")))
    close_and_check(log, writer, path)


@pytest.mark.parametrize("call", ["rename", "open", "fsync"])
def test_a_segment_that_can_not_be_closed_is_closed_later(
    path: Path, faults: Faults, call: str
) -> None:
    """Without a free descriptor, say, the trail fails and heals, and loses nothing."""
    log, writer = begun(path, segment_bytes=4096)
    faults.fail(call, code=errno.EMFILE, times=3)
    for _ in range(40):
        while not writer.append():
            until(lambda: is_well(log))
    until(lambda: is_well(log))

    assert log.health.failures >= 1
    assert len(list(path.parent.glob("audit.log.0*"))) >= 2
    close_and_check(log, writer, path)


def test_a_taken_name_of_a_segment_is_waited_for(path: Path) -> None:
    """What lies there is not overwritten; when it is gone the trail goes on."""
    log, writer = begun(path, segment_bytes=4096)
    closed = path.with_name(CLOSED)
    closed.write_bytes(b"not ours")
    closed.chmod(0o600)
    while log.health.failures == 0:
        writer.append()
    time.sleep(0.3)
    assert not log.available
    assert closed.read_bytes() == b"not ours"
    closed.unlink()
    until(lambda: is_well(log))

    assert len(resumes(log)) == 1
    close_and_check(log, writer, path)


def test_records_whose_sync_failed_before_a_restart_are_written_again(
    path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A start believes no sync of a file whose sync has failed, not even its own.

    The kernel holds such records for clean and may drop them; only if they are written
    once more does a sync mean anything.
    """
    log, writer = begun(path, 1)
    begins = path.stat().st_size
    faults.fail("fdatasync", "fsync", code=errno.EIO, times=float("inf"))
    assert not writer.append()
    with pytest.raises(AuditUnavailableError):
        log.close()
    faults.lift()
    undurable = path.read_bytes()[begins:]
    assert undurable
    dirty: list[bytes] = []
    synced: list[bytes] = []
    pwrite, fsync = os.pwrite, os.fsync

    def noting(descriptor: int, data: bytes, offset: int) -> int:
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            dirty.append(data)
            assert offset == begins
        return pwrite(descriptor, data, offset)

    def syncing(descriptor: int) -> None:
        fsync(descriptor)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            synced.extend(dirty)

    def handler(reached: str) -> None:
        if reached == "audit.open.after_mark":
            assert synced == [undurable]

    with monkeypatch.context() as patch, install(handler):
        patch.setattr(os, "pwrite", noting)
        patch.setattr(os, "fsync", syncing)
        log = open_log(path)
    close_and_check(log, writer, path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_trail_that_is_closed_while_it_fails_is_as_after_a_crash(
    path: Path, faults: Faults, fault: str
) -> None:
    """Closing does not wait for a disk that is broken; the lock is released."""
    names, code, at, short, _cause = FAULTS[fault]
    log, writer = begun(path, 3, durable=True, sync=AuditSync.BOUNDED)
    faults.fail(*names, code=code, at=at, short=short, times=float("inf"))
    faults.fail("fsync", "ftruncate", code=code, times=float("inf"))
    assert not writer.append(durable=True)
    with pytest.raises(AuditUnavailableError):
        log.close()
    faults.lift()

    with opened(path) as log:
        check_all_there(log, writer)
    assert verified(path).clean


def test_who_reads_while_it_heals_sees_no_damage(path: Path, hasty: None) -> None:
    """A reader gets whole lines or is told to come back; never an alarm."""
    log, writer = begun(path, sync=AuditSync.BOUNDED)
    over = threading.Event()
    alarms: list[Exception] = []

    def read() -> None:
        while not over.is_set():
            try:
                events(log)
            except AuditUnavailableError:
                pass
            except Exception as error:
                alarms.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    with Faults().installed() as faults:
        for number in range(12):
            for _ in range(5):
                writer.append()
            call = ["fdatasync", "write", "pwrite"][number % 3]
            faults.fail(call, code=errno.EIO, short=True)
            writer.append(durable=True)
            until(lambda: is_well(log))
    over.set()
    reader.join()

    assert alarms == []
    assert log.health.resumes >= 12
    close_and_check(log, writer, path)


def test_who_reads_while_a_segment_is_made_again_sees_all_or_is_told(
    path: Path, hasty: None, faults: Faults
) -> None:
    """No page lacks the newest records as if they had never been."""
    log, writer = begun(path, 5, durable=True, sync=AuditSync.BOUNDED)
    writer.append()
    seen: list[int] = []

    def handler(reached: str) -> None:
        if reached != "audit.heal.after_rename":
            return
        try:
            seen.append(len(log.lines(0, 100)) - log.head().seq)
        except AuditUnavailableError as error:
            seen.append("again" in str(error))

    with install(handler):
        faults.fail("fdatasync", code=errno.EIO)
        writer.append(durable=True)
        until(lambda: is_well(log))
    assert seen == [1]
    close_and_check(log, writer, path)


def test_a_failure_that_is_no_error_of_the_system_is_one_all_the_same(
    path: Path, hasty: None
) -> None:
    """Whatever stops the thread, who waits is told, and the trail goes on."""
    log, writer = begun(path)
    times = iter([True])

    def handler(reached: str) -> None:
        if reached == "audit.after_write" and next(times, False):
            raise RuntimeError

    with install(handler):
        assert not writer.append()
        until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)


UNDER_STRACE = """
import sys
from pathlib import Path
from hsm_core.errors import AuditUnavailableError, StoreLockedError
from tests.core.audit_faults import Writer, until
from tests.core.audit_support import open_log

log = open_log(Path(sys.argv[1]))
writer = Writer(log)
for _ in range(8):
    if not writer.append():
        until(lambda: log.health.state == "ok")
log.close()
print(len(writer.acknowledged), log.health.failures)
"""


def test_the_system_itself_fails_syncs(path: Path, tmp_path: Path) -> None:
    """No sync of a descriptor succeeds, nor is tried, after one of it has failed."""
    strace = require_program("strace")
    trace = tmp_path / "trace"
    result = subprocess.run(
        [
            *(strace, "-f", "-qq", "-y", "-o", str(trace)),
            *("-e", "trace=fdatasync,close", "-e", "signal=none"),
            *("-e", "inject=fdatasync:error=EIO:when=3..12+4"),
            *(sys.executable, "-c", UNDER_STRACE, str(path)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    acknowledged, failures = map(int, result.stdout.split())
    assert (failures >= 2, acknowledged) == (True, 8 - failures)

    unsound: set[str] = set()
    for line in trace.read_text().splitlines():
        call = re.search(r"(fdatasync|close)\((\d+)<", line)
        if call is None:
            continue
        if call[1] == "close":
            unsound.discard(call[2])
            continue
        assert call[2] not in unsound, line
        if "EIO" in line:
            unsound.add(call[2])
    assert verified(path).records >= acknowledged + failures

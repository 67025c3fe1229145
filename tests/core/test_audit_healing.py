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
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsm_core._internal.failpoints import install
from hsm_core._internal.stores.filesystem import audit_medium
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.trail import outage
from hsm_core.errors import AuditUnavailableError, StoreLockedError
from hsm_core.factory import open_hsm
from hsm_core.model import AuditEvent, ResumeDetail
from hsm_core.settings import AuditSync, Settings
from tests.core.audit_faults import BEGINNINGS, CHANGING, Faults, Writer, until
from tests.core.audit_support import draft, events, open_log, opened, verified
from tests.core.hsm_support import session_of
from tests.support import REPOSITORY, require_program

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


def _is_well(log: FileAuditLog) -> bool:
    return log.health.state == "ok"


def _resumes(log: FileAuditLog) -> list[AuditEvent]:
    return [event for event in events(log) if event.kind == "system.resume"]


def _detail(event: AuditEvent) -> ResumeDetail:
    assert isinstance(event.detail, ResumeDetail)
    return event.detail


def _close_and_check(log: FileAuditLog, writer: Writer, path: Path) -> None:
    """Check that what was acknowledged is there, once, in order, now and later."""
    _check_all_there(log, writer)
    log.close()
    assert verified(path).clean
    with opened(path) as log:
        _check_all_there(log, writer)
        log.append([draft(0)]).wait()
    assert verified(path).clean


def _check_all_there(log: FileAuditLog, writer: Writer) -> None:
    found = [event.request_id for event in events(log) if event.kind == "Sign"]
    assert len(found) == len(set(found))
    there = set(found)
    assert [name for name in writer.acknowledged if name not in there] == []
    assert sorted(found, key=lambda name: int(name.rpartition("-")[2])) == found


@pytest.mark.parametrize("sync", list(AuditSync))
@pytest.mark.parametrize("fault", FAULTS)
def test_what_failed_once_heals(
    path: Path, faults: Faults, fault: str, sync: AuditSync
) -> None:
    """The caller is told, appends are refused, and soon all goes on by itself."""
    names, code, at, short, cause = FAULTS[fault]
    log = open_log(path, sync=sync)
    writer = Writer(log)
    for _ in range(3):
        assert writer.append(durable=True)
    faults.fail(*names, code=code, at=at, short=short)

    assert not writer.append(durable=True)
    assert (log.available, log.health.state) == (False, "failing")
    assert log.health.cause == cause
    with pytest.raises(AuditUnavailableError, match="trail"):
        log.append([draft(99)])
    until(lambda: _is_well(log))
    assert writer.append(durable=True)

    (resume,) = _resumes(log)
    assert (cause, 1) == (_detail(resume).cause, _detail(resume).attempts)
    assert _detail(resume).rewritten_from == 3
    assert _detail(resume).failed_at > 0
    assert (1, 1) == (log.health.failures, log.health.resumes)
    assert log.available
    _close_and_check(log, writer, path)
    assert faults.repeated == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_for_a_time_heals_when_that_is_over(
    path: Path, faults: Faults, fault: str
) -> None:
    """It goes on failing, tries ever more rarely, and heals when the cause is gone."""
    names, code, at, short, _cause = FAULTS[fault]
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    faults.fail(*names, code=code, at=at, short=short, times=float("inf"))
    if "fdatasync" in names:
        faults.fail("fsync", code=code, times=float("inf"))

    for _ in range(3):
        assert not writer.append()
        time.sleep(0.1)
        assert not log.available
    assert 2 <= faults.failed < 12
    faults.lift()
    assert until(lambda: _is_well(log)) < 2.0
    assert writer.append()

    _close_and_check(log, writer, path)
    assert faults.repeated == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_bounded_mode_has_acknowledged_outlives_a_failure(
    path: Path, faults: Faults, fault: str
) -> None:
    """Records that were written and not synced are written again."""
    names, code, at, short, _cause = FAULTS[fault]
    log = open_log(path, sync=AuditSync.BOUNDED)
    writer = Writer(log)
    if names == ["write"]:
        # The sync of what comes before must be pending when the write fails.
        faults.fail(*names, code=code, at=at, short=short, skip=5)
    else:
        faults.fail(*names, code=code, at=at, short=short)
    acknowledged = [writer.append() for _ in range(7)]
    assert sum(acknowledged) >= 1
    until(lambda: log.health.failures)
    until(lambda: _is_well(log))

    assert log.health.failures == 1
    assert _resumes(log)
    _close_and_check(log, writer, path)


def test_after_a_failed_sync_the_file_is_left_behind(
    path: Path, faults: Faults
) -> None:
    """What is not known to be durable goes to a new segment; the old one is closed."""
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    old = path.stat().st_ino
    faults.fail("fdatasync", code=errno.EIO, at="audit.log")
    writer.append()
    until(lambda: _is_well(log))

    closed = path.with_name(CLOSED)
    assert (old, 1) == (closed.stat().st_ino, closed.stat().st_nlink)
    assert path.stat().st_ino != old
    assert len(closed.read_bytes().splitlines()) == 2
    assert [1, 2] == [event.seq for event in events(log)[1:]]
    _close_and_check(log, writer, path)
    assert faults.repeated == []


def test_a_segment_without_anything_durable_is_not_closed(
    path: Path, faults: Faults
) -> None:
    """The new file takes its place."""
    log = open_log(path)
    writer = Writer(log)
    faults.fail("fdatasync", code=errno.EIO, at="audit.log")
    assert not writer.append()
    until(lambda: _is_well(log))

    assert not path.with_name(CLOSED).exists()
    _close_and_check(log, writer, path)


@pytest.mark.parametrize("calls", [["fdatasync"], ["fdatasync", "fsync"]])
def test_a_disk_that_never_syncs_does_not_fill_the_trail(
    path: Path, faults: Faults, calls: list[str]
) -> None:
    """Records of outages are at most as frequent as attempts, and those get rarer."""
    log = open_log(path)
    writer = Writer(log)
    faults.fail(*calls, code=errno.EIO, times=float("inf"))
    writer.append()
    time.sleep(0.7)
    assert log.available is False
    faults.lift()
    until(lambda: _is_well(log))

    assert len(_resumes(log)) <= 6
    assert writer.append()
    _close_and_check(log, writer, path)
    assert faults.repeated == []


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("beginning", BEGINNINGS)
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
    log = open_log(path, sync=AuditSync.BOUNDED)
    writer = Writer(log)
    for _ in range(2):
        writer.append(durable=True)
    with Faults().installed() as faults:
        begun: list[int] = []

        def handler(reached: str) -> None:
            if reached == "audit.outage" and not begun:
                begun.append(faults.failed)
                faults.fail(*CHANGING, code=errno.EIO, skip=number, times=times)

        BEGINNINGS[beginning](path, faults)
        with install(handler):
            writer.append(durable=True)
            until(lambda: _is_well(log))
        reached = faults.failed > begun[0]
        faults.lift()
        assert writer.append()
        _close_and_check(log, writer, path)
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
            if choice.random() < 0.1 and path.exists():
                path.replace(path.with_name("audit.log.1"))
            if writer.append():
                cuts.append((list(writer.acknowledged), faults.after_power_cut()))
            elif choice.random() < 0.7:
                until(lambda: _is_well(log))
        faults.lift()
        until(lambda: _is_well(log))
        _close_and_check(log, writer, path)
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


@pytest.mark.parametrize("call", ["rename", "open", "fsync"])
def test_a_segment_that_can_not_be_closed_is_closed_later(
    path: Path, faults: Faults, call: str
) -> None:
    """Without a free descriptor, say, the trail fails and heals, and loses nothing."""
    log = open_log(path, segment_bytes=4096)
    writer = Writer(log)
    faults.fail(call, code=errno.EMFILE, times=3)
    for _ in range(40):
        while not writer.append():
            until(lambda: _is_well(log))
    until(lambda: _is_well(log))

    assert log.health.failures >= 1
    assert len(list(path.parent.glob("audit.log.0*"))) >= 2
    _close_and_check(log, writer, path)


def test_a_taken_name_of_a_segment_is_waited_for(path: Path) -> None:
    """What lies there is not overwritten; when it is gone the trail goes on."""
    log = open_log(path, segment_bytes=4096)
    writer = Writer(log)
    closed = path.with_name(CLOSED)
    closed.write_bytes(b"not ours")
    closed.chmod(0o600)
    while log.health.failures == 0:
        writer.append()
    time.sleep(0.3)
    assert not log.available
    assert closed.read_bytes() == b"not ours"
    closed.unlink()
    until(lambda: _is_well(log))

    assert len(_resumes(log)) == 1
    _close_and_check(log, writer, path)


def _moved(path: Path) -> None:
    path.rename(path.with_name("audit.log.1"))


def _rotated(path: Path) -> None:
    _moved(path)
    path.touch(0o640)


def _deleted(path: Path) -> None:
    path.unlink()


def _without_mark(path: Path) -> None:
    path.with_name("audit.log.head").unlink()


@pytest.mark.parametrize("sync", list(AuditSync))
@pytest.mark.parametrize("disturb", [_moved, _rotated, _deleted])
def test_a_file_that_is_gone_is_made_again(
    path: Path, disturb: Callable[[Path], None], sync: AuditSync
) -> None:
    """Moved, rotated or removed: noticed by the next append, and mended."""
    log = open_log(path, sync=sync)
    writer = Writer(log)
    for _ in range(5):
        writer.append(durable=True)
    disturb(path)

    assert not writer.append()
    until(lambda: _is_well(log))
    assert writer.append()
    assert ["moved"] == [_detail(event).cause for event in _resumes(log)]
    assert path.stat().st_mode & 0o777 == 0o600
    _close_and_check(log, writer, path)


def _without_lock(path: Path) -> None:
    path.with_name("audit.log.lock").unlink()


@pytest.mark.parametrize("disturb", [_moved, _deleted, _without_mark, _without_lock])
def test_an_idle_trail_sees_that_a_file_is_gone(
    path: Path, disturb: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to append something for that."""
    monkeypatch.setattr(audit_medium, "_LOOK_SECONDS", 0.05)
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    disturb(path)
    until(lambda: log.health.resumes)

    assert writer.append()
    assert ["moved"] == [_detail(event).cause for event in _resumes(log)]
    with pytest.raises(StoreLockedError):
        open_log(path)
    _close_and_check(log, writer, path)


def test_a_file_that_is_put_back_is_gone_on_with(path: Path, hasty: None) -> None:
    """Who moved it by mistake undoes that; a file of others is never overwritten."""
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    aside = path.with_name("aside")
    path.rename(aside)
    path.write_bytes(b"not ours")

    assert not writer.append()
    time.sleep(0.1)
    assert (log.health.state, log.health.cause) == ("failing", "moved")
    with pytest.raises(AuditUnavailableError, match="moved"):
        log.append([draft()])
    assert path.read_bytes() == b"not ours"
    aside.rename(path)
    until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


def test_a_foreign_file_that_is_taken_away_is_waited_for(
    path: Path, hasty: None
) -> None:
    """A copy, a link, a directory: all stay until somebody removes them."""
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    for make in (
        lambda: shutil.copy2(path.with_name("aside"), path),
        lambda: path.symlink_to("aside"),
        path.mkdir,
    ):
        path.rename(path.with_name("aside"))
        make()
        assert not writer.append()
        time.sleep(0.05)
        assert log.health.cause == "moved"
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


def test_a_truncated_file_is_noticed_and_not_gone_on_with(
    path: Path, hasty: None
) -> None:
    """A rotation by copying empties the file; only its content helps."""
    log = open_log(path)
    writer = Writer(log)
    for _ in range(3):
        writer.append()
    content = path.read_bytes()
    os.truncate(path, 0)

    assert not writer.append()
    time.sleep(0.05)
    assert (log.health.state, log.health.cause) == ("failing", "moved")
    path.write_bytes(bytes(len(content)))
    time.sleep(0.05)
    assert not log.available
    path.write_bytes(content)
    until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


def test_lines_of_others_are_cut_off(path: Path) -> None:
    """What another program appended is no part of the trail, and is noticed."""
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    with path.open("ab") as file:
        file.write(b"hello\n")

    assert not writer.append()
    until(lambda: _is_well(log))
    assert writer.append()
    assert b"hello" not in path.read_bytes()
    _close_and_check(log, writer, path)


def test_a_directory_that_is_gone_is_waited_for(path: Path, hasty: None) -> None:
    """When it is back, file, head mark and lock are made again."""
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    shutil.rmtree(path.parent)

    assert not writer.append()
    time.sleep(0.05)
    assert log.health.state == "failing"
    path.parent.mkdir(0o755)
    time.sleep(0.05)
    assert log.health.state == "failing"
    path.parent.chmod(0o700)
    until(lambda: _is_well(log))
    assert writer.append()
    assert path.with_name("audit.log.lock").exists()
    _close_and_check(log, writer, path)


def test_a_directory_without_its_closed_segments_is_not_enough(
    path: Path, hasty: None
) -> None:
    """A trail does not go on without its beginning."""
    log = open_log(path, segment_bytes=4096)
    writer = Writer(log)
    while not path.with_name(CLOSED).exists():
        writer.append()
    path.parent.rename(path.parent.with_name("aside"))
    path.parent.mkdir(0o700)

    assert not writer.append()
    time.sleep(0.05)
    assert log.health.cause == "moved"
    shutil.rmtree(path.parent)
    path.parent.with_name("aside").rename(path.parent)
    until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


def test_lost_permission_is_waited_for(path: Path, faults: Faults) -> None:
    """A directory that may not be looked into hides the file; then it is back."""
    log = open_log(path)
    writer = Writer(log)
    writer.append()
    forbidden = True
    whole = os.stat

    def stat(*given: object, **named: object) -> os.stat_result:
        if forbidden and str(given[0]) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(*given, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", stat)
        assert not writer.append()
        time.sleep(0.1)
        assert log.health.cause == "moved"
        forbidden = False
        until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_hanging_disk_refuses_at_once_and_resumes(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Waiting ends in time, then nobody waits any more; all goes on when it does."""
    log = open_log(path, timeout_seconds=0.3)
    writer = Writer(log)
    writer.append()
    release = threading.Event()
    whole = getattr(os, call)

    def hanging(*given: object) -> object:
        release.wait(20)
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, hanging)
        ticket = log.append([draft(1000)])
        began = time.monotonic()
        assert not writer.append()
        assert time.monotonic() - began < 0.6
        until(lambda: not log.available)
        assert ("failing", "hanging", 1, 0) == (
            log.health.state,
            log.health.cause,
            log.health.failures,
            log.health.resumes,
        )
        began = time.monotonic()
        for _ in range(100):
            assert not writer.append()
        assert time.monotonic() - began < 0.2
        release.set()
        ticket.wait(20)
    until(lambda: log.health.resumes)
    assert writer.append()

    assert ("ok", 1) == (log.health.state, log.health.failures)
    assert ["hanging"] == [_detail(event).cause for event in _resumes(log)]
    assert 102 == len(writer.refused) + 1
    log.close()
    assert verified(path).clean


def test_a_disk_that_hangs_and_then_fails_heals(
    path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two faults at once are two causes, and one outage after the other."""
    log = open_log(path, timeout_seconds=0.2)
    writer = Writer(log)
    writer.append()

    def hanging(descriptor: int) -> None:
        time.sleep(0.4)
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", hanging)
        assert not writer.append()
        until(lambda: log.health.cause == "sync")
    until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_trail_that_is_closed_while_it_fails_is_as_after_a_crash(
    path: Path, faults: Faults, fault: str
) -> None:
    """Closing does not wait for a disk that is broken; the lock is released."""
    names, code, at, short, _cause = FAULTS[fault]
    log = open_log(path, sync=AuditSync.BOUNDED)
    writer = Writer(log)
    for _ in range(3):
        assert writer.append(durable=True)
    faults.fail(*names, code=code, at=at, short=short, times=float("inf"))
    faults.fail("fsync", "ftruncate", code=code, times=float("inf"))
    assert not writer.append(durable=True)
    began = time.monotonic()
    with pytest.raises(AuditUnavailableError):
        log.close()
    assert time.monotonic() - began < 1.0
    faults.lift()

    with opened(path) as log:
        _check_all_there(log, writer)
    assert verified(path).clean


def test_who_reads_while_it_heals_sees_no_damage(path: Path, hasty: None) -> None:
    """A reader gets whole lines or is told to come back; never an alarm."""
    log = open_log(path, sync=AuditSync.BOUNDED)
    writer = Writer(log)
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
        for number in range(25):
            for _ in range(5):
                writer.append()
            call = ["fdatasync", "write", "pwrite"][number % 3]
            faults.fail(call, code=errno.EIO, short=True)
            writer.append(durable=True)
            until(lambda: _is_well(log))
    over.set()
    reader.join()

    assert alarms == []
    assert log.health.resumes >= 25
    _close_and_check(log, writer, path)


def test_a_failure_that_is_no_error_of_the_system_is_one_all_the_same(
    path: Path, hasty: None
) -> None:
    """Whatever stops the thread, who waits is told, and the trail goes on."""
    log = open_log(path)
    writer = Writer(log)
    times = iter([True])

    def handler(reached: str) -> None:
        if reached == "audit.after_write" and next(times, False):
            raise RuntimeError

    with install(handler):
        assert not writer.append()
        until(lambda: _is_well(log))
    assert writer.append()
    _close_and_check(log, writer, path)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_kill_at_each_call_of_a_healing_loses_nothing(
    tmp_path: Path, beginning: str
) -> None:
    """A writer dies while it heals, at every call, and all acknowledged is kept."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.core.audit_healing_sweep"),
            *(str(tmp_path), beginning),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert 0 == result.returncode, result.stderr
    assert int(result.stdout) > 8


def test_an_hsm_behind_a_hanging_disk_answers_in_time(tmp_path: Path) -> None:
    """Within two seconds it refuses, it tells its state, and later it goes on."""
    settings = Settings(
        key_dir=tmp_path / "keys", audit_log=tmp_path / "log" / "audit.log"
    )
    release = threading.Event()

    def handler(reached: str) -> None:
        if reached == "audit.before_sync":
            release.wait(20)

    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as gateway:
        session = session_of(gateway)
        key = session.create_key("AES-256-GCM").key_id
        with install(handler):
            attempts: list[Callable[[], object]] = [
                lambda: session.encrypt(key, b"secret"),
                lambda: session.create_key("AES-256-GCM"),
                lambda: session.random(16),
            ]
            for attempt in attempts:
                began = time.monotonic()
                with pytest.raises(AuditUnavailableError):
                    attempt()
                assert time.monotonic() - began < 2.0
            audit = session.status().audit
            assert ("failing", "hanging", False) == (
                audit.state,
                audit.cause,
                audit.available,
            )
            assert [key] == [item.key_id for item in session.keys()]
            release.set()
            until(lambda: session.status().audit.state == "ok")
        assert session.encrypt(key, b"secret")
    assert verified(tmp_path / "log" / "audit.log", bytes(32)).clean


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

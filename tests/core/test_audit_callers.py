"""Records that callers of bounded mode write themselves, while a thread syncs."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path
from types import FrameType

import pytest

from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.log import DurableAuditLog
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core.errors import AuditUnavailableError
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeClock
from tests.core.audit_faults import (
    begun,
    close_and_check,
    detail_of,
    is_well,
    resumes,
    until,
)
from tests.core.audit_support import KEY, draft, events, is_done, open_any, verified

NAMES = ["audit.log", "audit.sqlite"]


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give the path of a log of each kind that is not made yet."""
    name: str = request.param
    return tmp_path / "log" / name


def _open(path: Path, **given: float) -> DurableAuditLog:
    sizes = {"segment_bytes": 8192, "timeout_seconds": 20.0} | given
    return open_any(path, sync=AuditSync.BOUNDED, **sizes)  # type: ignore[arg-type]


def _used(log: DurableAuditLog) -> list[str]:
    """Return the requests whose uses are on record, in order."""
    return [event.request_id for event in events(log) if event.kind == "Sign"]


def _writers(log: DurableAuditLog, calls: list[Callable[[], object]]) -> list[str]:
    """Return the names of the threads that write while *calls* are made."""
    names: list[str] = []

    def note(reached: str) -> None:
        if reached == "audit.before_write":
            names.append(threading.current_thread().name)

    with install(note):
        for call in calls:
            call()
    return names


def test_a_caller_writes_its_record_itself(path: Path) -> None:
    """Its ticket is done at once, and another thread makes the record durable."""
    log = _open(path)
    names = _writers(log, [lambda: log.append([draft(0)]).wait(0)])

    assert [threading.current_thread().name] == names
    head = log.head()
    assert head.seq >= 0
    until(lambda: log.durable_head() == head)
    log.close()


def test_under_an_event_loop_no_caller_writes(path: Path) -> None:
    """Records are handed over, so that a disk that hangs holds no loop."""
    log = _open(path)
    log.hand_over()
    names = _writers(log, [lambda: log.append([draft(0)]).wait()])

    assert ["hsm-audit-flusher"] == names
    log.close()


def test_a_durable_record_waits_for_its_sync(path: Path) -> None:
    """The caller writes it, and its ticket is done when it is durable."""
    log = _open(path)
    log.append([draft(0)]).wait()
    log.append([draft(1)], durable=True).wait()

    assert log.head() == log.durable_head()
    log.close()


def test_a_slow_sync_puts_no_more_records_at_risk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers who are 512 records ahead of the disk wait for it."""
    log, may_end, sync = _open(path), threading.Event(), os.fdatasync
    log.append([draft(0)], durable=True).wait()

    def slowly(descriptor: int) -> None:
        may_end.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slowly)
    tickets = (log.append([draft(number)]) for number in range(1, 2000))
    answered = sum(1 for _ in takewhile(is_done, tickets))

    assert 0 < answered < 512
    may_end.set()
    log.close()


def test_records_of_many_threads_stand_in_one_chain(path: Path) -> None:
    """Over full segments, durable records and an event loop that joins in."""
    log = _open(path)

    def append(first: int) -> list[str]:
        names = []
        for number in range(first, first + 150):
            given = draft(number)
            log.append([given], durable=number % 10 == 0).wait()
            names.append(given.request_id)
            if number == 75:
                log.hand_over()
        return names

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(append, first) for first in range(0, 4000, 1000)]
        acknowledged = [name for each in found for name in each.result()]
    log.close()

    assert verified(path).clean
    log = _open(path)
    assert sorted(acknowledged) == sorted(_used(log))
    log.close()


def test_a_failed_write_of_a_caller_heals(tmp_path: Path) -> None:
    """It is told, and its record and what it wrote in part are made good."""
    path = tmp_path / "log" / "audit.log"
    log, writer = begun(path, 3, sync=AuditSync.BOUNDED)
    whole = os.write
    failing = 2

    def write(descriptor: int, data: bytes) -> int:
        nonlocal failing
        if failing == 2:
            failing = 1
            return whole(descriptor, data[: len(data) // 2])
        if failing:
            failing = 0
            raise OSError(errno.EIO, "I/O error")
        return whole(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        assert not writer.append()
        until(lambda: log.health.resumes)
        until(lambda: is_well(log))
    assert writer.append()

    assert ["write"] == [detail_of(event).cause for event in resumes(log)]
    close_and_check(log, writer, path)


def test_a_failed_sync_loses_nothing_that_callers_wrote_meanwhile(
    tmp_path: Path,
) -> None:
    """What was answered is written again, also what came during the failed sync."""
    path = tmp_path / "log" / "audit.log"
    log, writer = begun(path, 1, durable=True, sync=AuditSync.BOUNDED)
    whole, begins, ends = os.fdatasync, threading.Event(), threading.Event()

    def fdatasync(descriptor: int) -> None:
        if not begins.is_set():
            begins.set()
            ends.wait(60)
            raise OSError(errno.EIO, "I/O error")
        whole(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        assert writer.append()
        assert begins.wait(60)
        assert all(writer.append() for _ in range(5))
        ends.set()
        until(lambda: log.health.resumes)
        until(lambda: is_well(log))

    assert ["sync"] == [detail_of(event).cause for event in resumes(log)]
    close_and_check(log, writer, path)


def test_others_do_not_wait_for_a_caller_that_hangs(path: Path) -> None:
    """They are refused in time, and all goes on when the disk does."""
    log = _open(path, timeout_seconds=1.0)
    release, hangs = threading.Event(), threading.Event()

    def hang(reached: str) -> None:
        if reached == "audit.before_write" and not release.is_set():
            hangs.set()
            release.wait(60)

    with install(hang), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(log.append, [draft(0)])
        assert hangs.wait(60)
        with pytest.raises(AuditUnavailableError):
            log.append([draft(1)])
        until(lambda: log.health.cause == "hanging")
        release.set()
        slow.result().wait(60)
    until(lambda: log.health.resumes)
    until(lambda: log.available)
    log.append([draft(2)], durable=True).wait()

    assert ["request-0", "request-2"] == _used(log)
    log.close()
    assert verified(path).clean


def test_a_log_whose_caller_hangs_is_closed_in_time(tmp_path: Path) -> None:
    """Closing says that it did not end; a second try, later, closes it."""
    path = tmp_path / "log" / "audit.log"
    log = _open(path, timeout_seconds=1.0)
    release, hangs = threading.Event(), threading.Event()

    def hang(reached: str) -> None:
        if reached == "audit.before_write":
            hangs.set()
            release.wait(60)

    with install(hang), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(log.append, [draft(0)])
        assert hangs.wait(60)
        with pytest.raises(AuditUnavailableError):
            log.close()
        release.set()
        slow.result().wait()
    log.close()

    assert verified(path).clean


def test_refused_callers_do_not_hurry_the_healing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask, nobody wakes the thread from the pauses between attempts."""
    path = tmp_path / "log" / "audit.log"
    log, writer = begun(path, 1, sync=AuditSync.BOUNDED)
    begins, tries, rings = threading.Event(), 0, 0
    flusher = log._flusher  # noqa: SLF001 (the bell of its thread)
    whole = flusher.ring

    def fail(reached: str) -> None:
        nonlocal tries
        if reached == "audit.before_write":
            raise OSError(errno.EIO, "I/O error")
        tries += reached == "audit.heal.after_cut"
        if reached == "audit.outage":
            begins.set()

    def ring() -> None:
        nonlocal rings
        rings += 1
        whole()

    with install(fail):
        assert not writer.append()
        assert begins.wait(60)
        monkeypatch.setattr(flusher, "ring", ring)
        until(lambda: not writer.append() and tries > 2)
    until(lambda: is_well(log))

    assert 0 == rings
    assert writer.append()
    close_and_check(log, writer, path)


def _is_interrupted(call: Callable[[], object], at: int) -> bool:
    """Interrupt a call as Ctrl-C does, at the *at*-th call, or return of one of C."""
    calls = count()

    def profile(frame: FrameType, event: str, _: object) -> None:
        inside = "/audit/" in frame.f_code.co_filename
        if inside and event in {"call", "c_return"} and next(calls) == at:
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.parametrize("sync", AuditSync)
def test_an_interrupt_leaves_no_gap(path: Path, sync: AuditSync) -> None:
    """Wherever Ctrl-C meets a caller, records go on behind the last that is there."""
    log = open_any(path, sync=sync, segment_bytes=8192, timeout_seconds=20.0)
    log.append([draft(0)]).wait()
    at = 0
    while _is_interrupted(lambda: log.append([draft(1)]), at):
        until(lambda: log.available)
        log.append([draft(2)]).wait()
        at += 1
    log.close()

    assert at > 5
    verified(path)


def test_an_interrupt_leaves_no_gap_in_memory() -> None:
    """The same of a log in memory: the next record follows on one that is there."""
    log = MemoryAuditLog(KEY, clock=FakeClock(), entropy=SystemEntropy())
    at = 0
    while _is_interrupted(lambda: log.append([draft(1)]), at):
        log.append([draft(2)]).wait()
        at += 1

    lines = log.lines(0, 1000)
    follower = Follower(log_id=log.log_id, hmac_key=KEY)
    for line in lines:
        follower.check(line)
    assert at > 5
    assert log.head().seq == len(lines) - 1

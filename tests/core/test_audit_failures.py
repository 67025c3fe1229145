"""
A trail that can't be written: it fails closed, and says so in time.

Errors are raised at the named points of the code, or made for real by limits of the
system. How it heals is the matter of ``test_audit_healing``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from hsm_core._internal.audit.head_mark import HeadCodec
from hsm_core._internal.audit.log import DurableAuditLog
from hsm_core._internal.audit.medium import MediumError
from hsm_core._internal.audit.writer import MAX_PENDING_BYTES
from hsm_core._internal.lib import process
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.lib.process import OpeningProcess
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.filesystem.audit_files import write_all
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
    StoreLockedError,
    UnsafeFileModeError,
)
from hsm_core.protocols import AuditDraft
from hsm_core.settings import AuditSync
from tests.core import sqlite_audit_support
from tests.core.audit_faults import until
from tests.core.audit_support import (
    KEY,
    draft,
    events,
    fill,
    open_log,
    opened,
    read_lines,
    torn_log,
    verified,
    write_lines,
)
from tests.core.forked import holds_in_child
from tests.support import REPOSITORY

WRITING = ["audit.before_write", "audit.after_write"]
SYNCING = ["audit.before_sync", "audit.after_sync", "audit.after_mark"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that is not made yet."""
    return tmp_path / "log" / "audit.log"


def _failing(point: str, code: int) -> Callable[[str], None]:
    def handler(reached: str) -> None:
        if reached == point:
            raise OSError(code, os.strerror(code))

    return handler


def _close_broken(log: FileAuditLog) -> None:
    with pytest.raises(AuditUnavailableError):
        log.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("point", [*WRITING, *SYNCING])
def test_a_failed_write_or_sync_closes_the_log(
    path: Path, point: str, code: int
) -> None:
    """Who waits is told and later appends are refused while it goes on failing."""
    log = open_log(path)
    fill(log, 3)
    told: list[BaseException | None] = []
    with install(_failing(point, code)):
        ticket = log.append([draft()])
        ticket.add_done_callback(told.append)
        with pytest.raises(AuditUnavailableError):
            ticket.wait()

        assert log.available is False
        assert "failing" == log.health.state
        with pytest.raises(AuditUnavailableError):
            log.append([draft()])
        _close_broken(log)
    assert [MediumError] == [type(error) for error in told]


@pytest.mark.parametrize("open_one", [open_log, sqlite_audit_support.open_log])
def test_a_log_that_can_not_be_read_is_named(
    path: Path, open_one: Callable[[Path], DurableAuditLog]
) -> None:
    """Opening it tells which one it is, whatever the operation that failed."""
    open_one(path).close()
    failure = OSError(errno.EIO, os.strerror(errno.EIO))
    with (
        mock.patch("os.pread", side_effect=failure),
        pytest.raises(AuditUnavailableError, match=re.escape(f"{path} can't be open")),
    ):
        open_one(path)
    open_one(path).close()


def test_the_head_mark_is_never_ahead_of_the_sync(path: Path) -> None:
    """A record whose sync failed is not in the mark; one that was synced is."""
    log = open_log(path)
    fill(log, 3)
    head = path.with_name("audit.log.head")
    with install(_failing("audit.before_sync", errno.EIO)):
        with pytest.raises(AuditUnavailableError):
            log.append([draft(3)]).wait()
        _close_broken(log)

    assert 2 == HeadCodec.read(head.read_bytes(), KEY).mark.seq
    assert 4 == len(read_lines(path))


@pytest.mark.parametrize(
    "point",
    [
        "audit.rotate.before_rename",
        "audit.rotate.after_rename",
        "audit.rotate.after_directory_sync",
        "audit.rotate.after_create",
        "audit.before_clean_mark",
    ],
)
def test_a_failure_after_the_answer_loses_nothing(path: Path, point: str) -> None:
    """Records that were acknowledged before a segment could be closed are kept."""
    log = open_log(path, segment_bytes=4096)
    with install(_failing(point, errno.ENOSPC)):
        fill(log, 20)
        _close_broken(log)
    assert log.available is False

    with opened(path, segment_bytes=4096) as log:
        assert 20 == len(events(log))
        fill(log, 30)
    assert 50 == verified(path).records


@pytest.mark.parametrize(
    "point",
    [
        "audit.create.after_head",
        "audit.open.after_mark",
        "audit.repair.after_sync",
    ],
)
def test_a_failure_while_opening_is_an_error_and_releases_the_lock(
    path: Path, point: str
) -> None:
    """The next attempt finds nothing locked."""
    with install(_failing(point, errno.EIO)):
        with pytest.raises(AuditUnavailableError):
            open_log(path)

    with opened(path) as log:
        fill(log, 1)


def test_bounded_records_are_synced_soon(path: Path) -> None:
    """A sync follows without anybody asking for it."""
    synced = threading.Event()

    def handler(reached: str) -> None:
        if reached == "audit.after_sync":
            synced.set()

    log = open_log(path, sync=AuditSync.BOUNDED)
    with install(handler):
        log.append([draft(0)]).wait()

        assert synced.wait(60)
    log.close()


@contextmanager
def _hanging(point: str) -> Iterator[threading.Event]:
    release = threading.Event()

    def handler(reached: str) -> None:
        if reached == point:
            release.wait(60)

    with install(handler):
        try:
            yield release
        finally:
            release.set()


@pytest.mark.parametrize("point", ["audit.before_write", "audit.before_sync"])
def test_a_hanging_disk_is_not_waited_for(path: Path, point: str) -> None:
    """A ticket and later appends fail in time; when the disk is back all goes on."""
    log = open_log(path, timeout_seconds=1.0)
    with _hanging(point) as release:
        ticket = log.append([draft(0)])
        with pytest.raises(AuditUnavailableError):
            ticket.wait()
        until(lambda: not log.available)
        with pytest.raises(AuditUnavailableError):
            log.append([draft(1)])
        with pytest.raises(AuditUnavailableError):
            log.close()
        with pytest.raises(StoreLockedError):
            open_log(path)
        release.set()
        ticket.wait(60)
    log.close()

    assert 2 == verified(path).records


def test_records_do_not_pile_up_behind_a_hanging_disk(path: Path) -> None:
    """Before the limit of time a limit of size refuses."""
    log = open_log(path)
    large = draft(0, rule="x" * 60_000)
    with _hanging("audit.before_write"):
        accepted = _appended_until_refused(log, large, 1000)
    log.close()

    assert MAX_PENDING_BYTES // 61_000 <= accepted <= 600
    assert accepted + 1 == verified(path).records


def _appended_until_refused(log: FileAuditLog, large: AuditDraft, most: int) -> int:
    for accepted in range(most):
        try:
            log.append([large])
        except AuditUnavailableError:
            return accepted
    return most


def test_an_unlinked_file_is_noticed_on_closing(path: Path) -> None:
    """The end of a log that is gone is not marked clean."""
    log = open_log(path)
    fill(log, 3)
    path.unlink()

    _close_broken(log)


def test_a_log_that_can_not_be_read_is_no_empty_log(path: Path) -> None:
    """A read error is an error, not an empty list."""
    log = open_log(path, segment_bytes=4096)
    fill(log, 30, one_by_one=True)
    closed = path.with_name("audit.log.00000001.0000000000000000")
    moved = path.with_name("moved")
    closed.rename(moved)
    with pytest.raises(AuditUnavailableError):
        log.lines(0, 10)

    moved.rename(closed)
    assert 10 == len(log.lines(0, 10))
    log.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from hsm_core.errors import AuditUnavailableError
from tests.core.audit_support import draft, open_log

log = open_log(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
done = 0
try:
    while True:
        log.append([draft(done)]).wait()
        done += 1
except AuditUnavailableError:
    pass
assert not log.available
try:
    log.close()
except AuditUnavailableError:
    print(done)
"""


def _written(path: Path, size: int) -> int:
    """Write until a file is as long as the system permits; return what was durable."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(size)],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return int(result.stdout)


def test_a_write_cut_short_by_the_system_is_repaired(path: Path) -> None:
    """A real short write fails the log; its fragment is set aside at the next start."""
    done = _written(path, 10_000)
    assert 10_000 == path.stat().st_size
    assert done + 1 == verified(path).records
    assert verified(path).torn_bytes > 0

    with opened(path) as log:
        assert "system.repair" == events(log)[-1].kind
        fill(log, 5)
    assert done + 7 == verified(path).records


def test_a_head_mark_cut_short_by_the_system_fails_the_log(path: Path) -> None:
    """The slot that was written in part is not used; the one before it is."""
    assert 0 == _written(path, 1100)

    with opened(path) as log:
        assert ["", "request-0"] == [event.request_id for event in events(log)]


def test_the_head_mark_is_synced_without_being_asked(path: Path) -> None:
    """A second after the last record its mark is durable too."""
    log = open_log(path)
    fill(log, 2)
    synced = threading.Event()

    def handler(reached: str) -> None:
        if reached == "audit.after_head_sync":
            synced.set()

    with install(handler):
        assert synced.wait(60)
    log.close()


def test_a_repair_that_can_not_be_recorded_is_recorded_by_the_next_start(
    tmp_path: Path,
) -> None:
    """Opening fails, nothing stays locked, and the fragment is not forgotten."""
    killed = torn_log(tmp_path, b"torn")
    with install(_failing("audit.before_write", errno.EIO)):
        with pytest.raises(AuditUnavailableError):
            open_log(killed)

    with opened(killed) as log:
        assert "system.repair" == events(log)[-1].kind


@pytest.mark.parametrize("failing", range(7))
def test_a_trail_whose_making_can_not_be_synced_is_none(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Opening fails at whichever sync fails, and succeeds once they work again."""
    whole, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > failing:
            raise OSError(errno.EIO, "I/O error")
        whole(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(AuditUnavailableError):
            open_log(path)

    with opened(path) as log:
        fill(log, 1)


def test_lines_lost_while_the_log_is_open_are_noticed(path: Path) -> None:
    """A file cut by others is damage, not the end of the trail."""
    log = open_log(path, segment_bytes=4096)
    fill(log, 300)
    fill(log, 5)
    closed = path.with_name("audit.log.00000001.0000000000000000")
    write_lines(closed, read_lines(closed)[:20])
    path.write_bytes(path.read_bytes()[:-1])

    for start, bad in [(0, 20), (20, 20), (299, 299), (300, 304)]:
        with pytest.raises(AuditTamperedError) as caught:
            log.lines(start, 1000)
        assert {"seq": bad, "reason": "shorter"} == caught.value.facts
    # And the end of such a log is not marked as clean.
    _close_broken(log)


def test_lines_lost_before_a_segment_was_read_are_noticed(path: Path) -> None:
    """A closed segment is not looked at before somebody reads it."""
    with opened(path, segment_bytes=4096) as log:
        fill(log, 300)
        fill(log, 5)
    closed = path.with_name("audit.log.00000001.0000000000000000")
    with opened(path) as log:
        write_lines(closed, read_lines(closed)[:20])

        for start, bad in [(299, 299), (0, 20)]:
            with pytest.raises(AuditTamperedError) as caught:
                log.lines(start, 1000)
            assert {"seq": bad, "reason": "shorter"} == caught.value.facts


def test_write_all_gives_up_when_nothing_is_taken() -> None:
    """A call that writes nothing does not make an endless loop."""
    with pytest.raises(OSError, match="nothing was written"):
        write_all(0, b"x", lambda descriptor, data: 0)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_a_device_is_refused(device: str) -> None:
    """A device file is no place for a trail, and nothing is made beside it."""
    path = Path(device)
    before = set(path.parent.glob(f"*{path.name}*"))

    with pytest.raises(UnsafeFileModeError):
        open_log(path)
    assert before == set(path.parent.glob(f"*{path.name}*"))


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.mkdir(0o700)


def _link(path: Path) -> None:
    path.with_name("target").touch(0o600)
    path.symlink_to(path.with_name("target"))


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _readable(path: Path) -> None:
    path.touch(0o600)
    path.chmod(0o640)


@pytest.mark.parametrize("make", [_fifo, _folder, _link, _dangling, _readable])
@pytest.mark.parametrize(
    "name", ["audit.log", "audit.log.head", "audit.log.lock", "audit.log.reserve"]
)
def test_anything_but_a_private_file_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    """Links, pipes, directories and open modes are refused, and not followed."""
    make(tmp_path / name)

    with pytest.raises(UnsafeFileModeError):
        open_log(tmp_path / "audit.log")
    assert not (tmp_path / "nowhere").exists()


def test_an_open_directory_is_refused(path: Path) -> None:
    """Whoever may write the directory may replace the log."""
    path.parent.mkdir(0o700)
    path.parent.chmod(0o770)

    with pytest.raises(UnsafeFileModeError):
        open_log(path)


def test_new_files_are_private(path: Path) -> None:
    """Whatever the umask, files have mode 0600 and the directory 0700."""
    before = os.umask(0)
    try:
        with opened(path, segment_bytes=4096) as log:
            fill(log, 30, one_by_one=True)
    finally:
        os.umask(before)

    assert 0o700 == path.parent.stat().st_mode & 0o777
    modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert {0o600} == modes


def test_a_closed_segment_open_to_others_is_refused(path: Path) -> None:
    """Every file of the trail is looked at."""
    with opened(path, segment_bytes=4096) as log:
        fill(log, 30, one_by_one=True)
    path.with_name("audit.log.00000001.0000000000000000").chmod(0o644)

    with pytest.raises(UnsafeFileModeError):
        open_log(path)


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_hmac_key_is_refused(path: Path, length: int) -> None:
    """A key below 32 bytes protects nothing."""
    with pytest.raises(ConfigurationError, match="32 bytes"):
        open_log(path, key=KEY[:length])


@pytest.mark.parametrize("sync", [*AuditSync])
@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork])
def test_a_forked_child_writes_nothing(
    path: Path, fork: Callable[[], int], sync: AuditSync
) -> None:
    """
    A child that inherits the log may neither append nor close it.

    Nor may one that a program of C makes, which doesn't tell Python.
    """
    log = open_log(path, sync=sync)
    fill(log, 3)

    def is_refused() -> bool:
        log.close()
        assert not log.available
        with pytest.raises(AuditUnavailableError, match="another process"):
            log.append([draft()])
        return True

    assert holds_in_child(is_refused, fork)
    fill(log, 1)
    log.close()

    assert (4, True) == (verified(path).records, verified(path).clean)


def test_a_child_of_c_opens_several_at_once() -> None:
    """Two threads that find the parent's mark at once are both of this process."""
    made: list[OpeningProcess] = []

    class ParentsMark:
        is_asked = False

        def __getitem__(self, _: object) -> int:
            if not self.is_asked:
                self.is_asked = True
                made.append(OpeningProcess())  # As the other thread does meanwhile.
            return 0

        def __setitem__(self, _: object, value: int) -> None:
            assert value == 0

    with mock.patch.object(process, "_mark", ParentsMark()):
        made.append(OpeningProcess())
        assert all(one.is_this() for one in made)


def test_a_lack_of_descriptors_is_no_damage(path: Path) -> None:
    """Reading without a free descriptor is unavailable, not empty and not tampered."""
    log = open_log(path)
    fill(log, 3)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(AuditUnavailableError):
            log.lines(0, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert 3 == len(log.lines(0, 3))
    log.close()

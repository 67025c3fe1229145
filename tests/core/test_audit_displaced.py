"""
Files of a trail that other programs move, remove, replace or change.

It notices, refuses, and goes on by itself where that can destroy nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core import factory
from hsm_core._internal.audit import outage
from hsm_core._internal.stores.filesystem import audit_medium
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
    StoreLockedError,
    WrongAuditKeyError,
)
from hsm_core.settings import AuditSync
from tests.core.audit_faults import (
    Writer,
    begun,
    close_and_check,
    detail_of,
    is_well,
    resumes,
    until,
)
from tests.core.audit_support import KEY, draft, events, open_log, opened, verified

CLOSED = "audit.log.00000001.0000000000000000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that is not made yet."""
    return tmp_path / "log" / "audit.log"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trail try again at once, so that a test may try often."""
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(outage, "_LONGEST_PAUSE", 0.01)


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
    """Moved, rotated or removed: noticed by the next sync, and mended."""
    log, writer = begun(path, 5, durable=True, sync=sync)
    disturb(path)

    assert writer.append() is (sync is AuditSync.BOUNDED)
    until(lambda: log.health.resumes)
    until(lambda: is_well(log))
    assert writer.append()
    assert ["moved"] == [detail_of(event).cause for event in resumes(log)]
    assert path.stat().st_mode & 0o777 == 0o600
    close_and_check(log, writer, path)


def _without_lock(path: Path) -> None:
    path.with_name("audit.log.lock").unlink()


@pytest.mark.parametrize("disturb", [_moved, _deleted, _without_mark, _without_lock])
def test_an_idle_trail_sees_that_a_file_is_gone(
    path: Path, disturb: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to append something for that."""
    monkeypatch.setattr(audit_medium, "_LOOK_SECONDS", 0.05)
    log, writer = begun(path, 1)
    disturb(path)
    until(lambda: log.health.resumes)

    assert writer.append()
    assert ["moved"] == [detail_of(event).cause for event in resumes(log)]
    with pytest.raises(StoreLockedError):
        open_log(path)
    close_and_check(log, writer, path)


@pytest.mark.parametrize("disturb", [_without_mark, _without_lock])
def test_a_busy_trail_sees_that_a_file_is_gone(
    path: Path, disturb: Callable[[Path], None]
) -> None:
    """However often something is appended, it looks; so nobody else gets the lock."""
    log, writer = begun(path)
    disturb(path)

    def written() -> int:
        writer.append()
        return log.health.resumes

    until(written)
    assert ["moved"] == [detail_of(event).cause for event in resumes(log)]
    with pytest.raises(StoreLockedError):
        open_log(path)
    close_and_check(log, writer, path)


def test_a_file_that_is_put_back_is_gone_on_with(path: Path, hasty: None) -> None:
    """Who moved it by mistake undoes that; a file of others is never overwritten."""
    log, writer = begun(path, 1)
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
    until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)


def test_a_foreign_file_that_is_taken_away_is_waited_for(
    path: Path, hasty: None
) -> None:
    """A copy, a link, a directory: all stay until somebody removes them."""
    log, writer = begun(path, 1)
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
        until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)


def test_a_truncated_file_is_noticed_and_not_gone_on_with(
    path: Path, hasty: None
) -> None:
    """A rotation by copying empties the file; only its content helps."""
    log, writer = begun(path, 3)
    content = path.read_bytes()
    os.truncate(path, 0)

    assert not writer.append()
    time.sleep(0.05)
    assert (log.health.state, log.health.cause) == ("failing", "moved")
    path.write_bytes(bytes(len(content)))
    time.sleep(0.05)
    assert not log.available
    path.write_bytes(content)
    until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)


def test_lines_of_others_are_cut_off(path: Path) -> None:
    """What another program appended is no part of the trail, and is noticed."""
    log, writer = begun(path, 1)
    with path.open("ab") as file:
        file.write(b"hello\n")

    assert not writer.append()
    until(lambda: is_well(log))
    assert writer.append()
    assert b"hello" not in path.read_bytes()
    close_and_check(log, writer, path)


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every lock be taken twice, as on a file system without locks."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def _fork(path: Path) -> tuple[bytes, bytes]:
    """Let two logs write one trail; return what is there, and the second's records."""
    first = open_log(path)
    writer = Writer(first)
    assert writer.append()
    second = open_log(path)
    assert writer.append()
    answered = path.read_bytes()
    assert not Writer(second).append()
    until(lambda: second.health.cause == "moved")
    assert not writer.append()
    for log in (first, second):
        with pytest.raises(AuditUnavailableError):
            log.close()
    return answered, path.read_bytes()


def test_records_of_a_second_writer_are_not_cut_off(
    path: Path, hasty: None, lockless: None
) -> None:
    """Where there are no locks, nobody goes on over what another answered."""
    answered, found = _fork(path)

    assert found.startswith(answered)
    assert len(found) > len(answered)


def test_a_forked_trail_is_recovered(path: Path, hasty: None, lockless: None) -> None:
    """What was answered stays; the other branch is kept, named and hashed."""
    answered, found = _fork(path)
    with pytest.raises(AuditTamperedError, match="damaged"):
        open_log(path)

    kept = factory.recover_trail(path, KEY)

    assert path.read_bytes().startswith(answered)
    aside = path.with_name(kept.kept_as)
    assert kept.kept_as.startswith("audit.log.fork-")
    assert hashlib.sha256(aside.read_bytes()).hexdigest() == kept.fragment_sha256
    lines = found.splitlines(keepends=True)
    ours = path.read_bytes().splitlines(keepends=True)
    assert sorted(lines) == sorted([*ours[:-1], *aside.read_bytes().splitlines(True)])
    with opened(path) as log:
        assert kept in [event.detail for event in events(log)]
    assert verified(path).clean


@pytest.mark.parametrize("step", ["fragment", "segment"])
def test_an_interrupted_recovery_is_done_again(
    path: Path, hasty: None, lockless: None, step: str
) -> None:
    """A kill between two steps leaves the fork, or a trail that is recovered."""
    _fork(path)
    at = {"fragment": "audit.log.torn.new", "segment": "audit.log.new"}[step]
    with pytest.MonkeyPatch.context() as patch:
        whole = os.rename

        def rename(source: Path, target: Path) -> None:
            if source.name == at:
                raise OSError(errno.EIO, "Input/output error")
            whole(source, target)

        patch.setattr(os, "rename", rename)
        with pytest.raises(AuditUnavailableError):
            factory.recover_trail(path, KEY)

    factory.recover_trail(path, KEY)

    assert 1 == len(list(path.parent.glob("audit.log.fork-*")))
    assert verified(path).clean


def _edit(path: Path) -> None:
    """Change a byte of the second branch."""
    content = path.read_bytes()
    path.write_bytes(content[:-100] + b"x" + content[-99:])


def _cut(path: Path) -> None:
    """Remove a record of the first branch."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))


@pytest.mark.parametrize("change", [_edit, _cut])
def test_a_trail_that_was_edited_is_no_fork(
    path: Path, hasty: None, lockless: None, change: Callable[[Path], None]
) -> None:
    """Recovery sets aside authentic records of a real fork, and nothing else."""
    _fork(path)
    change(path)
    before = path.read_bytes()

    with pytest.raises(AuditTamperedError):
        factory.recover_trail(path, KEY)

    assert before == path.read_bytes()
    assert [] == list(path.parent.glob("audit.log.fork-*"))


def test_what_is_not_forked_is_not_recovered(path: Path) -> None:
    """A trail in order, none, and one in use stay as they are."""
    with pytest.raises(ConfigurationError, match="No audit log in files"):
        factory.recover_trail(path, KEY)
    with opened(path) as log:
        log.append([draft()])
        with pytest.raises(StoreLockedError):
            factory.recover_trail(path, KEY)
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match="not forked"):
        factory.recover_trail(path, KEY)
    with pytest.raises(WrongAuditKeyError):
        factory.recover_trail(path, bytes(32))
    assert before == path.read_bytes()


def test_a_directory_that_is_gone_is_waited_for(path: Path, hasty: None) -> None:
    """When it is back, file, head mark and lock are made again."""
    log, writer = begun(path, 1)
    shutil.rmtree(path.parent)

    assert not writer.append()
    time.sleep(0.05)
    assert log.health.state == "failing"
    path.parent.mkdir(0o755)
    time.sleep(0.05)
    assert log.health.state == "failing"
    path.parent.chmod(0o700)
    until(lambda: is_well(log))
    assert writer.append()
    assert path.with_name("audit.log.lock").exists()
    close_and_check(log, writer, path)


def test_a_directory_without_its_closed_segments_is_not_enough(
    path: Path, hasty: None
) -> None:
    """A trail does not go on without its beginning."""
    log, writer = begun(path, segment_bytes=4096)
    while not path.with_name(CLOSED).exists():
        writer.append()
    writer.append()  # Into the next segment, which is there then.
    path.parent.rename(path.parent.with_name("aside"))
    path.parent.mkdir(0o700)

    assert not writer.append()
    time.sleep(0.05)
    assert log.health.cause == "moved"
    shutil.rmtree(path.parent)
    path.parent.with_name("aside").rename(path.parent)
    until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)


def test_lost_permission_is_waited_for(path: Path) -> None:
    """A directory that may not be looked into hides the file; then it is back."""
    log, writer = begun(path, 1)
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
        until(lambda: is_well(log))
    assert writer.append()
    close_and_check(log, writer, path)

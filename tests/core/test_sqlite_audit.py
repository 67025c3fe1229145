"""The trail in SQLite: its order, its reads, how it fails closed and heals."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
    UnsafeFileModeError,
)
from hsm_core.factory import open_verifier
from hsm_core.model import ResumeDetail
from hsm_core.settings import AuditSync
from tests.core.audit_support import (
    KEY,
    copy_of,
    draft,
    events,
    fill,
    intent,
    outcome,
    verified,
)
from tests.core.sqlite_audit_support import open_log, opened

PATIENCE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that does not exist yet."""
    return tmp_path / "log" / "audit.sqlite"


def _eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def test_a_restart_goes_on_where_the_trail_ended(path: Path) -> None:
    """Head, open intents and the newest set digest are found again."""
    with opened(path) as log:
        log.append([intent("a"), intent("b"), outcome("a", "digest")]).wait()
        fill(log, 50)
        head, log_id = log.head(), log.log_id

    with opened(path) as log:
        assert (head, log_id) == (log.head(), log.log_id)
        assert ["b"] == [event.operation_id for event in log.open_intents()]
        assert "digest" == log.set_digest_at_open
        log.append([outcome("b")]).wait()
    with opened(path) as log:
        assert [] == log.open_intents()
    assert 54 == verified(path).records


def test_a_copy_of_a_running_trail_verifies_with_its_log(
    path: Path, tmp_path: Path
) -> None:
    """What a kill leaves is verified as it lies there, and not taken for closed."""
    with opened(path) as log:
        fill(log, 20, one_by_one=True)
        killed = copy_of(path, tmp_path / "killed")
        assert killed.with_name(f"{killed.name}-wal").stat().st_size

    found = verified(killed)
    assert (20, False, True) == (found.records, found.clean, found.mark_checked)


def test_a_trail_that_others_may_write_is_refused(path: Path) -> None:
    """A database that is open to the group is not trusted."""
    with opened(path):
        pass
    path.chmod(0o660)

    with pytest.raises(UnsafeFileModeError):
        open_log(path)


def test_another_database_is_refused(path: Path) -> None:
    """A database of another kind is not made a trail."""
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id)")
    path.chmod(0o600)

    with pytest.raises(ConfigurationError):
        open_log(path)


def _connection(log: SqliteAuditLog) -> sqlite3.Connection:
    return log._rows._database._connection  # noqa: SLF001


def test_a_read_error_is_told_and_not_taken_for_an_empty_trail(path: Path) -> None:
    """What can't be read is unavailable, and is there again afterwards."""
    with opened(path) as log:
        fill(log, 5)
        _connection(log).set_progress_handler(lambda: 1, 1)
        with pytest.raises(AuditUnavailableError):
            log.lines(0, 10)
        _connection(log).set_progress_handler(None, 0)
        assert 5 == len(log.lines(0, 10))


def test_a_row_that_is_gone_is_told_on_reading(path: Path) -> None:
    """A gap under a running trail is no shorter answer."""
    log = open_log(path)
    fill(log, 5)
    _connection(log).execute("DELETE FROM records WHERE seq = 3")
    with pytest.raises(AuditTamperedError) as caught:
        log.lines(0, 10)
    assert {"seq": 3, "reason": "shorter"} == caught.value.facts
    log.close()


def test_a_full_database_takes_nothing_and_heals(path: Path) -> None:
    """Without room appends are refused; with room again a record tells of it."""
    with opened(path) as log:
        fill(log, 5)
        pages = _connection(log).execute("PRAGMA page_count").fetchone()[0]
        _connection(log).execute(f"PRAGMA max_page_count = {pages}").fetchall()
        with pytest.raises(AuditUnavailableError):
            fill(log, 100, one_by_one=True)
        assert not log.available
        assert ("failing", "full") == (log.health.state, log.health.cause)
        assert log.lines(0, 5)

        _connection(log).execute("PRAGMA max_page_count = 1000000").fetchall()
        _eventually(lambda: log.available)
        fill(log, 1)
        told = [e.detail for e in events(log) if e.kind == "system.resume"]
        assert 1 == len(told)
        assert isinstance(told[0], ResumeDetail)
        assert "full" == told[0].cause
        assert (1, 1) == (log.health.failures, log.health.resumes)
    assert verified(path).clean


def _fail_at(name: str, times: int) -> Callable[[str], None]:
    left = times

    def handler(reached: str) -> None:
        nonlocal left
        if reached == name and left:
            left -= 1
            raise OSError("made to fail")

    return handler


@pytest.mark.parametrize("point", ["audit.before_write", "audit.after_write"])
@pytest.mark.parametrize("sync", list(AuditSync))
def test_a_failure_around_a_commit_writes_every_record_once(
    path: Path, sync: AuditSync, point: str
) -> None:
    """Whether the transaction was made or not, each record is there once."""
    with opened(path, sync=sync) as log:
        fill(log, 3)
        with install(_fail_at(point, 2)), pytest.raises(AuditUnavailableError):
            log.append([draft(100), draft(101)], durable=True).wait()
        _eventually(lambda: log.available)
        fill(log, 2)
        kinds = [event.kind for event in events(log)]
        assert [*["Sign"] * 5, "system.resume", *["Sign"] * 2] == kinds
    assert 8 == verified(path).records


def test_a_failure_while_healing_is_healed_too(path: Path) -> None:
    """What interrupts the repair of a failure is one more failure."""
    failing = ["audit.heal.after_reopen", "audit.before_write"]

    def handler(reached: str) -> None:
        if failing and reached == failing[-1]:
            failing.pop()
            raise OSError("made to fail")

    with opened(path) as log:
        with install(handler):
            with pytest.raises(AuditUnavailableError):
                fill(log, 3)
            _eventually(lambda: log.available)
        fill(log, 1)
        assert not failing
    assert 5 == verified(path).records


def test_a_database_that_is_moved_away_is_missed_and_taken_back(path: Path) -> None:
    """Within one append it is told; when it is back all goes on, and none is lost."""
    aside = path.with_name("aside")
    with opened(path) as log:
        fill(log, 5)
        path.rename(aside)
        with pytest.raises(AuditUnavailableError):
            fill(log, 1)
        _eventually(lambda: log.health.cause == "moved")
        aside.rename(path)
        _eventually(lambda: log.available)
        fill(log, 1)
    assert 8 == verified(path).records


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_does_not_come_back_is_told_and_stays_closed(
    path: Path, tmp_path: Path, replaced: bool
) -> None:
    """Nothing is written to another file, and the state says why."""
    log = open_log(path)
    fill(log, 5)
    kept = path.with_name("kept.sqlite")
    path.rename(kept)
    if replaced:
        path.write_text("not ours")
    with pytest.raises(AuditUnavailableError):
        fill(log, 1)
    time.sleep(0.3)
    assert ("failing", "moved") == (log.health.state, log.health.cause)
    assert not log.available
    with pytest.raises(AuditUnavailableError):
        log.lines(0, 5)
    with pytest.raises(AuditUnavailableError):
        log.close()
    assert not path.exists() or path.read_text() == "not ours"
    shutil.copyfile(f"{path}.head", f"{kept}.head")
    assert 5 == verified(kept).records


@pytest.mark.skipif(sys.platform != "linux", reason="sees a deletion on Linux only")
@pytest.mark.parametrize("sides", [(), ("-wal", ".head")])
def test_a_database_that_was_deleted_is_written_again(
    path: Path, sides: tuple[str, ...]
) -> None:
    """The open connection still has all of it, and no other file of it is left."""
    with opened(path) as log:
        fill(log, 5, one_by_one=True)
        log.prune(2, "test")
        for side in ("", *sides):
            path.with_name(path.name + side).unlink()
        with pytest.raises(AuditUnavailableError):
            fill(log, 1)
        _eventually(lambda: log.available)
        fill(log, 1)
        assert 2 == log.first_seq
        told = [e.detail for e in events(log) if e.kind == "system.resume"]
        assert isinstance(told[0], ResumeDetail)
        assert "moved" == told[0].cause
    found = verified(path)
    assert (2, 7) == (found.first_seq, found.records)
    assert 0o600 == path.stat().st_mode & 0o777


def test_a_log_that_is_deleted_under_a_running_trail_costs_nothing(path: Path) -> None:
    """What the write-ahead log held is moved into the database before going on."""
    with opened(path) as log:
        fill(log, 5, one_by_one=True)
        path.with_name(f"{path.name}-wal").unlink()
        with pytest.raises(AuditUnavailableError):
            fill(log, 1)
        _eventually(lambda: log.available)
        fill(log, 1)
    assert 8 == verified(path).records


def test_a_trail_is_verified_from_a_folder_that_can_not_be_written(
    path: Path, tmp_path: Path
) -> None:
    """A copy of evidence needs no lock and no log beside it."""
    with opened(path) as log:
        fill(log, 5)
    evidence = tmp_path / "evidence"
    shutil.copytree(path.parent, evidence)
    (evidence / "audit.sqlite.lock").unlink()
    evidence.chmod(0o500)
    try:
        assert 5 == verified(evidence / path.name).records
    finally:
        evidence.chmod(0o700)


@pytest.mark.parametrize("name", ["a\udcff", "a?mode=rw#b%20\n", "file:a"])
def test_a_trail_of_any_name_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No name of a file is anything else to whoever verifies it."""
    monkeypatch.chdir(tmp_path)
    with opened(Path(name)) as log:
        fill(log, 5)

    assert 5 == open_verifier(Path(name), KEY).verify().records


@pytest.mark.parametrize("name", ["", "..", "/", "a\0b", "pipe", "a" * 300, "nothing"])
def test_what_is_no_file_is_no_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The error is of the configuration, and nothing is waited for."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")

    with pytest.raises(ConfigurationError):
        open_verifier(Path(name), None).verify()

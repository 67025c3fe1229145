# SPDX-License-Identifier: MIT
"""Audit log in SQLite: order, reads, failures, and pruning."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.audit_rows import CHUNK
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
)
from hsm_core.factory import open_verifier
from hsm_core.model import Phase, PruneDetail, ResumeDetail
from hsm_core.protocols import AuditDraft
from hsm_core.settings import AuditSync
from tests.core.audit_faults import until
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
from tests.core.sqlite_audit_support import edited, open_log, opened, rows_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that does not exist yet."""
    return tmp_path / "log" / "audit.sqlite"


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
    assert 55 == verified(path).records


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
        until(lambda: log.available)
        fill(log, 1)
        told = [e.detail for e in events(log) if e.kind == "system.resume"]
        assert 1 == len(told)
        assert isinstance(told[0], ResumeDetail)
        assert "full" == told[0].cause
        assert (1, 1) == (log.health.failures, log.health.resumes)
    assert verified(path).clean


def _fail_at(name: str, times: int = 1) -> Callable[[str], None]:
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
        until(lambda: log.available)
        fill(log, 2)
        kinds = [event.kind for event in events(log)]
        assert "system.log-begun" == kinds.pop(0)
        assert [*["Sign"] * 4, "system.resume", *["Sign"] * 2] == kinds
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
            until(lambda: log.available)
        fill(log, 1)
        assert not failing
    assert 5 == verified(path).records


def test_facts_are_stored_once_though_the_log_failed_and_healed(path: Path) -> None:
    """What was written thousands of records before the failure is still known."""
    with opened(path) as log:
        fill(log, CHUNK + 1)
        with install(_fail_at("audit.before_write")):
            with pytest.raises(AuditUnavailableError):
                fill(log, 3)
            until(lambda: log.available)
        fill(log, 3)
    with edited(path) as connection:
        facts = connection.execute("SELECT first_seq FROM facts").fetchall()
    assert [(1,)] == facts
    assert CHUNK + 8 == verified(path).records


def test_a_database_that_is_moved_away_is_missed_and_taken_back(path: Path) -> None:
    """Within one append it is told; when it is back all goes on, and none is lost."""
    aside = path.with_name("aside")
    with opened(path) as log:
        fill(log, 5)
        path.rename(aside)
        with pytest.raises(AuditUnavailableError):
            fill(log, 1)
        until(lambda: log.health.cause == "moved")
        aside.rename(path)
        until(lambda: log.available)
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
    until(lambda: log.health.cause == "moved")
    time.sleep(0.3)
    assert ("failing", "moved") == (log.health.state, log.health.cause)
    assert not log.available
    with pytest.raises(AuditUnavailableError):
        log.lines(0, 5)
    with pytest.raises(AuditUnavailableError):
        log.close()
    assert not path.exists() or path.read_text() == "not ours"
    shutil.copyfile(f"{path}.head", f"{kept}.head")
    # The record that was refused went into the file that was moved.
    assert 6 == verified(kept).records


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
        until(lambda: log.available)
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
        until(lambda: log.available)
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


def _changed(number: int, generation: int) -> AuditDraft:
    return AuditDraft(
        phase=Phase.OUTCOME,
        kind="CreateKey",
        operation_id=f"operation-{number}-{generation}",
        key_id=f"00000000-0000-4000-8000-{number:012d}",
        generation=generation,
        document_after=f"{number:032x}{generation:032x}",
    )


def test_a_prune_removes_a_prefix_and_records_it(path: Path) -> None:
    """The record tells range, last leaf and subtree roots; what is left verifies."""
    with opened(path) as log:
        fill(log, 100)
        lines = log.lines(0, 100)
        detail = log.prune(70, "audit_retention_days=365")
        assert 70 == log.first_seq
        newest = event_of(log.lines(100, 1)[0], 100)

    assert ("system.prune", detail) == (newest.kind, newest.detail)
    tree = CompactRange()
    for line in lines[:70]:
        tree.append(leaf_hash(line))
    assert isinstance(detail, PruneDetail)
    assert (0, 70, tree.roots) == (detail.first_seq, detail.next_seq, detail.roots)
    assert leaf_hash(lines[69]) == detail.last_leaf_hash
    assert list(range(70, 101)) == list(rows_of(path))
    found = verified(path)
    assert (31, 70, 100) == (found.records, found.first_seq, found.head_seq)
    assert (tree.roots, True) == (found.pruned_roots, found.baseline_checked)
    assert 31 == verified(path, None).records


def test_a_bad_record_is_not_washed_clean(path: Path) -> None:
    """A prune over an edited record is refused, and removes nothing."""
    with opened(path) as log:
        fill(log, 20)
    rows = rows_of(path)
    with edited(path) as connection:
        connection.execute("UPDATE records SET line = ? WHERE seq = 5", (rows[6],))
    with opened(path) as log:
        with pytest.raises(AuditTamperedError) as caught:
            log.prune(10, "test")
        assert {"seq": 5, "reason": "sequence"} == caught.value.facts
        assert 0 == log.first_seq
    assert 20 == len(rows_of(path))


def test_a_prune_that_could_not_be_recorded_removes_nothing_yet(path: Path) -> None:
    """Its record is written when the trail heals, and the next prune removes."""
    with opened(path) as log:
        fill(log, 20)
        with install(_fail_at("audit.before_write")):
            with pytest.raises(AuditUnavailableError):
                log.prune(10, "test")
            assert 20 <= len(_all_rows(log))
            while not log.available:
                pass
        assert 10 == log.first_seq
        assert log.prune(12, "test") is not None
        assert list(range(12, log.head().seq + 1)) == _all_rows(log)
    assert verified(path).clean


def _all_rows(log: SqliteAuditLog) -> list[int]:
    database = log._rows._database  # noqa: SLF001
    rows = database.rows("SELECT seq FROM records ORDER BY seq")
    return [seq for (seq,) in rows]


def test_what_an_interrupted_removal_left_is_removed(path: Path) -> None:
    """Records that are still there count for nothing, whatever they say."""
    with opened(path) as log:
        fill(log, 30)
        old = log.lines(0, 10)
        log.prune(10, "test")
    with edited(path) as connection:
        rows = [(seq, old[0]) for seq in range(4, 10)]
        connection.executemany("INSERT INTO records VALUES (?, ?)", rows)

    assert (10, 21) == (verified(path).first_seq, verified(path).records)
    with opened(path) as log:
        assert 10 == log.first_seq
    assert 10 == min(rows_of(path))
    assert (10, 21) == (verified(path).first_seq, verified(path).records)


FORGERIES = {
    "no pointer": ("DELETE FROM pruned", 0, "pruned"),
    "pointer further": ("UPDATE pruned SET next_seq = 15", 0, "baseline"),
    "other record": ("UPDATE pruned SET record_seq = 20", 0, "pruned"),
    "no record": ("UPDATE pruned SET record_seq = 1000", 0, "pruned"),
    "no baseline": ("DELETE FROM baseline", 0, "baseline"),
    "key removed": ("DELETE FROM baseline WHERE number = 1", 0, "baseline"),
    "key edited": (
        "UPDATE baseline SET line = CAST(replace(line, ',1,', ',2,') AS BLOB) "
        "WHERE number = 1",
        0,
        "baseline",
    ),
    "more removed": ("DELETE FROM records WHERE seq < 12", 10, "pruned"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_prune_is_detected(path: Path, forgery: str) -> None:
    """Records that are gone without a true record of it are missed."""
    statement, seq, reason = FORGERIES[forgery]
    with opened(path) as log:
        log.append([_changed(number, 1) for number in range(5)]).wait()
        fill(log, 25)
        log.prune(10, "test")
    with edited(path) as connection:
        assert connection.execute(statement).rowcount

    for attempt in (verified, open_log):
        with pytest.raises(AuditTamperedError) as caught:
            attempt(path)
        assert {"seq": seq, "reason": reason} == caught.value.facts


def test_a_staged_baseline_can_not_be_made_to_count(path: Path) -> None:
    """What a prune prepared, and never recorded, is no excuse for missing records."""
    log = open_log(path)
    fill(log, 30)
    with (
        install(_fail_at("audit.prune.after_stage")),
        pytest.raises(OSError, match="made"),
    ):
        log.prune(10, "test")
    log.close()
    assert 30 == verified(path).records
    with edited(path) as connection:
        connection.execute("INSERT INTO pruned VALUES (0, 10, 29)")
        connection.execute("DELETE FROM records WHERE seq < 10")

    for attempt in (verified, open_log):
        with pytest.raises(AuditTamperedError) as caught:
            attempt(path)
        assert {"seq": 0, "reason": "pruned"} == caught.value.facts


def test_many_records_go_while_others_come(path: Path) -> None:
    """A prune of thousands works in steps, and appends go on between them."""
    with opened(path) as log:
        for start in range(0, 9000, 1000):
            log.append([draft(start + n) for n in range(1000)]).wait()
        steps: list[int] = []

        def append(reached: str) -> None:
            if reached == "audit.prune.after_chunk":
                log.append([draft()]).wait()
                steps.append(log.head().seq)

        with install(append):
            log.prune(8999, "test")
        assert len(steps) >= 2
    assert 8999 == min(rows_of(path))
    assert verified(path).clean

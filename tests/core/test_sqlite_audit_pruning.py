"""Old records of a trail in SQLite are removed, and what remains still verifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
)
from hsm_core.model import Phase, PruneDetail
from hsm_core.protocols import AuditDraft
from tests.core.audit_support import draft, fill, verified
from tests.core.sqlite_audit_support import (
    edited,
    open_log,
    opened,
    rows_of,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a trail that does not exist yet."""
    return tmp_path / "log" / "audit.sqlite"


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


def _fail_once(name: str) -> Callable[[str], None]:
    left = [name]

    def handler(reached: str) -> None:
        if left and reached == left[0]:
            left.clear()
            raise OSError("made to fail")

    return handler


def test_a_prune_that_could_not_be_recorded_removes_nothing_yet(path: Path) -> None:
    """Its record is written when the trail heals, and the next prune removes."""
    with opened(path) as log:
        fill(log, 20)
        with install(_fail_once("audit.before_write")):
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
        install(_fail_once("audit.prune.after_stage")),
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

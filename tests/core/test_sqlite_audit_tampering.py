"""
Attacks on a trail in SQLite by someone who may write the database but has not the key.

Each must be detected, on opening and by offline verification, and the first bad record
named. The attacks that need a copy held outside (3, 7 and 9 of the threat model) are
not among them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core.errors import AuditTamperedError, ConfigurationError, StoreLockedError
from tests.core.audit_support import check_named, copy_of, draft, fill, intent, verified
from tests.core.sqlite_audit_support import (
    edited,
    open_log,
    opened,
    replace_rows,
    rows_of,
)

RECORDS = 60

Rows = dict[int, bytes]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """
    Give a trail of 60 records that was closed, and one whose writer was killed.

    An intent that is open from the first record on lets every start follow all.
    """
    folder = tmp_path_factory.mktemp("trails")
    path = folder / "clean" / "audit.sqlite"
    log = open_log(path)
    log.append([intent("operation")]).wait()
    for number in range(2, RECORDS):
        log.append([draft(number)]).wait()
    killed = copy_of(path, folder / "killed")
    log.close()
    return {"clean": path, "killed": killed}


@pytest.fixture(params=["clean", "killed"])
def trail(
    request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path
) -> Path:
    """Give a copy of one of them."""
    return copy_of(originals[request.param], tmp_path / "trail")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Give another trail of the same key."""
    path = tmp_path / "other" / "audit.sqlite"
    with opened(path, seed=7) as log:
        for number in range(RECORDS):
            log.append([draft(number)]).wait()
    return path


def _delete(rows: Rows) -> None:
    del rows[20]


def _delete_and_close_the_gap(rows: Rows) -> None:
    for seq in range(20, RECORDS - 1):
        rows[seq] = rows[seq + 1]
    del rows[RECORDS - 1]


def _insert(rows: Rows) -> None:
    for seq in range(RECORDS, 20, -1):
        rows[seq] = rows[seq - 1]


def _purge(rows: Rows) -> None:
    for seq in range(10):
        del rows[seq]


def _negative(rows: Rows) -> None:
    rows[-1] = rows[0]


ATTACKS: list[tuple[Callable[[Rows], None], int, str]] = [
    (_delete, 20, "sequence"),
    (_delete_and_close_the_gap, 20, "sequence"),
    (_insert, 21, "sequence"),
    (_purge, 0, "pruned"),
    (_negative, 0, "sequence"),
]


@pytest.mark.parametrize(
    ("attack", "seq", "reason"), ATTACKS, ids=[a[0].__name__[1:] for a in ATTACKS]
)
def test_an_attack_on_records_is_detected_and_named(
    trail: Path, attack: Callable[[Rows], None], seq: int, reason: str
) -> None:
    """Both the next start and the verifier name the first bad record and why."""
    rows = rows_of(trail)
    attack(rows)
    replace_rows(trail, rows)

    check_named(trail, seq, reason)


SCHEMA_ATTACKS = [
    "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM head; END",
    "CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT",
    "CREATE INDEX i ON records (line)",
    "ALTER TABLE records ADD COLUMN note TEXT",
    "DROP TABLE records",
    "DROP TABLE head",
    "PRAGMA user_version = 0",
]


@pytest.mark.parametrize("statement", SCHEMA_ATTACKS)
def test_other_tables_than_ours_are_detected(trail: Path, statement: str) -> None:
    """A trigger, an index, a column or a missing table is no healthy trail."""
    with edited(trail) as connection:
        connection.execute(statement)

    check_named(trail, 0, "database")


def test_a_missing_head_mark_is_detected(trail: Path) -> None:
    """Records without a mark are not taken for a new trail."""
    with edited(trail) as connection:
        connection.execute("DELETE FROM head")

    check_named(trail, 0, "head_missing")


def _flip(position: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        flipped = bytearray(content)
        flipped[position] ^= 1
        return bytes(flipped)

    return change


HEAD_ATTACKS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "shorter": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "kind": _flip(0),
    "log id": _flip(16),
    "key check": _flip(40),
    "counter": _flip(71),
    "seq": _flip(79),
    "floor": _flip(87),
    "clean": _flip(88),
    "MAC": _flip(64 + 200),
    "padding": _flip(-1),
}


@pytest.mark.parametrize("attack", HEAD_ATTACKS)
def test_a_changed_head_mark_is_detected(trail: Path, attack: str) -> None:
    """Whatever part of it was changed, the mark is named."""
    with edited(trail) as connection:
        (content,) = connection.execute("SELECT content FROM head").fetchone()
        changed = HEAD_ATTACKS[attack](content)
        connection.execute("UPDATE head SET content = ?", (changed,))

    check_named(trail, 0, "head_damaged")


@pytest.mark.parametrize(
    ("state", "reason"), [("clean", "after_clean"), ("killed", "after_mark")]
)
def test_an_older_head_mark_does_not_hide_later_records(
    originals: dict[str, Path], tmp_path: Path, state: str, reason: str
) -> None:
    """What came after the end that a mark names is not believed."""
    path = copy_of(originals[state], tmp_path / "trail")
    with edited(path) as connection:
        older = connection.execute("SELECT content FROM head").fetchone()
    with opened(path) as log:
        log.append([draft()]).wait()
    with edited(path) as connection:
        connection.execute("UPDATE head SET content = ?", older)

    check_named(path, RECORDS, reason)


def test_a_log_that_was_deleted_after_a_kill_is_missed(tmp_path: Path) -> None:
    """A database without what its log held is whole, but behind the mark beside it."""
    path = tmp_path / "original" / "audit.sqlite"
    with opened(path) as log:
        fill(log, 30)
    with opened(path) as log:
        fill(log, 30, one_by_one=True)
        killed = copy_of(path, tmp_path / "killed")
    killed.with_name(f"{killed.name}-wal").unlink()

    check_named(killed, 30, "shorter")


def test_an_older_database_is_behind_the_mark_beside_it(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    """A database alone that is put back is told from one that only ends early."""
    path = copy_of(originals["clean"], tmp_path / "trail")
    with opened(path) as log:
        log.append([draft()]).wait()
    shutil.copyfile(originals["clean"], path)

    check_named(path, RECORDS, "shorter")


def test_an_emptied_database_is_not_taken_for_a_new_trail(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    """A trail of which only the mark beside it is left has lost its first record."""
    path = copy_of(originals["clean"], tmp_path / "trail")
    path.unlink()

    for _ in range(2):
        with pytest.raises(AuditTamperedError) as caught:
            open_log(path)
        assert {"seq": 0, "reason": "shorter"} == caught.value.facts


def test_another_trail_is_not_taken_for_this_one(trail: Path, other: Path) -> None:
    """A whole database of the same key, put in its place, has another id."""
    trail.with_name(f"{trail.name}-wal").unlink(missing_ok=True)
    shutil.copyfile(other, trail)

    check_named(trail, 0, "log_id")


def test_a_fork_that_is_as_long_is_not_taken_for_this_trail(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    """Of two histories that were written from one copy, the mark knows its own."""
    one = copy_of(originals["clean"], tmp_path / "one")
    two = copy_of(originals["clean"], tmp_path / "two")
    for number, path in enumerate((one, two)):
        with opened(path) as log:
            log.append([draft(number)]).wait()
    shutil.copyfile(two, one)

    check_named(one, RECORDS, "mark")


def test_a_mark_beside_the_database_that_was_changed_is_detected(trail: Path) -> None:
    """It is told as damage of the mark, whatever the database says."""
    head = trail.with_name(f"{trail.name}.head")
    content = bytearray(head.read_bytes())
    for slot in (512, 1024):
        content[slot + 20] ^= 1
    head.write_bytes(content)

    check_named(trail, 0, "head_damaged")


def test_a_copy_without_the_mark_beside_it_is_believed(trail: Path) -> None:
    """A copy of the database alone has a mark of its own, and gets a new file."""
    head = trail.with_name(f"{trail.name}.head")
    head.unlink()

    assert RECORDS == verified(trail).records
    with opened(trail) as log:
        log.append([draft()]).wait()
    assert head.exists()
    assert RECORDS + 1 == verified(trail).records


@pytest.mark.parametrize(("place", "size"), [(0.3, 1), (0.6, 1), (0.9, 1), (0.5, 0)])
def test_a_damaged_database_is_detected(trail: Path, place: float, size: int) -> None:
    """A page that is overwritten, or half a database, is no empty trail."""
    with edited(trail) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with trail.open("r+b") as file:
        file.seek(int(trail.stat().st_size * place) // 4096 * 4096)
        file.write(bytes(4096 * size)) or file.truncate()

    for attempt in (verified, open_log):
        with pytest.raises(AuditTamperedError):
            attempt(trail)


def test_a_text_in_place_of_a_record_is_detected(trail: Path) -> None:
    """Where the table was made again so that it takes anything, types are checked."""
    with edited(trail) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '') "
            "WHERE name = 'records'"
        )

    check_named(trail, 0, "database")


def test_verification_changes_nothing(trail: Path) -> None:
    """Neither the database nor its log is touched, and nothing is left beside it."""
    before = _files(trail)

    found = verified(trail)
    verified(trail, None)

    assert before == _files(trail)
    assert (RECORDS, RECORDS - 1) == (found.records, found.head_seq)
    assert found.macs_checked
    assert found.mark_checked


def _files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_a_trail_in_use_is_not_verified_beside_its_owner(tmp_path: Path) -> None:
    """The refusal says who can verify it, and nothing is disturbed."""
    path = tmp_path / "log" / "audit.sqlite"
    with opened(path) as log:
        log.append([draft()]).wait()
        with pytest.raises(StoreLockedError, match="server"):
            verified(path)
        log.append([draft()]).wait()

    assert 3 == verified(path).records


def test_what_is_no_trail_is_refused(tmp_path: Path) -> None:
    """Another database, a newer trail and a missing file are not called tampered."""
    strange = tmp_path / "strange.sqlite"
    with edited(strange) as connection:
        connection.execute("CREATE TABLE t (id)")
    with pytest.raises(ConfigurationError, match="no audit log"):
        verified(strange)

    path = tmp_path / "log" / "audit.sqlite"
    with opened(path):
        pass
    with edited(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer release"):
        verified(path)
    with pytest.raises(ConfigurationError):
        open_log(path)

    with pytest.raises(ConfigurationError, match="can't be read"):
        verified(tmp_path / "missing.sqlite")


def test_a_row_of_any_size_does_not_fill_the_memory(trail: Path) -> None:
    """A row that is too long for a record ends the verification there."""
    with edited(trail) as connection:
        connection.execute(
            "UPDATE records SET line = zeroblob(?) WHERE seq = 20", (1 << 26,)
        )

    with pytest.raises(AuditTamperedError) as caught:
        verified(trail)
    assert {"seq": 20, "reason": "database"} == caught.value.facts


def test_what_follows_an_attack_can_be_restored(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    """A refused start has changed nothing, so that a good copy opens."""
    path = copy_of(originals["clean"], tmp_path / "trail")
    with edited(path) as connection:
        connection.execute("DELETE FROM records WHERE seq = 30")
    with pytest.raises(AuditTamperedError):
        open_log(path)
    shutil.copyfile(originals["clean"], path)

    with opened(path) as log:
        assert ["operation"] == [e.operation_id for e in log.open_intents()]
        log.append([draft()]).wait()
    assert RECORDS + 1 == verified(path).records


@pytest.mark.parametrize("damage", ["bad", "missing"])
def test_refused_log_is_not_kept_open(trail: Path, damage: str) -> None:
    """Whoever holds the error can look again, and is told the same."""
    statements = {
        "bad": "UPDATE records SET line = x'00' WHERE seq = 30",
        "missing": "DELETE FROM records WHERE seq = 30",
    }
    with edited(trail) as connection:
        connection.execute(statements[damage])

    with pytest.raises(AuditTamperedError) as first:
        open_log(trail)
    with pytest.raises(AuditTamperedError) as second:
        open_log(trail)
    assert first.value.facts == second.value.facts

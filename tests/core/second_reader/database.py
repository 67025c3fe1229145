# SPDX-License-Identifier: MIT
"""A log in SQLite: rows of the same lines."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.core.second_reader.follower import Follower, Log, Mark
from tests.core.second_reader.keys import NOTHING, BadLogError
from tests.core.second_reader.marks import (
    Baseline,
    baseline_of,
    check_prune,
    mark_of,
    slot_of,
)

_APPLICATION: Final = 0x46485441
_NEXT: Final = "SELECT seq, line FROM records WHERE seq > ? ORDER BY seq LIMIT 1"
_TABLES: Final = """
CREATE TABLE baseline (next_seq INTEGER, number INTEGER, line BLOB NOT NULL, PRIMARY KEY (next_seq, number)) STRICT, WITHOUT ROWID
CREATE TABLE facts (first_seq INTEGER PRIMARY KEY, line BLOB NOT NULL) STRICT
CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), content BLOB NOT NULL) STRICT
CREATE TABLE pruned (id INTEGER PRIMARY KEY CHECK (id = 0), next_seq INTEGER NOT NULL, record_seq INTEGER NOT NULL) STRICT
CREATE TABLE records (seq INTEGER PRIMARY KEY, line BLOB NOT NULL) STRICT
"""  # noqa: E501 (as they stand on the page)


def read_database(path: Path, hmac_key: bytes | None) -> Log:
    """
    Read a log in SQLite that nobody has open.

    Args:
        path: The database.

        hmac_key: 32 bytes; None checks what can be checked without.

    Raises:
        BadLogError: It is damaged.
    """
    with tempfile.TemporaryDirectory() as folder, closing(_open(path, folder)) as found:
        try:
            return _read(found, path, hmac_key)
        except sqlite3.Error:
            raise BadLogError(0, "database") from None


def _open(path: Path, folder: str) -> sqlite3.Connection:
    """Open a database without a trace on it; what a crash left of it, in a copy."""
    log = path.with_name(path.name + "-wal")
    if not log.exists():
        uri = f"{path.absolute().as_uri()}?immutable=1"
        return sqlite3.connect(uri, uri=True)
    for file in (path, log):
        shutil.copy(file, folder)
    return sqlite3.connect(Path(folder) / path.name)


def _read(connection: sqlite3.Connection, path: Path, hmac_key: bytes | None) -> Log:
    _check_schema(connection)
    mark = _mark_in(connection, hmac_key)
    beside = path.with_name(path.name + ".head")
    outside = mark_of(beside.read_bytes(), hmac_key) if beside.exists() else mark
    if outside.log_id != mark.log_id:
        raise BadLogError(0, "log_id")
    baseline = _baseline_in(connection, hmac_key)
    first = (0, NOTHING)
    if baseline is not None:
        first = baseline.next_seq, str(baseline.header["last_leaf_hash"])
    counted = mark if hmac_key is not None else None
    follower = Follower(mark.log_id, hmac_key, counted, first)
    try:
        facts = _follow_rows(connection, follower, first[0], counted)
    except sqlite3.Error:
        raise BadLogError(follower.next_seq, "database") from None
    if facts and min(facts) < follower.next_seq:
        raise BadLogError(min(facts), "facts")
    log = follower.end()
    if facts:
        raise BadLogError(min(facts), "facts")
    if hmac_key is not None:
        _check_outside(log, outside)
    if baseline is not None:
        (at,) = connection.execute("SELECT record_seq FROM pruned").fetchone()
        check_prune(log, baseline, at)
    return log


def _follow_rows(
    connection: sqlite3.Connection, follower: Follower, first: int, mark: Mark | None
) -> dict[int, bytes]:
    """Follow all entries, and return the facts lines that stand before none."""
    facts = dict(connection.execute("SELECT first_seq, line FROM facts"))
    for seq in sorted(facts):
        if seq < first:
            follower.serve(facts.pop(seq), seq)
    # One by one, for a cursor looks at the next row before it gives one.
    after = first - 1 if first else -(2**63)
    while row := connection.execute(_NEXT, (after,)).fetchone():
        seq, line = row
        after = seq
        if mark is not None and seq > mark.seq:
            raise BadLogError(seq, "after_mark")
        if seq != follower.next_seq:
            raise BadLogError(follower.next_seq, "sequence")
        if seq in facts:
            follower.follow(facts.pop(seq))
        follower.follow(line)
    return facts


def _check_outside(log: Log, outside: Mark) -> None:
    """Check that the log has what the file beside it says."""
    if outside.seq > log.head[0]:
        raise BadLogError(log.head[0] + 1, "shorter")
    for entry in log.entries:
        if entry.seq == outside.seq and entry.leaf != outside.leaf:
            raise BadLogError(entry.seq, "mark")


def _check_schema(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    found = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    tables = [" ".join(str(sql).split()) for (sql,) in found]
    if (application, version, tables) != (_APPLICATION, 1, _TABLES.split("\n")[1:-1]):
        raise BadLogError(0, "database")


def _mark_in(connection: sqlite3.Connection, hmac_key: bytes | None) -> Mark:
    rows = connection.execute("SELECT content FROM head").fetchall()
    if len(rows) != 1 or len(rows[0][0]) != 576:
        raise BadLogError(0, "head_damaged")
    content = bytes(rows[0][0])
    found = slot_of(content[:64], content[64:], hmac_key)
    if found is None or content[:16] != b"FerroHSM head 1\n":
        raise BadLogError(0, "head_damaged")
    return found[1]


def _baseline_in(
    connection: sqlite3.Connection, hmac_key: bytes | None
) -> Baseline | None:
    pruned = connection.execute("SELECT next_seq FROM pruned").fetchall()
    if not pruned:
        return None
    lines = connection.execute(
        "SELECT line FROM baseline WHERE next_seq = ? ORDER BY number", pruned[0]
    )
    baseline = baseline_of(b"".join(line for (line,) in lines), hmac_key)
    if baseline.next_seq != pruned[0][0]:
        raise BadLogError(0, "baseline")
    return baseline

# SPDX-License-Identifier: MIT
"""A log in SQLite: rows of the same lines."""

from __future__ import annotations

import sqlite3
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
_TABLES: Final = {"baseline", "facts", "head", "pruned", "records"}


def read_database(path: Path, hmac_key: bytes | None) -> Log:
    """
    Read a log in SQLite that nobody has open.

    Args:
        path: The database.

        hmac_key: 32 bytes; None checks what can be checked without.

    Raises:
        BadLogError: It is damaged.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            return _read(connection, path, hmac_key)
    except sqlite3.Error:
        raise BadLogError(0, "database") from None


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
    facts = dict(connection.execute("SELECT first_seq, line FROM facts"))
    for seq in sorted(facts):
        if seq < first[0]:
            follower.serve(facts.pop(seq), seq)
    rows = connection.execute(
        "SELECT seq, line FROM records WHERE seq >= ? ORDER BY seq", (first[0],)
    )
    for seq, line in rows:
        if hmac_key is not None and seq > mark.seq:
            raise BadLogError(seq, "after_mark")
        if seq != follower.next_seq:
            raise BadLogError(follower.next_seq, "sequence")
        if seq in facts:
            follower.follow(facts.pop(seq))
        follower.follow(bytes(line))
    if facts:
        raise BadLogError(min(facts), "facts")
    log = follower.end()
    if hmac_key is not None:
        _check_outside(log, outside)
    if baseline is not None:
        check_prune(log, baseline)
    return log


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
    found = connection.execute("SELECT type, name FROM sqlite_schema").fetchall()
    wanted = {("table", name) for name in _TABLES}
    if (application, version) != (_APPLICATION, 1) or set(found) != wanted:
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

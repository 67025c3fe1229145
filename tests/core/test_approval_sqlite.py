# SPDX-License-Identifier: MIT
"""Approvals in SQLite: edited rows, other databases, and a disk that fails."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hsm_core._internal.stores.sqlite.approval_rows import APPROVALS_SCHEMA
from hsm_core._internal.stores.sqlite.connection import Schema
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore
from hsm_core.errors import (
    ApprovalTamperedError,
    ConfigurationError,
    GenerationConflictError,
    IntegrityError,
)
from hsm_core.model import ApprovalState
from hsm_core.protocols import ApprovalQuery
from tests.core.approval_steps import make_template, seen
from tests.core.approval_support import (
    approval_id_of,
    approval_of,
    change_of,
    digest_of,
    register_of,
)
from tests.support import REPOSITORY, require_program

ONE, TWO = approval_id_of(1), approval_id_of(2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the database of a closed store with three approvals."""
    found = tmp_path / "db" / "approvals.sqlite"
    store = SqliteApprovalStore(found)
    make_template(store)
    store.close()
    return found


def edit(path: Path, statement: str, *values: object) -> None:
    """Change a closed database as whoever has its file can."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute(statement, values)


@pytest.fixture
def opened(path: Path) -> Iterator[list[SqliteApprovalStore]]:
    """Give a list whose stores are closed at the end."""
    stores: list[SqliteApprovalStore] = []
    yield stores
    for store in stores:
        store.close()


def test_moved_record(path: Path, opened: list[SqliteApprovalStore]) -> None:
    """
    A record that was moved to another row is refused there.
    """
    edit(
        path,
        "UPDATE approvals SET record = (SELECT record FROM approvals "
        "WHERE approval_id = ?) WHERE approval_id = ?",
        TWO,
        ONE,
    )
    opened.append(SqliteApprovalStore(path))

    with pytest.raises(ApprovalTamperedError):
        register_of(opened[0]).get(ONE)
    assert (ONE,) == register_of(opened[0]).check()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "granted"),
        ("state", "nothing"),
        ("requester", "bob"),
        ("digest", ""),
        ("created_at", 1),
        ("created_at", 2**62),
        ("closed_at", 1),
        ("generation", 7),
        ("generation", 0),
        ("generation", -1),
    ],
)
def test_edited_index(
    path: Path, opened: list[SqliteApprovalStore], column: str, value: object
) -> None:
    """
    An edited column is found, makes nothing of its record untrue, and hides no other.
    """
    statement = "UPDATE approvals SET COLUMN = ? WHERE approval_id = ?"
    edit(path, statement.replace("COLUMN", column), value, ONE)
    opened.append(SqliteApprovalStore(path))
    register = register_of(opened[0])

    assert (ONE,) == register.check()
    found = register.find(ApprovalQuery()).approvals
    assert {TWO, approval_id_of(3)} <= {approval.approval_id for approval in found}
    assert ApprovalState.PENDING is register.get(ONE).state
    granted = ApprovalQuery(states=frozenset({ApprovalState.GRANTED}))
    assert [TWO] == [a.approval_id for a in register.find(granted).approvals]


@pytest.mark.parametrize("record", [b"", b"{}", bytes(65_537)])
def test_edited_record(
    path: Path, opened: list[SqliteApprovalStore], record: bytes
) -> None:
    """
    What is no record is named, and can't be written over.
    """
    edit(path, "UPDATE approvals SET record = ? WHERE approval_id = ?", record, ONE)
    opened.append(SqliteApprovalStore(path))

    assert (ONE,) == register_of(opened[0]).check()
    with pytest.raises(GenerationConflictError):
        opened[0].commit(change_of(approval_of(1)))


def test_foreign_rows(path: Path, opened: list[SqliteApprovalStore]) -> None:
    """
    Rows that no approval can have are in nobody's way.
    """
    edit(
        path,
        "INSERT INTO approvals (approval_id, generation, state, requester, digest, "
        "created_at, closed_at, record) VALUES ('x', 1, 'y', '', '', 9e18, 0, x'00')",
    )
    opened.append(SqliteApprovalStore(path))
    register = register_of(opened[0])

    assert 3 == len(register.find(ApprovalQuery(limit=1000)).approvals)
    assert 3 == len(opened[0].approval_ids())
    assert () == register.check()


def test_other_databases(tmp_path: Path) -> None:
    """
    A database of another kind, of a newer program, or none at all is refused.
    """
    other = tmp_path / "db" / "other.sqlite"
    Database(other, Schema(0x46485858, APPROVALS_SCHEMA.steps)).close()
    newer = tmp_path / "db" / "newer.sqlite"
    steps = (*APPROVALS_SCHEMA.steps, lambda tables: None)
    Database(newer, Schema(APPROVALS_SCHEMA.application_id, steps)).close()
    junk = tmp_path / "db" / "junk.sqlite"
    junk.write_bytes(b"junk" * 1000)
    junk.chmod(0o600)

    for path in (other, newer, junk):
        before = path.read_bytes()
        with pytest.raises((ConfigurationError, IntegrityError)):
            SqliteApprovalStore(path)
        assert before == path.read_bytes()


@pytest.mark.parametrize(
    "query",
    [
        ApprovalQuery(),
        ApprovalQuery(requester="ann"),
        ApprovalQuery(digest=digest_of(1)),
        ApprovalQuery(states=frozenset({ApprovalState.PENDING, ApprovalState.DENIED})),
        ApprovalQuery(requester="ann", states=frozenset({ApprovalState.PENDING})),
    ],
)
@pytest.mark.parametrize("after", [None, (1, ONE)])
def test_no_sorting(
    path: Path, query: ApprovalQuery, after: tuple[int, str] | None
) -> None:
    """
    Every page is read in order from an index, so that it costs what it shows.
    """
    statements: list[str] = []
    store = SqliteApprovalStore(path)
    with store.database.reading() as connection:
        connection.set_trace_callback(statements.append)
    store.find(replace(query, after=after))
    plans = [
        row[3]
        for statement in statements
        for row in store.database.rows("EXPLAIN QUERY PLAN " + statement)
    ]
    store.close()

    assert plans
    for plan in plans:
        assert "USING INDEX approvals_" in plan


PROGRAM = """
import sys, pathlib
from hsm_core.errors import HSMError
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore
from tests.core.approval_steps import seen, step
store = SqliteApprovalStore(pathlib.Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
try:
    step(store, sys.argv[2])
    print("done")
except HSMError as error:
    print(type(error).__name__, *error.facts, store.available)
    store.reopen()
    print(store.available, len(seen(store)))
    try:
        step(store, sys.argv[2])
    except HSMError as error:
        print(type(error).__name__)
    print(len(seen(store)))
store.close()
"""


@pytest.mark.parametrize("name", ["insert", "remove"])
@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("fdatasync,fsync:error=EIO:when=1", "OutcomeUnknownError approval_id False"),
        ("pwrite64:error=ENOSPC:when=1", "StorageFullError True"),
    ],
)
def test_failing_disk(path: Path, name: str, rule: str, told: str) -> None:
    """
    A commit that may have been made is told so; after `reopen` the store goes on.
    """
    strace = require_program("strace")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), name],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "open\n" == process.stdout.readline()
    with subprocess.Popen(
        [
            strace,
            "-f",
            "-p",
            str(process.pid),
            "-o",
            "/dev/null",
            "-e",
            f"inject={rule}",
        ],
        stderr=subprocess.PIPE,
    ) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        said = process.communicate("go\n")[0].splitlines()

    assert told == said[0]
    old, new = ("3", "4") if name == "insert" else ("3", "0")
    assert said[1] in {f"True {old}", f"True {new}"}
    assert new == said[-1]
    store = SqliteApprovalStore(path)
    assert int(new) == len(seen(store))
    store.close()
    assert 0 == process.returncode

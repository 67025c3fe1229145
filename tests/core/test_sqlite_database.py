# SPDX-License-Identifier: MIT
"""A database is private, exclusive, of one kind and one version, and never older."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_core._internal.stores.sqlite.connection import Schema, sqlite_errors
from hsm_core._internal.stores.sqlite.database import ConnectionLock, Database
from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    IntegrityError,
    StorageFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from tests.core.sqlite_support import (
    SCHEMA,
    add,
    count,
    edited,
    files_of,
    make_things,
    opened,
    outsider,
)

if TYPE_CHECKING:
    import sqlite_utils


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a closed database with three things."""
    return make_things(tmp_path)


def mode_of(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


class TestFiles:
    def test_everything_that_is_made_is_private(self, tmp_path: Path) -> None:
        """
        Whatever the umask, only we may reach the directory and any file in it.
        """
        path = tmp_path / "a" / "b" / "things.sqlite"
        before = os.umask(0)
        try:
            with opened(path) as database:
                add(database)
                modes = {file.name: mode_of(file) for file in files_of(path)}
        finally:
            os.umask(before)

        assert {
            "things.sqlite": 0o600,
            "things.sqlite-wal": 0o600,
            "things.sqlite.lock": 0o600,
        } == modes
        assert [0o700, 0o700] == [mode_of(p) for p in (tmp_path / "a", path.parent)]

    def test_a_directory_that_is_there_is_not_judged(self, tmp_path: Path) -> None:
        """
        A database may lie in a directory that others may list.
        """
        tmp_path.chmod(0o755)

        with opened(tmp_path / "things.sqlite") as database:
            add(database)

        assert 0o755 == mode_of(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [":memory:", "file:x", "file:x?mode=memory", "a?mode=ro#b%20\n", "a\udcff"],
    )
    def test_names_are_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """
        The file has the very name that was given, whatever SQLite would make of it.
        """
        monkeypatch.chdir(tmp_path)
        with opened(Path(name)) as database:
            add(database)

        assert {name, f"{name}.lock"} == set(os.listdir())
        with opened(tmp_path / name) as database:
            assert 1 == count(database)

    @pytest.mark.parametrize("side", ["", "-wal", "-shm", "-journal", ".lock"])
    @pytest.mark.parametrize("kind", ["mode", "link", "fifo", "directory"])
    def test_unsafe_files(self, path: Path, side: str, kind: str) -> None:
        """
        A file that others may reach, or that is no regular one, is refused.
        """
        file = path.with_name(path.name + side)
        file.touch()
        if kind == "mode":
            file.chmod(0o640)
        else:
            file.rename(path.with_name("elsewhere"))
        if kind == "link":
            file.symlink_to("elsewhere")
        elif kind == "fifo":
            os.mkfifo(file, 0o600)
        elif kind == "directory":
            file.mkdir(0o700)

        with pytest.raises((UnsafeFileModeError, StoreUnavailableError)):
            Database(path, SCHEMA)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [(b"\0" * 4096, IntegrityError), (b"SQLite format 3\0", IntegrityError)],
        ids=["zeros", "short"],
    )
    def test_no_database(
        self, path: Path, content: bytes, expected: type[HSMError]
    ) -> None:
        """
        What is no database is refused, and nothing is written to it.
        """
        path.write_bytes(content)

        with pytest.raises(expected, match="not a SQLite database"):
            Database(path, SCHEMA)

        assert content == path.read_bytes()

    def test_another_kind_of_database(self, path: Path) -> None:
        """
        A database of another program, or another of our stores, is left as it is.
        """
        before = path.read_bytes()

        with pytest.raises(ConfigurationError, match="of another application"):
            Database(path, Schema(application_id=1, steps=SCHEMA.steps))

        assert before == path.read_bytes()

    def test_a_foreign_database_with_a_log(self, tmp_path: Path) -> None:
        """
        The log of a database of another program is not moved into it either.
        """
        path = tmp_path / "theirs.sqlite"
        path.touch(0o600)
        with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
            theirs.execute("PRAGMA journal_mode = WAL")
            theirs.execute("CREATE TABLE things (id)")
            before = {file: file.read_bytes() for file in files_of(path)}
            with pytest.raises(ConfigurationError, match="of another application"):
                Database(path, SCHEMA)

            after = {file: file.read_bytes() for file in before}

        assert before == after

    def test_empty_database_with_a_log(self, path: Path) -> None:
        """
        A database that was cut off to nothing is not begun anew over its log.
        """
        path.with_name(path.name + "-wal").write_bytes(b"log")
        path.with_name(path.name + "-wal").chmod(0o600)
        os.truncate(path, 0)

        with pytest.raises(IntegrityError, match="its write-ahead log is not"):
            Database(path, SCHEMA)

    def test_kill_before_the_first_page(self, tmp_path: Path) -> None:
        """
        An empty file without a log is what a kill leaves, and is begun anew.
        """
        path = tmp_path / "things.sqlite"
        path.touch(0o600)

        with opened(path) as database:
            add(database)

            assert 1 == count(database)


class TestLock:
    def test_another_program(self, path: Path) -> None:
        """
        Nobody else can read or write it, nor keep us from committing.
        """
        with opened(path) as database:
            answers = {
                outsider(path, statement)
                for statement in ("SELECT * FROM things", "BEGIN EXCLUSIVE")
            }
            add(database)

            assert {"database is locked"} == answers
            assert 4 == count(database)
            assert not path.with_name(path.name + "-shm").exists()

    def test_another_program_was_first(self, path: Path) -> None:
        """
        While somebody writes it, opening is refused after a moment.
        """
        program = (
            "import sqlite3, sys\n"
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('BEGIN EXCLUSIVE')\n"
            "print('begun', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert b"begun\n" == process.stdout.readline()
            try:
                with pytest.raises(StoreLockedError):
                    Database(path, SCHEMA)
            finally:
                process.kill()

        with opened(path) as database:
            assert 3 == count(database)

    def test_child_of_fork(self, path: Path) -> None:
        """
        A child can't use it, and its end does not touch the parent's files.
        """
        program = (
            "import os, pathlib, sys\n"
            "from tests.core.sqlite_support import *\n"
            "from hsm_core.errors import StoreUnavailableError\n"
            "from hsm_core._internal.stores.sqlite.database import Database\n"
            "database = Database(pathlib.Path(sys.argv[1]), SCHEMA)\n"
            "add(database)\n"
            "log = sys.argv[1] + '-wal'\n"
            "before = os.stat(log).st_size\n"
            "if not os.fork():\n"
            "    for call in count, add:\n"
            "        try:\n"
            "            call(database)\n"
            "        except StoreUnavailableError:\n"
            "            print('refused', flush=True)\n"
            "    database.close()\n"
            "    del database\n"
            "    sys.exit()\n"
            "os.wait()\n"
            "print(before > 0, os.stat(log).st_size == before)\n"
            "add(database)\n"
            "print(count(database), flush=True)\n"
            "os._exit(0)\n"
        )

        answer = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

        assert "refused\nrefused\nTrue True\n5\n" == answer
        with opened(path) as database:
            assert 5 == count(database)


class TestSchema:
    @staticmethod
    def second(tables: sqlite_utils.Database) -> None:
        """Add another table."""
        tables.create_table("others", {"id": int}, pk="id")

    def test_older_schema(self, path: Path) -> None:
        """
        A database of an older program gets the tables that it lacks, once.
        """
        newer = Schema(SCHEMA.application_id, (*SCHEMA.steps, self.second))

        for _ in range(2):
            with opened(path, newer) as database:
                assert 3 == count(database)
                assert [] == database.rows("SELECT * FROM others")
                assert (2,) == database.row("PRAGMA user_version")

    def test_newer_schema(self, path: Path) -> None:
        """
        A database of a newer program is refused, with both versions, unchanged.
        """
        edited(path, "PRAGMA user_version = 7")
        before = path.read_bytes()

        with pytest.raises(ConfigurationError, match=r"version 7; .* up to 1"):
            Database(path, SCHEMA)

        assert before == path.read_bytes()

    def test_migration_that_fails(self, path: Path) -> None:
        """
        A migration that fails in its second step leaves nothing of its first.
        """

        def failing(tables: sqlite_utils.Database) -> None:
            raise ZeroDivisionError

        steps = (*SCHEMA.steps, self.second, failing)
        with pytest.raises(ZeroDivisionError):
            Database(path, Schema(SCHEMA.application_id, steps))

        with opened(path) as database:
            assert 3 == count(database)
            assert [] == database.rows(
                "SELECT name FROM sqlite_schema WHERE name = 'others'"
            )

    def test_step_that_commits(self, path: Path) -> None:
        """
        A step that ends the transaction is found out.
        """

        def committing(tables: sqlite_utils.Database) -> None:
            tables.execute("COMMIT")

        steps = (*SCHEMA.steps, committing)
        with pytest.raises(RuntimeError, match="ended the transaction"):
            Database(path, Schema(SCHEMA.application_id, steps))

    def test_without_sqlite_utils(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        What makes tables is needed for nothing else, and it is told how to get it.
        """
        monkeypatch.setitem(sys.modules, "sqlite_utils", None)

        with opened(path) as database:
            assert 3 == count(database)
        with pytest.raises(ConfigurationError, match="needs sqlite-utils"):
            Database(path.with_name("new.sqlite"), SCHEMA)

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TRIGGER t AFTER INSERT ON things BEGIN DELETE FROM things; END",
            "CREATE VIEW v AS SELECT * FROM things",
            "CREATE VIRTUAL TABLE v USING fts5(a)",
        ],
    )
    def test_what_runs_code(self, path: Path, statement: str) -> None:
        """
        Statements and modules that somebody put into the database are never run.
        """
        edited(path, statement)

        with pytest.raises(IntegrityError, match="triggers, views or virtual"):
            Database(path, SCHEMA)


class TestTransactions:
    def test_nesting(self, path: Path) -> None:
        """
        A transaction within one is a mistake, and undoes the outer one.
        """
        with opened(path) as database:
            with pytest.raises(RuntimeError, match="nested"), database.transaction():
                add(database)

            assert 3 == count(database)

    def test_durability(self, path: Path) -> None:
        """
        A transaction is synced, unless it is told not to be.
        """
        levels = []
        with opened(path) as database:
            for durable in (True, False, False, True):
                with database.transaction(durable=durable):
                    levels.append(database.rows("PRAGMA synchronous")[0][0])

        assert [2, 1, 1, 2] == levels

    def test_log_is_moved_now_and_then(self, path: Path) -> None:
        """
        The log does not grow with the number of transactions, and close removes it.
        """
        log = path.with_name(path.name + "-wal")
        with opened(path) as database:
            for _ in range(300):
                add(database)
            size = log.stat().st_size

        assert size < 300 * 4096
        assert not log.exists()

    @pytest.mark.parametrize(
        "statement",
        ["SELECT * FROM absent", "SELECT absent FROM things", "no statement"],
    )
    def test_tables_that_are_not_as_we_made_them(
        self, path: Path, statement: str
    ) -> None:
        """
        A table or column that is missing is damage, and not absence of what is sought.
        """
        with opened(path) as database, pytest.raises(IntegrityError):
            database.rows(statement)

    def test_text_that_is_no_text(self, path: Path) -> None:
        """
        Text that is no UTF-8 is damage.
        """
        edited(path, "UPDATE things SET value = CAST(x'ff' AS TEXT)")

        with opened(path) as database, pytest.raises(IntegrityError):
            database.rows("SELECT value FROM things")

    def test_giant_value(self, path: Path) -> None:
        """
        A value longer than any of ours is refused without making room for it.
        """
        edited(path, "UPDATE things SET value = zeroblob(67108865) WHERE id = 1")

        with opened(path) as database, pytest.raises(IntegrityError):
            database.rows("SELECT value FROM things")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_BUSY, StoreUnavailableError),
        (sqlite3.SQLITE_BUSY_RECOVERY, StoreUnavailableError),
        (sqlite3.SQLITE_IOERR, StoreUnavailableError),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailableError),
        (sqlite3.SQLITE_IOERR_READ, StoreUnavailableError),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailableError),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailableError),
        (sqlite3.SQLITE_NOMEM, StoreUnavailableError),
        (sqlite3.SQLITE_INTERRUPT, StoreUnavailableError),
        (sqlite3.SQLITE_CORRUPT, IntegrityError),
        (sqlite3.SQLITE_CORRUPT_INDEX, IntegrityError),
        (sqlite3.SQLITE_NOTADB, IntegrityError),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, IntegrityError),
    ],
)
def test_what_errors_mean(code: int, expected: type[HSMError]) -> None:
    """
    Each code of SQLite, extended or not, is one error of ours, and none "not found".
    """
    error = sqlite3.OperationalError("words of SQLite")
    error.sqlite_errorcode = code

    with pytest.raises(HSMError) as caught, sqlite_errors():
        raise error

    assert expected is type(caught.value)
    assert error is caught.value.__cause__
    assert "words" not in str(caught.value)


class TestBackup:
    def test_of_a_database_in_use(self, path: Path, tmp_path: Path) -> None:
        """
        A copy made under writes is whole: every thing of before, and no half one.
        """
        copy = tmp_path / "copy.sqlite"
        with opened(path) as database:
            for _ in range(30):
                add(database, b"long" * 40_000)
            done = threading.Event()

            def write() -> None:
                while not done.wait(0.001):
                    add(database, b"more")

            writer = threading.Thread(target=write)
            writer.start()
            try:
                database.backup(copy)
            finally:
                done.set()
                writer.join()
            last = count(database)

        assert 0o600 == mode_of(copy)
        assert [copy] == list(tmp_path.glob("copy*"))
        with opened(copy) as database:
            database.verify()
            assert 33 < count(database) <= last
            assert 30 == len(
                database.rows("SELECT id FROM things WHERE length(value) = 160000")
            )

    @pytest.mark.parametrize("size", [1, 8_000_000])
    def test_what_is_written_before_the_end(self, path: Path, size: int) -> None:
        """
        The end waits for whoever asked, others can write, and all of that is copied.
        """
        copy = path.with_name("copy.sqlite")
        sizes: list[int] = []
        with opened(path) as database:
            add(database, b"x" * size)

            def before_end() -> None:
                sizes.extend(found.stat().st_size for found in files_of(copy))
                writer = threading.Thread(target=add, args=(database, b"late"))
                writer.start()
                writer.join(60)
                assert 5 == count(database)

            database.backup(copy, before_end)

        assert 1 == len(sizes)
        assert sizes[0] > size - 600 * 4096
        with opened(copy) as database:
            database.verify()
            assert 5 == count(database)

    def test_an_error_before_the_end(self, path: Path) -> None:
        """
        What the caller raises ends the copy, and the database goes on.
        """
        copy = path.with_name("copy.sqlite")

        def fail() -> None:
            raise ValueError("not now")

        with opened(path) as database:
            with pytest.raises(ValueError, match="not now"):
                database.backup(copy, fail)
            add(database)

        assert [] == list(path.parent.glob("copy*"))

    def test_never_over_a_file(self, path: Path) -> None:
        """
        What is there already is not replaced.
        """
        with (
            opened(path) as database,
            pytest.raises(ConfigurationError, match="already exists"),
        ):
            database.backup(path)

    def test_closed_meanwhile(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A copy that is not finished when the database is closed is thrown away.
        """
        with opened(path) as database:
            for _ in range(30):
                add(database, b"long" * 40_000)
            monkeypatch.setattr("time.sleep", lambda _: database.close())

            with pytest.raises(StoreUnavailableError, match="closed"):
                database.backup(path.with_name("copy.sqlite"))

        assert [] == list(path.parent.glob("copy*"))


@pytest.mark.parametrize("gives_back", [True, False])
def test_turn_after_a_pause(gives_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was paused finds the time over; who has the turn is not late."""
    module = ConnectionLock.__module__
    monkeypatch.setattr(f"{module}._PATIENCE_SECONDS", 0.0)
    if gives_back:
        monkeypatch.setattr(f"{module}.MOMENT_SECONDS", 60.0)
    turn, asked = ConnectionLock(), threading.Event()

    def hold() -> None:
        with turn.patiently():
            held.set()
            asked.wait()
            done.wait(0.03 if gives_back else None)

    held, done = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        with nullcontext() if gives_back else pytest.raises(StoreUnavailableError):
            asked.set()
            turn.take()
    finally:
        done.set()
        holder.join()


def test_turns_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes the turn after the pause is not late, whoever had it before."""
    module = ConnectionLock.__module__
    monkeypatch.setattr(f"{module}._PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(f"{module}.MOMENT_SECONDS", 1.5)
    turn, held, goes_on = ConnectionLock(), threading.Event(), threading.Event()

    def hold() -> None:
        turn.begin()
        held.set()
        goes_on.wait()
        with turn.lock:  # so that nobody else comes between the two turns
            turn.end()
            turn.begin()
        time.sleep(1.7)  # longer than the moment that is waited for the former
        turn.end()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    time.sleep(0.6)
    threading.Timer(0.1, goes_on.set).start()
    turn.take()
    turn.end()
    holder.join()

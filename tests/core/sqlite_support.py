# SPDX-License-Identifier: MIT
"""Databases to try out and to damage, and programs that look at them from outside."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_core._internal.stores.sqlite.connection import Schema
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from tests.core.filesystem_support import Seen, seen
from tests.core.key_support import change_of, document_of, operation_of

if TYPE_CHECKING:
    import sqlite_utils


def _first(tables: sqlite_utils.Database) -> None:
    tables.create_table("things", {"id": int, "value": bytes}, pk="id")


SCHEMA = Schema(application_id=0x54455354, steps=(_first,))


def files_of(path: Path) -> list[Path]:
    """Return the files of a database that are there."""
    return sorted(path.parent.glob(path.name + "*"))


@contextmanager
def opened(path: Path, schema: Schema = SCHEMA) -> Iterator[Database]:
    """Open a database for the duration of a ``with`` block."""
    with closing(Database(path, schema)) as database:
        yield database


def add(database: Database, value: bytes = b"value", *, durable: bool = True) -> None:
    """Add a thing."""
    with database.transaction(durable=durable) as connection:
        connection.execute("INSERT INTO things (value) VALUES (?)", (value,))


def count(database: Database) -> int:
    """Return how many things there are."""
    found = database.row("SELECT count(*) FROM things")
    assert found is not None
    return int(found[0])


def edited(path: Path, *statements: str) -> None:
    """Change a closed database as anybody could who may write its file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def outsider(path: Path, *statements: str) -> str:
    """Return what another program is told that tries to read a database."""
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "try:\n"
        "    for statement in sys.argv[2:]:\n"
        "        print(connection.execute(statement).fetchall())\n"
        "except sqlite3.Error as error:\n"
        "    print(error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(path), *statements],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def keys_template(path: Path) -> Path:
    """Make a closed key store of three keys, one of them with two versions."""
    with closing(SqliteKeyStore(path)) as store:
        for number in (1, 2, 3):
            document = document_of(
                number, name=f"name-{number}", operations=(operation_of(number),)
            )
            blobs = {1: b"blob-%d" % number}
            store.commit(change_of(document, operation_of(number), blobs=blobs))
        rotated = document_of(2, generation=2, versions=2, name="name-2")
        store.commit(change_of(rotated, operation_of(20), blobs={2: b"blob-2-2"}))
        store.write_meta("ring", b"sealed")
        store.uses.put("00000000-0000-4000-8000-000000000001", b"used")
    return path


def copy_of(template: Path, folder: Path) -> Path:
    """Copy a closed database into a new folder; return its new path."""
    folder.mkdir(mode=0o700)
    shutil.copy(template, folder / template.name)
    return folder / template.name


def still_there(path: Path) -> Seen:
    """Open a key store, check every page of it, and return all that it has."""
    with closing(SqliteKeyStore(path)) as store:
        store.database.verify()
        return seen(store)


def log_of(path: Path) -> Path:
    """Return the path of a database's log."""
    return path.with_name(path.name + "-wal")


def make_things(folder: Path) -> Path:
    """Make a database with three things, and return its path."""
    path = folder / "folder" / "things.sqlite"
    with opened(path) as database:
        for _ in range(3):
            add(database)
    return path

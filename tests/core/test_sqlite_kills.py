# SPDX-License-Identifier: MIT
"""A process killed before any change of a file leaves a whole store, old or new."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.protocols import IndexEntry
from tests.core.filesystem_support import SCENARIOS, seen
from tests.core.key_support import operation_of
from tests.core.sqlite_support import copy_of, edited, files_of, keys_template
from tests.core.sqlite_sweep import CALLS, LAST, OPENED
from tests.support import REPOSITORY, require_program


def sweep(template: Path, folder: Path, scenario: str) -> dict[str, int]:
    """
    Kill a program before each of its calls that change a file.

    Args:
        template: A closed store, of which each program has a copy of its own.

        folder: For the copies: the n-th of a call is in ``CALL-n``.

        scenario: What the programs do.

    Returns:
        How many were killed, by call.
    """
    strace = [require_program("strace"), "-f", "-qq", "-o", "/dev/null"]
    rule = f"inject={','.join(CALLS)}:signal=SIGKILL:when={LAST}"
    program = [sys.executable, "-m", "tests.core.sqlite_sweep"]
    answer = subprocess.run(
        [*strace, "-e", rule, *program, str(template), str(folder), scenario],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = map(str.split, answer.stdout.splitlines())
    return {call: int(killed) for call, killed in lines}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_before_every_call(tmp_path: Path, scenario: str) -> None:
    """
    SIGKILL before each call that changes a file: old or new, whole, and it goes on.
    """
    template = keys_template(tmp_path / "template" / "keys.sqlite")
    kills = sweep(template, tmp_path, scenario)
    with closing(SqliteKeyStore(copy_of(template, tmp_path / "whole"))) as store:
        old = seen(store)
        SCENARIOS[scenario](store)
        new = seen(store)
    for call, killed in kills.items():
        kept = []
        for number in range(1, killed + 1):
            path = tmp_path / f"{call}-{number}" / "keys.sqlite"
            with closing(SqliteKeyStore(path)) as store:
                store.database.verify()
                made = store.find_operation(operation_of(90)) is not None
                assert (new if made else old) == seen(store)
                if not made:
                    SCENARIOS[scenario](store)
                    assert new == seen(store)
            kept.append(made)

        assert sorted(kept) == kept
        assert kept[-1], call
        assert call in {"ftruncate", "unlink"} or not kept[0]
        assert len(kept) < LAST - 1


def _make_old(path: Path) -> None:
    """Make a database as the first version of its schema had it."""
    edited(
        path,
        "ALTER TABLE keys DROP COLUMN owner",
        "ALTER TABLE keys DROP COLUMN usages",
        "PRAGMA user_version = 1",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    )


def _format_of(path: Path, folder: Path) -> tuple[int, bool]:
    """Return which version a copy says that it has, and whether it has its columns."""
    folder.mkdir()
    for file in files_of(path):
        shutil.copy(file, folder)
    with closing(sqlite3.connect(folder / path.name)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        columns = {row[1] for row in connection.execute("PRAGMA table_info(keys)")}
    new = {"owner", "usages"}
    assert new <= columns or not new & columns
    return version, new <= columns


def _index(store: SqliteKeyStore) -> list[IndexEntry | None]:
    return [store.entry(f"name-{number}") for number in (1, 2, 3)]


def test_kill_in_the_middle_of_an_upgrade(tmp_path: Path) -> None:
    """
    A database of the version before is old or new after a kill, and becomes new.
    """
    template = keys_template(tmp_path / "template" / "keys.sqlite")
    with closing(SqliteKeyStore(template)) as store:
        expected, index = seen(store), _index(store)
    _make_old(template)
    before = template.read_bytes()
    versions: list[int] = []
    for call, killed in sweep(template, tmp_path, OPENED).items():
        found = []
        for number in range(1, killed + 1):
            path = tmp_path / f"{call}-{number}" / "keys.sqlite"
            version, is_new = _format_of(path, path.parent / "looked-at")
            assert version == (2 if is_new else 1)
            with closing(SqliteKeyStore(path)) as store:
                store.database.verify()
                assert (2,) == store.database.row("PRAGMA user_version")
                assert expected == seen(store)
                assert index == _index(store)
            found.append(version)

        assert sorted(found) == found
        versions += found

    assert {1, 2} == set(versions)
    assert all(entry is not None and entry.owner and entry.usages for entry in index)
    # What was copied before the upgrade is as good as it was.
    assert before == template.read_bytes()
    with closing(SqliteKeyStore(template)) as store:
        assert expected == seen(store)

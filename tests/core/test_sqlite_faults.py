# SPDX-License-Identifier: MIT
"""A database under a failing disk, killed, cut or moved away: an error, never less."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.records import UnsettledError
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.errors import (
    HSMError,
    IntegrityError,
    StorageFullError,
    StoreUnavailableError,
)
from tests.core.key_support import key_id_of
from tests.core.sqlite_child import BLOB
from tests.core.sqlite_support import (
    SCHEMA,
    add,
    count,
    files_of,
    keys_template,
    log_of,
    make_things,
    opened,
    outsider,
    still_there,
)
from tests.support import REPOSITORY, require_mounts, require_program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a closed database with three things."""
    return make_things(tmp_path)


# A disk that fails, or a process that is killed


def run(path: Path, keys: int, under: Sequence[str] = ()) -> list[str]:
    """Run the child until it ends, and return what it said."""
    command = [sys.executable, "-m", "tests.core.sqlite_child", str(path), str(keys)]
    done = subprocess.run(
        [*under, *command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode
    return done.stdout.splitlines()


def strace(rule: str) -> list[str]:
    """Return how a program is run with a fault injected into its system calls."""
    program = require_program("strace")
    traced = f"trace={rule.partition(':')[0]}"
    options = ["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", traced]
    return [program, *options, "-e", f"inject={rule}"]


def acknowledged(lines: list[str]) -> set[str]:
    """Return the ids of the keys that were told to be made."""
    return {key_id_of(int(line[4:])) for line in lines if line.startswith("ack")}


def check(path: Path, lines: list[str]) -> int:
    """Check that what was told to be made is there, wholly; return how much more is."""
    found = still_there(path)
    told = acknowledged(lines)
    assert told <= set(found)
    assert all((BLOB,) == blobs for _, blobs in found.values())
    return len(found) - len(told)


@pytest.mark.parametrize(
    ("rule", "failures", "at_least"),
    [
        ("fdatasync:error=EIO:when=11", 1, 9),
        ("fdatasync:error=EIO:when=11..14", 1, 9),
        ("pwrite64:error=EIO:when=60", 1, 9),
        ("pwrite64:error=ENOSPC:when=60..63", 2, 6),
    ],
)
def test_disk_that_fails_for_a_while(
    tmp_path: Path, rule: str, failures: int, at_least: int
) -> None:
    """
    A commit that failed is told; after reopening the next ones are made, nothing lost.
    """
    path = tmp_path / "store" / "keys.sqlite"
    run(path, 1)

    lines = run(path, 10, under=strace(rule))
    failed = [line for line in lines if line.startswith("failed")]
    told = acknowledged(lines)

    assert len(failed) >= failures
    assert len(told) >= at_least
    assert len(failed) + len(told) == 10
    if "ENOSPC" in rule:
        assert {"failed storage_full"} == set(failed)
        assert "reopened" not in lines
    else:
        assert "reopened" in lines
    assert 1 <= check(path, lines) <= 2


def test_disk_that_stays_broken(tmp_path: Path) -> None:
    """
    Once no sync succeeds any more nothing is told to be made, and nothing told is lost.
    """
    path = tmp_path / "store" / "keys.sqlite"
    run(path, 1)

    lines = run(path, 12, under=strace("fdatasync,fsync:error=EIO:when=8+"))

    assert 12 > len(acknowledged(lines)) > 0
    assert "unavailable" in lines
    assert "reopened" not in lines
    assert lines.index("unavailable") > max(
        n for n, line in enumerate(lines) if line.startswith("ack")
    )
    assert 1 <= check(path, lines) <= 2


# A disk without room


def test_no_room_in_the_database(path: Path) -> None:
    """
    What does not fit is undone as a whole; smaller things go on being written.
    """
    with opened(path) as database:
        pages = database.rows("PRAGMA page_count")[0][0]
        database.rows(f"PRAGMA max_page_count = {pages + 2}")

        with pytest.raises(StorageFullError):
            add(database, b"x" * 100_000)

        assert database.available
        assert 3 == count(database)
        add(database, b"small")
        assert 4 == count(database)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 KiB, where that is allowed."""
    require_mounts("" if os.geteuid() == 0 else "only root may")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = "size=256k,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    require_mounts(done.stderr.decode(errors="replace").strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_no_room_on_the_disk(small_disk: Path) -> None:
    """
    On a full disk nothing is written and nothing lost; with room again it goes on.
    """
    path = small_disk / "things.sqlite"
    with opened(path) as database:
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * 50_000)
        written = 0
        with suppress(StorageFullError):
            while written < 1000:
                add(database, b"x" * 5000)
                written += 1

        assert 0 < written < 1000
        assert database.available
        assert written == count(database)
        filler.unlink()
        add(database)
        assert written + 1 == count(database)
        database.verify()
    with opened(path) as database:
        assert written + 1 == count(database)


# After a failed commit


def failed(database: Database) -> None:
    """Let one commit fail in a way that leaves its outcome unknown."""

    def fail(name: str) -> None:
        if name == "sqlite.before_commit":
            raise sqlite3.OperationalError("disk I/O error")

    with install(fail), pytest.raises(UnsettledError):
        add(database)


def test_nothing_is_answered_until_reopened(
    path: Path,
) -> None:
    """
    After a commit of unknown outcome every call fails, until reopening succeeds.
    """
    with opened(path) as database:
        failed(database)
        for call in (add, count, Database.verify, Database.checkpoint):
            with pytest.raises(StoreUnavailableError, match="reopen"):
                call(database)
        before = database.available

        database.reopen()
        database.reopen()

        assert (False, True) == (before, database.available)
        assert count(database) in {3, 4}
        assert 0 == log_of(path).stat().st_size
        add(database)
        assert "database is locked" == outsider(path, "SELECT * FROM things")


def test_reopening_what_is_damaged(path: Path) -> None:
    """
    A database that fails its check is not used again.
    """
    with opened(path) as database:
        for _ in range(20):
            add(database, b"x" * 3000)
    with opened(path) as database:
        failed(database)
        # Not by this process, whose locks would be gone with the descriptor.
        noise = f"if=/dev/urandom of={path} bs=4096 seek=2 count=1 conv=notrunc"
        subprocess.run(["dd", *noise.split()], check=True, capture_output=True)

        for _ in range(2):
            with pytest.raises(IntegrityError):
                database.reopen()

        assert not database.available


def test_kill_while_the_log_is_written_afresh(path: Path) -> None:
    """
    A copy of the log that a kill left unfinished is removed, and nothing else is.
    """
    leftover = path.with_name(path.name + "-wal.tmp-0123456789abcdef")
    other = path.with_name("other" + leftover.name)
    for file in (leftover, other):
        file.write_bytes(b"half")

    with opened(path) as database:
        assert 3 == count(database)

    assert not leftover.exists()
    assert other.exists()


def test_long_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A log that one transaction made long is made short after it.
    """
    monkeypatch.setattr("hsm_core._internal.stores.sqlite.database._LOG_BYTES", 100_000)
    with opened(path) as database:
        add(database, b"x" * 50_000)
        short = log_of(path).stat().st_size
        add(database, b"x" * 90_000)

        assert 50_000 < short < 100_000
        assert 0 == log_of(path).stat().st_size
        assert 5 == count(database)


def test_lock_outlives_a_failure(path: Path) -> None:
    """
    Nobody else gets the database while it waits to be reopened.
    """
    with opened(path) as database:
        failed(database)

        with pytest.raises(HSMError, match="locked"):
            Database(path, SCHEMA)


# Files that are moved, cut or exchanged


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_file_moved_while_open(path: Path, suffix: str) -> None:
    """
    Nothing goes into a file that has lost its name; when it is back, all is there.
    """
    file = path.with_name(path.name + suffix)
    away = path.with_name("away")
    with opened(path) as database:
        add(database)
        file.rename(away)

        with pytest.raises(StoreUnavailableError, match="moved or deleted"):
            add(database)
        with pytest.raises(StoreUnavailableError):
            count(database)
        if not suffix:
            with pytest.raises(StoreUnavailableError, match="moved or deleted"):
                database.reopen()
        away.rename(file)
        database.reopen()

        assert 4 == count(database)
        add(database)
    with opened(path) as database:
        assert 5 == count(database)


def test_log_deleted_while_open(path: Path) -> None:
    """
    What was committed into a log that somebody deleted is not lost.
    """
    with opened(path) as database:
        add(database)
        log_of(path).unlink()
        with pytest.raises(StoreUnavailableError):
            add(database)

        database.reopen()

        assert 4 == count(database)
    with opened(path) as database:
        assert 4 == count(database)


def crashed_copy(path: Path, folder: Path) -> Path:
    """Return a copy as a kill leaves it: with a log that holds the newest thing."""
    folder.mkdir(mode=0o700)
    with opened(path) as database:
        add(database)
        for file in files_of(path):
            shutil.copy(file, folder / file.name)
    return folder / path.name


def test_log_of_another_kind_of_database(path: Path, tmp_path: Path) -> None:
    """
    A log that belongs to a database of another kind is refused.
    """
    copy = crashed_copy(path, tmp_path / "copy")
    other = tmp_path / "other" / "keys.sqlite"
    with closing(SqliteKeyStore(other)) as store:
        store.write_meta("ring", b"x")
        shutil.copy(log_of(other), log_of(copy))

    with pytest.raises(HSMError):
        Database(copy, SCHEMA)


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    """Who opens one of several learns which; what clients are told names no file."""
    path = tmp_path / "store" / "keys.sqlite"
    keys_template(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(4096 - 100))

    with pytest.raises(IntegrityError) as caught:
        still_there(path)

    assert f"The database {path} is damaged." == str(caught.value)


@pytest.mark.parametrize("page", range(1, 8))
@pytest.mark.parametrize("kind", ["noise", "cut"])
def test_damaged_pages(tmp_path: Path, page: int, kind: str) -> None:
    """
    A page of noise, or a file that ends early, is damage: no crash, and no "not found".
    """
    path = tmp_path / "store" / "keys.sqlite"
    keys_template(path)
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        assert size > 8 * 4096
        if kind == "cut":
            file.truncate(page * 4096)
        else:
            file.seek(page * 4096)
            file.write(bytes(range(255, -1, -1)) * 16)

    with pytest.raises(IntegrityError):
        still_there(path)

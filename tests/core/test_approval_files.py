# SPDX-License-Identifier: MIT
"""Approvals in files and in SQLite: tampering, failing disks and kills."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from msgspec.structs import replace

from hsm_core._internal.stores.approvals import ApprovalIndex
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore
from hsm_core.errors import (
    ApprovalTamperedError,
    HSMError,
    OutcomeUnknownError,
    StorageFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.model import ApprovalState
from hsm_core.protocols import ApprovalQuery
from tests.core.approval_kills import CALLS, assert_old_or_new, row_of, sweep
from tests.core.approval_steps import STEPS, Seen, make_template, seen, step
from tests.core.approval_support import approval_id_of, digest_of, register_of
from tests.core.filesystem_support import (
    FaultyOS,
    as_directory,
    as_fifo,
    as_giant,
    failing_sync_of_directories,
    leftovers,
    patched,
    struck,
)
from tests.support import REPOSITORY, require_program

ONE = approval_id_of(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the directory of a closed store with three approvals."""
    store = FileApprovalStore(tmp_path / "approvals")
    make_template(store)
    store.close()
    return tmp_path / "approvals"


def as_link(path: Path) -> None:
    """Replace a file by a link to a copy of it."""
    path.symlink_to(path.rename(path.with_name("copy")))


def test_files(folder: Path) -> None:
    """
    One file an approval, and the lock; nobody else reaches any of them.
    """
    names = {path.name for path in folder.iterdir()}
    modes = {path.stat().st_mode for path in folder.iterdir()}

    assert {"lock", *(f"{approval_id_of(n)}.json" for n in (1, 2, 3))} == names
    assert {0o100600} == modes
    assert 0o40700 == folder.stat().st_mode


@pytest.mark.parametrize("name", [".", "lock"])
def test_open_to_others(folder: Path, name: str) -> None:
    """
    A directory or lock that others may reach is refused.
    """
    (folder / name).chmod(0o755 if name == "." else 0o644)

    with pytest.raises(UnsafeFileModeError):
        FileApprovalStore(folder)


@pytest.mark.parametrize("hostile", [as_directory, as_fifo, as_giant, as_link])
def test_hostile_file(folder: Path, hostile: Callable[[Path], None]) -> None:
    """
    What isn't a small plain file any more is not followed, waited for, or believed.
    """
    store = FileApprovalStore(folder)
    hostile(folder / f"{ONE}.json")
    with pytest.raises(ApprovalTamperedError):
        register_of(store).get(ONE)
    store.close()
    store = FileApprovalStore(folder)

    assert store.get(ONE) in {None, b""}
    assert 2 == len([name for name in seen_names(store) if name != ONE])
    store.close()


def seen_names(store: FileApprovalStore) -> list[str]:
    """Return the ids in the index."""
    return [entry.approval_id for entry in store.find(ApprovalQuery())]


def test_foreign_files(folder: Path) -> None:
    """
    Files of other names are left alone, and leftovers of interrupted writes removed.
    """
    (folder / "notes.json").write_text("{}")
    (folder / f"{approval_id_of(7)}.json.bak").write_text("{}")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / ".tmp-1").write_bytes(b"half")

    store = FileApprovalStore(folder)

    assert 3 == len(seen(store))
    assert [] == leftovers(folder)
    assert {"notes.json", "sub", "fifo"} < {path.name for path in folder.iterdir()}
    store.close()


def test_child_of_fork(folder: Path) -> None:
    """
    A child made by fork can neither read nor write the store.
    """
    program = (
        "import os, sys, pathlib\n"
        "from tests.core.approval_steps import step\n"
        "from hsm_core.errors import StoreUnavailableError\n"
        "from hsm_core._internal.stores.filesystem.stores import FileApprovalStore\n"
        "store = FileApprovalStore(pathlib.Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    for call in (store.approval_ids, store.reopen,\n"
        "                 lambda: step(store, 'remove')):\n"
        "        try:\n"
        "            call()\n"
        "        except StoreUnavailableError:\n"
        "            continue\n"
        "        os._exit(1)\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "step(store, 'insert')\n"
    )

    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)

    store = FileApprovalStore(folder)
    assert 4 == len(seen(store))
    store.close()


def both_states(folder: Path, name: str) -> tuple[Seen, Seen]:
    """Return what a store shows before and after a step without any fault."""
    store = FileApprovalStore(shutil.copytree(folder, folder.with_name("whole")))
    old = seen(store)
    step(store, name)
    new = seen(store)
    store.close()
    return old, new


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("name", ["insert", "reserve", "remove"])
def test_fault_at_every_call(
    folder: Path, name: str, number: int, *, sticky: bool
) -> None:
    """
    Whatever call fails, the answer is true, and `reopen` brings the store back.
    """
    old, new = both_states(folder, name)
    nth = 0
    while True:
        nth += 1
        store = FileApprovalStore(shutil.copytree(folder, folder / f"../{nth}"))
        fake = struck(number, nth, sticky=sticky)
        error = None
        try:
            with patched(fake):
                step(store, name)
        except HSMError as caught:
            error = caught
        unknown = isinstance(error, OutcomeUnknownError)
        assert error is None or unknown or isinstance(error, StoreUnavailableError)
        if not unknown:
            assert store.available
        if not store.available:
            with pytest.raises(StoreUnavailableError):
                store.approval_ids()
        store.reopen()
        found = seen(store)
        if error is None:
            assert new == found
        elif unknown or name == "remove":
            # Several files are removed one after the other.
            assert set(found) <= set(old) | set(new)
        else:
            assert old == found
        if found != new:
            step(store, name)
        assert new == seen(store)
        store.close()
        store = FileApprovalStore(folder / f"../{nth}")
        assert new == seen(store)
        assert [] == leftovers(folder / f"../{nth}")
        store.close()
        if fake.count < nth:
            break
    assert nth >= 6


def test_full_disk(folder: Path) -> None:
    """
    Where there is no room the answer says so, and nothing was changed.
    """
    old, _ = both_states(folder, "decide")
    store = FileApprovalStore(folder)
    fake = FaultyOS(struck(errno.ENOSPC, 1, sticky=True).strike, 1, 10**9)
    fake.names = frozenset({"write"})

    with patched(fake), pytest.raises(StorageFullError, match="or approvals is full"):
        step(store, "decide")

    assert store.available
    assert old == seen(store)
    store.close()


@pytest.mark.parametrize("name", STEPS)
def test_interrupted_behind_the_write(folder: Path, name: str) -> None:
    """
    What was written and is not in the index yet is read before anything is answered.
    """
    _, new = both_states(folder, name)
    store = FileApprovalStore(folder)
    with (
        mock.patch.object(ApprovalIndex, "put", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        step(store, name)
    assert not store.available

    store.reopen()

    assert new == seen(store)
    store.close()


@pytest.mark.parametrize("name", [*STEPS, "remove"])
def test_failed_sync_of_the_directory(folder: Path, name: str) -> None:
    """
    After it the outcome is unknown, and `reopen` writes anew before anything is told.
    """
    _, new = both_states(folder, name)
    store = FileApprovalStore(folder)
    with patched(failing_sync_of_directories()):
        with pytest.raises(OutcomeUnknownError) as caught:
            step(store, name)
        assert {"approval_id"} == set(caught.value.facts)
        with pytest.raises(StoreUnavailableError):
            store.reopen()
        with pytest.raises(StoreUnavailableError):
            store.approval_ids()

    watched = FaultyOS()
    with patched(watched):
        store.reopen()

    calls = [call for call, _ in watched.trace]
    assert {"write", "rename"} <= set(calls) or name == "remove"
    changed = max(calls.index(call) for call in {"rename", "unlink"} & set(calls))
    assert "fsync" in calls[changed:]
    assert store.available
    assert new == seen(store)
    store.close()


TWO = approval_id_of(2)


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

    found = [plan for plan in plans if " approvals " in plan]
    assert found
    assert all("USING INDEX approvals_" in plan for plan in found)
    assert not any("B-TREE" in plan for plan in plans)


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
        ("fdatasync:error=EIO:when=1", "OutcomeUnknownError approval_id False"),
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


ALL = [(kind, name) for kind in CALLS for name in STEPS]
SHORT = [("filesystem", "insert"), ("sqlite", "consume")]
TRIED = ALL if os.environ.get("FERROHSM_FAULTS") == "1" else SHORT


@pytest.mark.parametrize(("kind", "name"), TRIED)
def test_kill_before_every_call(tmp_path: Path, kind: str, name: str) -> None:
    """
    SIGKILL before each changing system call: wholly before or after, nothing lost.
    """
    trials = sweep(kind, name, tmp_path)

    assert_old_or_new(kind, name, tmp_path, trials)


@pytest.mark.parametrize("kind", CALLS)
def test_between_reservation_and_end(tmp_path: Path, kind: str) -> None:
    """
    An approval whose operation was cut off is still reserved, for recovery to settle.
    """
    for end in ("release", "consume"):
        folder = tmp_path / end
        store = row_of(kind).open(folder)
        make_template(store)
        store.close()
        process = start(kind, folder, "reserve")
        process.communicate("go\n")
        store = row_of(kind).open(folder)
        register = register_of(store)

        held = register.get(approval_id_of(2))
        assert (ApprovalState.RESERVED, "op") == (held.state, held.operation_id)
        if end == "release":
            register.release(held.approval_id, operation_id="op")
            step(store, "reserve")
        else:
            register.consume(held.approval_id, operation_id="op")
        store.close()


@pytest.mark.parametrize("kind", CALLS)
def test_two_processes(tmp_path: Path, kind: str) -> None:
    """
    A second process is refused; when the first is killed, the lock is free at once.
    """
    process = start(kind, tmp_path, "insert")
    with pytest.raises(StoreLockedError):
        row_of(kind).open(tmp_path)

    process.kill()
    process.communicate()
    store = row_of(kind).open(tmp_path)
    assert {} == seen(store)
    store.close()


def start(kind: str, folder: Path, name: str) -> subprocess.Popen[str]:
    """Start a process that has the store open, and makes the step when told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.core.approval_steps", kind, str(folder), name],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "open\n" == process.stdout.readline()
    return process

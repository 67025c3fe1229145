# SPDX-License-Identifier: MIT
"""Approvals in files: what else lies in the directory, and every call that fails."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from hsm_core._internal.stores.approvals import ApprovalIndex
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core.errors import (
    ApprovalTamperedError,
    GenerationConflictError,
    HSMError,
    OutcomeUnknownError,
    StorageFullError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.protocols import ApprovalQuery
from tests.core.approval_steps import STEPS, Seen, make_template, seen, step
from tests.core.approval_support import (
    approval_id_of,
    approval_of,
    change_of,
    register_of,
)
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


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100])
def test_unreadable(folder: Path, content: bytes) -> None:
    """
    What can't be read is named, is in nobody's way, and can't be written over.
    """
    (folder / f"{ONE}.json").write_bytes(content)
    store = FileApprovalStore(folder)

    assert (ONE,) == register_of(store).check()
    assert ONE in register_of(store).find(ApprovalQuery()).tampered
    with pytest.raises(GenerationConflictError):
        store.commit(change_of(approval_of(1)))
    assert content == (folder / f"{ONE}.json").read_bytes()
    store.close()


def test_deleted_file(folder: Path) -> None:
    """
    An approval whose file somebody removed under an open store is told as tampered.
    """
    store = FileApprovalStore(folder)
    (folder / f"{ONE}.json").unlink()

    with pytest.raises(ApprovalTamperedError):
        register_of(store).get(ONE)
    assert (ONE,) == register_of(store).check()
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

    with patched(fake), pytest.raises(StorageFullError):
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

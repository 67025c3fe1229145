# SPDX-License-Identifier: MIT
"""
Every system call of the key store killed or failed, for tests and for long runs.

Each function tries one fault at every place there is, and returns how many there were.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import HSMError, OutcomeUnknownError, StoreUnavailableError
from hsm_core.protocols import KeyStore
from tests.core.filesystem_support import (
    SCENARIOS,
    FaultyOS,
    Seen,
    copy,
    each_call,
    leftovers,
    patched,
    seen,
)
from tests.core.key_support import operation_of
from tests.support import REPOSITORY

S = TypeVar("S")

NUMBERS: Final = {
    name: getattr(errno, name)
    for name in ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EROFS", "EACCES")
} | {"ESTALE": errno.ESTALE}

SYSTEM_CALLS: Final = (
    *("write", "fsync", "rename", "unlink", "mkdir", "rmdir"),
    *("pwrite64", "fdatasync", "ftruncate"),
)
"""
What changes a file system; a file that is made is written next, or has no name.

The last of them are calls of SQLite, for the saved index.
"""


def reopened(directory: Path) -> tuple[Seen, bool]:
    """Return what a store shows after a new start, and whether the operation is in."""
    store = FilesystemKeyStore(directory)
    mark = store.find_operation(operation_of(90))
    found = seen(store)
    saved = _index_facts(store)
    store.rebuild()
    assert saved == _index_facts(store)
    store.close()
    assert [] == leftovers(directory)
    return found, mark is not None and not mark.aborted


def _index_facts(store: KeyStore) -> dict[str, object]:
    return {d.key_id: store.entry(d.key_id) for d in store.digests()}


def both_states(
    template: Path, folder: Path, run: Callable[[KeyStore], None]
) -> tuple[Seen, Seen]:
    """Return what a store shows before and after a mutation without any fault."""
    whole = folder / "whole"
    old, _ = reopened(copy(template, whole))
    store = FilesystemKeyStore(whole)
    run(store)
    store.close()
    new, _ = reopened(whole)
    shutil.rmtree(whole)
    assert old != new
    return old, new


def attempt(store: S, run: Callable[[S], object], fake: FaultyOS) -> HSMError | None:
    """Run a mutation under a fault and return its error, which must be one of ours."""
    with patched(fake):
        try:
            run(store)
        except HSMError as error:
            return error
    return None


def check_start(directory: Path, old: Seen, new: Seen) -> bool:
    """Check that a start finds the old or the new state; return whether the new."""
    found, is_in = reopened(directory)
    assert (new if is_in else old) == found
    return is_in


def fail_every_call(
    template: Path, folder: Path, scenario: str, number: int, *, sticky: bool
) -> int:
    """
    Let the n-th call of a mutation fail, for every n; the answer must be true.

    Args:
        template: A closed store to copy.

        folder: For the copies.

        scenario: One of `SCENARIOS`.

        number: Error number.

        sticky: Whether all later calls fail too.
    """
    run = SCENARIOS[scenario]
    old, new = both_states(template, folder, run)
    for nth, fake in each_call(number, sticky=sticky):
        directory = copy(template, folder / f"{scenario}-{number}-{sticky}-{nth}")
        store = FilesystemKeyStore(directory)
        error = attempt(store, run, fake)
        store.close()
        is_in = check_start(directory, old, new)
        _check_answer(error, is_in=is_in)
        shutil.rmtree(directory)
    return nth


def _check_answer(error: HSMError | None, *, is_in: bool) -> None:
    if error is None:
        assert is_in
    elif type(error) is OutcomeUnknownError:
        assert {"operation_id": operation_of(90)} == error.facts
    else:
        assert isinstance(error, StoreUnavailableError)
        assert not is_in


def kill_before_every(
    template: Path,
    folder: Path,
    scenario: str,
    *,
    calls: tuple[str, ...] = SYSTEM_CALLS,
) -> int:
    """
    Kill a process before its n-th system call of a kind, for every n and kind.

    Needs strace. The process is `tests.core.filesystem_victim`.

    Args:
        template: A closed store to copy.

        folder: For the copies.

        scenario: What the process does.

        calls: Kinds of calls.
    """
    old, new = _states_of(template, folder, scenario)
    points = 0
    for call in calls:
        nth = 0
        while True:
            nth += 1
            directory = copy(template, folder / f"{scenario}-{call}-{nth}")
            killed = _kill_at(directory, scenario, call, nth)
            check_start(directory, old, new)
            shutil.rmtree(directory)
            if not killed:
                break
            points += 1
    return points


def _states_of(template: Path, folder: Path, scenario: str) -> tuple[Seen, Seen]:
    directory = copy(template, folder / "whole")
    old, _ = reopened(directory)
    subprocess.run(_victim(directory, scenario), cwd=REPOSITORY, check=True)
    new, _ = reopened(directory)
    shutil.rmtree(directory)
    return old, new


def _victim(directory: Path, scenario: str) -> list[str]:
    # Without -B it would write compiled modules, too.
    program = [sys.executable, "-B", "-m", "tests.core.filesystem_victim"]
    return [*program, str(directory), scenario]


def _kill_at(directory: Path, scenario: str, call: str, nth: int) -> bool:
    ended = subprocess.run(
        [
            *("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}"),
            *("-e", f"inject={call}:signal=KILL:when={nth}"),
            *_victim(directory, scenario),
        ],
        cwd=REPOSITORY,
        check=False,
    )
    # strace ends as its tracee did, or says it in the way of a shell.
    assert ended.returncode in {0, 137, -9}
    return ended.returncode != 0

# SPDX-License-Identifier: MIT
"""A process that is killed at any step of a mutation leaves old state or new."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import StoreLockedError
from tests.core.filesystem_support import SCENARIOS, copy, leftovers, seen
from tests.core.filesystem_sweeps import kill_before_every
from tests.core.key_support import key_id_of, operation_of
from tests.support import REPOSITORY, require_program


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_before_every_change(
    store_template: Path, memory_path: Path, scenario: str
) -> None:
    """
    SIGKILL before each changing call and at each failpoint: old or new, and tidy.
    """
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.core.filesystem_child",
            str(store_template),
            str(memory_path),
            scenario,
        ],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    store = FilesystemKeyStore(copy(store_template, memory_path / "whole"))
    old = seen(store)
    SCENARIOS[scenario](store)
    new = seen(store)
    store.close()
    kept = {}
    for directory in sorted(memory_path.glob("[cp][ao]*-*")):
        store = FilesystemKeyStore(directory)
        mark = store.find_operation(operation_of(90))
        assert (new if mark else old) == seen(store)
        assert [] == leftovers(directory)
        if mark is None:
            SCENARIOS[scenario](store)
            assert new == seen(store)
        store.close()
        kept[directory.name] = mark is not None

    assert int(answer.stdout) == len(kept)
    assert {False, True} == set(kept.values())
    assert not kept["point-store.before_document"]
    assert kept["point-store.after_document"]


@pytest.mark.parametrize(
    ("scenario", "call"), [("rotate", "rename"), ("snapshot", "unlink")]
)
def test_kill_by_the_system(
    store_template: Path, memory_path: Path, scenario: str, call: str
) -> None:
    """
    The same where the system kills, before each call of a kind; others take minutes.
    """
    require_program("strace")

    assert kill_before_every(store_template, memory_path, scenario, calls=(call,))


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that has the store open, until the block ends."""
    program = (
        "import sys, pathlib\n"
        "from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore\n"
        "store = FilesystemKeyStore(pathlib.Path(sys.argv[1]))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert "open\n" == process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_two_processes(store_template: Path, memory_path: Path) -> None:
    """
    A second process is refused, told which file is locked, and writes nothing.
    """
    directory = copy(store_template, memory_path / "store")
    with holder(directory):
        before = sorted(directory.rglob("*"))
        with pytest.raises(StoreLockedError, match="lock is locked") as caught:
            FilesystemKeyStore(directory)

        assert {"path": str(directory / "lock")} == caught.value.facts
        assert before == sorted(directory.rglob("*"))


def test_lock_of_a_killed_process(store_template: Path, memory_path: Path) -> None:
    """
    The lock of a killed process is free at once, though its file is still there.
    """
    directory = copy(store_template, memory_path / "store")
    with holder(directory) as process:
        process.kill()
        process.wait()

        store = FilesystemKeyStore(directory)

    assert key_id_of(1) == store.get(key_id_of(1)).key_id
    store.close()


def test_same_process_twice(store_template: Path, memory_path: Path) -> None:
    """
    One process can't open a store twice at a time, but again after closing it.
    """
    directory = copy(store_template, memory_path / "store")
    store = FilesystemKeyStore(directory)

    with pytest.raises(StoreLockedError):
        FilesystemKeyStore(directory)

    store.close()
    FilesystemKeyStore(directory).close()


def test_child_of_fork(store_template: Path, memory_path: Path) -> None:
    """
    A child made by fork can neither use the store nor take or free its lock.
    """
    directory = copy(store_template, memory_path / "store")
    program = (
        "import os, sys, pathlib\n"
        "from hsm_core.errors import StoreLockedError, StoreUnavailableError\n"
        "from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "def refused(error, call):\n"
        "    try:\n"
        "        call()\n"
        "    except error:\n"
        "        return True\n"
        "store = FilesystemKeyStore(path)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    ok = refused(StoreUnavailableError, lambda: store.abort('1'))\n"
        "    store.close()\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert refused(StoreLockedError, lambda: FilesystemKeyStore(path))\n"
        "store.abort('2')\n"
    )

    subprocess.run([sys.executable, "-c", program, str(directory)], check=True)

    store = FilesystemKeyStore(directory)
    assert store.find_operation("1") is None
    assert store.find_operation("2") is not None
    store.close()

# SPDX-License-Identifier: MIT
"""Lives of nodes that are killed: each writes down what it begins and what was done."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from hsm_core.errors import HSMError, UnavailableError
from tests.core.cluster_nodes import open_node, session

SHARED: Final = "shared"
_BEGIN, _DONE = "begin", "done"


class Journal(msgspec.Struct):
    """
    What all nodes together have begun, and what was answered.

    Attributes:
        begun: By operation and key.
        done: The same of those that were answered.
        answers: Answers of an operation, as text.
    """

    begun: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    done: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    answers: dict[tuple[str, str], list[str]] = msgspec.field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read a journal; every line is whole, for it was one write."""
        journal = cls()
        for line in path.read_text().splitlines():
            step, operation, key, *answer = line.split(" ")
            at = (operation, key)
            if step == _BEGIN:
                journal.begun[at] += 1
            else:
                journal.done[at] += 1
                journal.answers.setdefault(at, []).extend(answer)
        return journal


class Life(msgspec.Struct):
    """
    A node in a process of its own, which works until it is killed.

    Attributes:
        pid: Its process.
        ready: Is readable once it works.
    """

    pid: int
    ready: int

    @classmethod
    def begin(cls, url: str, folder: Path, name: str, seed: int) -> Life:
        """Fork a process that opens a node and works."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(read_end)
                _live(url, folder, name, seed, write_end)
            finally:
                os._exit(1)
        os.close(write_end)
        return cls(pid, read_end)

    def wait_until_ready(self) -> None:
        """Wait until it works."""
        assert b"1" == os.read(self.ready, 1), "the node did not open"

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.ready)
        assert -signal.SIGKILL == status


def _live(url: str, folder: Path, name: str, seed: int, ready: int) -> None:
    random, parent = Random(seed), os.getppid()
    journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    hsm = session(open_node(url, folder, name))
    os.write(ready, b"1")

    def step(operation: str, key: str, work: Callable[[], object]) -> None:
        os.write(journal, f"{_BEGIN} {operation} {key}\n".encode())
        try:
            answer = work()
        except UnavailableError:
            time.sleep(0.05)  # The database is away for a moment.
        except HSMError as error:
            os.write(journal, f"{_DONE} refused {error.code}\n".encode())
        else:
            os.write(journal, f"{_DONE} {operation} {key} {answer}\n".encode())

    number = 0
    while os.getppid() == parent:
        choice = random.random()
        if choice < 0.2:
            number += 1
            own = f"{name}-{seed}-{number}"
            step("create", own, lambda own=own: _create(hsm, own))  # type: ignore[misc]
        elif choice < 0.4:
            step("rotate", SHARED, lambda: hsm.rotate(SHARED).version)
        else:
            step("sign", SHARED, lambda: hsm.sign(SHARED, b"m").version)


def _create(hsm: object, name: str) -> str:
    return str(hsm.create_key("ed25519", name=name).key_id)  # type: ignore[attr-defined]

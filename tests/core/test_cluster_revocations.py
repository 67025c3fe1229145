# SPDX-License-Identifier: MIT
"""
Changes that were answered hold on every node: processes over one database.

``FERROHSM_REVOCATIONS`` sets how many changes are tried under load, with nodes that are
stopped for a time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from hsm_core.errors import (
    AuditUnavailableError,
    KeyStateError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from tests.postgresql import PostgreSQL
from tests.support import REPOSITORY

NODES: Final = 3
TRIALS: Final = int(os.environ.get("FERROHSM_REVOCATIONS", "6"))
PATIENCE: Final = 60.0
UNAVAILABLE: Final = {
    error.code
    for error in (AuditUnavailableError, OutcomeUnknownError, StoreUnavailableError)
}
LONGEST_STOP: Final = 1.5
"""Seconds; a node that is stopped for three is fenced by another."""


class Child:
    """A node in a process of its own."""

    def __init__(self, url: str, name: str, folder: Path) -> None:
        words = [sys.executable, "-m", "tests.core.node_child", url, name, str(folder)]
        self.process = subprocess.Popen(
            words,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, **wanted: str) -> None:
        """Send one line; the process need not run."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Return the answer to the oldest line that has none."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, **wanted: str) -> dict[str, Any]:
        """Send a line, and return its answer."""
        self.send(**wanted)
        return self.receive()

    def made(self, **wanted: str) -> Any:
        """Do what succeeds sooner or later, and return what was made."""
        answer = self.settled(self.ask(**wanted), **wanted)
        assert "ok" in answer, answer
        return answer["ok"]

    def settled(self, answer: dict[str, Any], **wanted: str) -> dict[str, Any]:
        """
        Repeat a line whose answer is that the database did not answer in time.

        It may be slow, or hold a row for a process that is stopped.
        """
        until = time.monotonic() + PATIENCE
        while answer.get("code") in UNAVAILABLE:
            assert time.monotonic() < until, answer
            answer = self.ask(**wanted)
        return answer

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the process in the middle of what it does."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, and wait until it has left the cluster."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            assert 0 == self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture(scope="module")
def children(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Child]]:
    """Return the nodes of a new cluster, each a process."""
    url = postgresql.url(postgresql.new_database())
    folder = tmp_path_factory.mktemp("marks")
    with ExitStack() as stack:
        found = []
        for number in range(NODES):
            found.append(Child(url, f"node-{number}", folder))
            stack.callback(found[-1].close)
        assert [{"ok": "open"}] * NODES == [child.receive() for child in found]
        yield found


def test_revocations(children: list[Child]) -> None:
    """
    No node serves a use that it received after a revocation was answered elsewhere.

    Load runs on all nodes, and one of them may be stopped while the key is revoked.
    """
    choice = random.Random(os.environ.get("FERROHSM_SEED", "7"))
    served = 0
    for number in range(TRIALS):
        name = f"key-{number}"
        first, stopped = choice.sample(children, 2)
        key = first.made(do="create", name=name, once=f"create-{number}")
        for child in children:
            child.made(do="load", key=key)
        others = [child for child in children if child is not first]
        assert [1, 1] == [child.made(do="sign", key=name) for child in others]
        word = choice.choice(["revoke", "suspend"])

        with stopped.stopped() if choice.random() < 0.7 else ExitStack():
            time.sleep(choice.random() * LONGEST_STOP / 4)
            first.made(do=word, key=key, once=f"{word}-{number}")
            # Sent after the answer: by ID and by name, whether the process runs or not.
            by = choice.choice([key, name])
            for child in children:
                child.send(do="sign", key=by)
            time.sleep(choice.random() * LONGEST_STOP / 4)
        answers = [
            child.settled(child.receive(), do="sign", key=by) for child in children
        ]

        codes = [answer.get("code") for answer in answers]
        assert [KeyStateError.code] * NODES == codes, (number, word, answers)
    for child in children:
        served += child.made(do="rest")
    assert served


def test_keys_of_all(children: list[Child]) -> None:
    """
    What one process creates another uses at once, and repetitions answer the same.
    """
    for number in range(3):
        first, *others = children[number:] + children[:number]
        name, once = f"all-{number}", f"once-{number}"
        key = first.made(do="create", name=name, once=once)

        again = {child.made(do="create", name=name, once=once) for child in others}

        assert {key} == again
        assert [1, 1] == [child.made(do="sign", key=name) for child in others]
        assert 2 == others[0].made(do="rotate", key=key, once=f"{once}-rotate")
        assert {2} == {child.made(do="sign", key=key) for child in children}

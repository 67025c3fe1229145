# SPDX-License-Identifier: MIT
"""
Nodes of two builds side by side: a cluster is upgraded one node after the other.

The next build has one more migration, and one more member of records (`next_build`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

import hsm_core
from tests.compat.next_build import VERSION, ZONE, make_next_build
from tests.postgresql import PostgreSQL
from tests.support import REPOSITORY

PATIENCE: Final = 300.0
_SLOW: Final = ("The server did not answer", "LockNotAvailable", "IdleInTransaction")
"""What errors say whose cause is a machine that is too slow for a time limit."""


class Node:
    """A node of some build, as a process that works."""

    def __init__(self, url: str, name: str, folder: Path, build: Path | None) -> None:
        self.name = name
        self.process = _begin(build, url, name, str(folder))
        self.opened = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")
        return found

    def take(self) -> dict[str, Any]:
        """Return what it has done since it was last asked, with all errors."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> dict[str, Any]:
        """End it in order, and return what it has done last."""
        found: dict[str, Any] = json.loads(self.process.communicate()[0])
        assert 0 == self.process.returncode
        return found

    def end(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()


def _begin(build: Path | None, *words: str) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if build is not None:
        environment["PYTHONPATH"] = str(build)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.compat.upgrading_node", *words],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


class Site:
    """
    A cluster, and two builds to run its nodes.

    Attributes:
        nodes: Those that run, by name.
    """

    def __init__(self, postgresql: PostgreSQL, folder: Path, stack: ExitStack) -> None:
        self._server = postgresql
        self._database = postgresql.new_database()
        self._folder = folder
        self._stack = stack
        self.build = make_next_build(folder / "next")
        self.url = postgresql.url(self._database)
        self.nodes: dict[str, Node] = {}

    def start(self, name: str, *, is_next: bool = False) -> dict[str, Any]:
        """Start a node, and return what it says when it is open, or why it is not."""
        folder = self._folder / "marks"
        node = Node(self.url, name, folder, self.build if is_next else None)
        self._stack.callback(node.end)
        if "open" in node.opened:
            self.nodes[name] = node
        return node.opened

    def stop(self, name: str) -> None:
        """Stop a node in order, which has had no error."""
        assert_no_error(self.nodes.pop(name).close())

    def work(self) -> None:
        """Wait until each node has used and changed keys, without an error."""
        for node in self.nodes.values():
            assert_no_error(node.take())
        waited = {name: {"uses", "changes"} for name in self.nodes}
        ends = time.monotonic() + PATIENCE
        while any(waited.values()):
            assert time.monotonic() < ends, waited
            time.sleep(0.05)
            for name, node in self.nodes.items():
                found = node.take()
                assert_no_error(found)
                waited[name] -= set(found["done"])

    def ask(self, statement: str, *values: object) -> Any:
        """Return the one value that a statement finds."""
        return self._server.execute(statement, values, database=self._database)[0][0]

    @property
    def level(self) -> int:
        """Level of the cluster."""
        return int(self.ask("SELECT level FROM cluster"))

    @property
    def new_records(self) -> int:
        """Number of records of the new format."""
        form = "SELECT count(*) FROM records WHERE substring(line FROM 1 FOR 11) = %s"
        return int(self.ask(form, b'{"format":3'))

    def verify(self, *, is_next: bool) -> dict[str, Any]:
        """Return what the verifier of a build says."""
        build = self.build if is_next else None
        found, _ = _begin(build, "verify", self.url).communicate(timeout=PATIENCE)
        said: dict[str, Any] = json.loads(found)
        return said


def assert_no_error(found: dict[str, Any]) -> None:
    """Refuse every error but that the machine was too slow for a time limit."""
    wrong = [e for e in found["errors"] if not any(word in e for word in _SLOW)]
    assert [] == wrong


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture
def site(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Site]:
    """Give an empty database, and the two builds."""
    (tmp_path / "marks").mkdir()
    with ExitStack() as stack:
        yield Site(postgresql, tmp_path, stack)


@pytest.mark.timeout(900)
def test_two_builds_side_by_side(site: Site) -> None:
    """
    Under load no node of either build has an error.

    Nothing new is written while an older node lives. Then the level rises, and the
    older build is kept out.
    """
    ours = {"open": hsm_core.__version__}
    assert [ours, ours] == [site.start("a"), site.start("b")]
    site.work()

    # A node of the next build migrates the tables under the load of the others.
    assert {"open": VERSION} == site.start("c", is_next=True)
    site.work()
    assert 2 == site.ask("SELECT max(version) FROM ferrohsm_schema")

    # Until the last older node is gone the upgrade can be undone: an older node starts.
    site.stop("a")
    assert ours == site.start("a")
    site.work()
    site.stop("a")
    assert {"open": VERSION} == site.start("a", is_next=True)
    site.work()
    assert (1, 0) == (site.level, site.new_records)

    # The last older node hangs, and is fenced: it is no reason to wait.
    older = site.nodes.pop("b")
    assert_no_error(older.take())
    older.process.send_signal(signal.SIGSTOP)
    until(lambda: site.level == 2)
    until(lambda: site.new_records)
    site.work()
    older.process.send_signal(signal.SIGCONT)
    until(lambda: any("does not support" in error for error in older.take()["errors"]))
    older.take()
    assert {} == older.take()["done"]
    older.end()

    refused = site.start("b")
    assert "configuration" == refused["failed"], refused
    assert "upgraded to level 2" in refused["message"]
    assert {"open": VERSION} == site.start("b", is_next=True)
    site.work()
    for name in list(site.nodes):
        site.stop(name)
    zoned = site.ask("SELECT count(*) FROM records WHERE zone = %s", ZONE)
    assert zoned == site.new_records
    assert {"a", "b", "c"} == set(site.verify(is_next=True)["records"])
    assert "newer release" in site.verify(is_next=False)["message"]

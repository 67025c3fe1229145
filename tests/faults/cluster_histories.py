# SPDX-License-Identifier: MIT
"""
Linearizable histories: three nodes use and change keys, and they and the database fail.

Nodes are processes. They are stopped, killed and started again, their database sessions
are ended, and their connections are cut when a commit was sent. Some learn of changes
late. Every history of a key must be linearizable.

Usage: ``python -m tests.faults.cluster_histories [--count N] [--seed N]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.core.linearizability import NEVER, UNKNOWN, Call, is_linearizable
from tests.faults.cluster_faults import Proxy
from tests.postgresql import PostgreSQL

_BATCH: Final = 6
_CALLS: Final = 16
_THREADS: Final = 3
_PATIENCE: Final = 60.0


class NodeProcess:
    """
    A node as a process.

    Args:
        url: Of the database.

        name: Of the node.

        folder: Of its mark.

        protections: Protections to switch off.
    """

    def __init__(
        self, url: str, name: str, folder: Path, protections: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._words = queue.Queue[dict[str, Any]]()
        self._log = (folder / f"{name}.err").open("wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.cluster_node"),
                *(url, name, str(folder), *protections),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.records: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if "begin" in said or "end" in said:
                    self.records.append(said)
                else:
                    self._words.put(said)
        self._words.put({"ended": True})

    def send(self, **given: Any) -> None:
        """Send a line, unless it is dead."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(given).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, word: str) -> Any:
        """Wait until it says a word, and return what; None if it has ended."""
        ends = time.monotonic() + _PATIENCE
        while True:
            said = self._words.get(timeout=max(ends - time.monotonic(), 0.01))
            if word in said:
                return said[word]
            if "ended" in said:
                return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def close(self, *, kills: bool = False) -> None:
        """End it."""
        assert self._process.stdin is not None
        if kills:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


class Histories:
    """
    Histories over one database.

    Args:
        server: The database server.

        seed: Of all that is random.

        protections: Protections that are switched off in each node.

    Attributes:
        calls: Calls of each key.
        counts: How often what was done.
    """

    def __init__(
        self, server: PostgreSQL, seed: int, protections: Sequence[str] = ()
    ) -> None:
        self._server = server
        self._choice = random.Random(seed)
        self._protections = protections
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nodes-"))
        )
        self._database = server.new_database()
        self._proxy = Proxy(server.socket)
        self._stack.callback(self._proxy.close)
        self._number = 0
        self._nodes: list[NodeProcess] = []
        self._ended: list[NodeProcess] = []
        self.calls: dict[str, list[Call]] = {}
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Histories:
        # The first makes the tables.
        self._nodes = [self._start()]
        self._nodes[0].wait("open")
        self._nodes += [self._start(), self._start()]
        for node in self._nodes[1:]:
            node.wait("open")
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            node.close()
        self._stack.close()

    def _start(self) -> NodeProcess:
        self._number += 1
        url = self._server.url(self._database)
        if self._number % 3 == 1:
            url = self._server.url(self._database, host=str(self._proxy.folder))
        off = [*self._protections, *(["feed"] if self._number % 2 else [])]
        return NodeProcess(url, f"n{self._number}", self._folder, off)

    def run(self, count: int, *, faults: bool = True) -> list[str]:
        """Live through histories, and return the keys whose calls have no order."""
        for first in range(0, count, _BATCH):
            self._batch(min(_BATCH, count - first), faults=faults)
        return [key for key, calls in self.calls.items() if not is_linearizable(calls)]

    def _batch(self, count: int, *, faults: bool) -> None:
        keys: list[str] | None = None
        while keys is None:
            self._nodes[0].send(create=count)
            keys = self._nodes[0].wait("created")
            if keys is None:
                self._replace(0)
        given = {"keys": keys, "seed": str(self._choice.random())}
        calls = _CALLS * count // (len(self._nodes) * _THREADS)
        for node in self._nodes:
            node.send(**given, calls=calls, threads=_THREADS)
        if faults:
            for _ in range(self._choice.randint(1, 3)):
                time.sleep(self._choice.random() * 0.1)
                self._fault()
        for number, node in enumerate(self._nodes):
            if node.wait("done") is None:
                self._replace(number)
        self._collect()

    def _replace(self, number: int) -> None:
        old, self._nodes[number] = self._nodes[number], self._start()
        old.close(kills=True)
        self._ended.append(old)
        self._nodes[number].wait("open")

    def _fault(self) -> None:
        faults: list[tuple[str, Callable[[], None]]] = [
            ("stopped", self._stop),
            ("stopped", self._stop),
            ("killed", self._kill),
            ("sessions ended", self._terminate),
            ("sessions ended", self._terminate),
            ("cut", self._proxy.cut),
            ("cut", self._proxy.cut),
        ]
        name, make = self._choice.choice(faults)
        self.counts[name] = self.counts.get(name, 0) + 1
        make()

    def _stop(self) -> None:
        node = self._choice.choice(self._nodes)
        with contextlib.suppress(ProcessLookupError):
            node.signal(signal.SIGSTOP)
            time.sleep(self._choice.random() * 0.3)
            node.signal(signal.SIGCONT)

    def _kill(self) -> None:
        self._choice.choice(self._nodes).signal(signal.SIGKILL)

    def _terminate(self) -> None:
        self._server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
            "application_name LIKE 'ferrohsm %' AND random() < 0.3"
        )

    def _collect(self) -> None:
        for node in [*self._nodes, *self._ended]:
            records, node.records = node.records, []
            for key, call in _calls_of(node.name, records):
                self.calls.setdefault(key, []).append(call)
                kind = call.answer if call.answer in {UNKNOWN, "refused"} else "made"
                self.counts[kind] = self.counts.get(kind, 0) + 1
        self._ended = []


def _calls_of(
    node: str, records: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, Call]]:
    ends = {said["end"]: said for said in records if "end" in said}
    for said in records:
        if "begin" not in said:
            continue
        end = ends.get(said["begin"], {"answer": UNKNOWN, "at": NEVER})
        answer, ended = end["answer"], end["at"]
        if answer.startswith("none"):
            continue
        if answer == UNKNOWN:
            ended = NEVER
        yield said["key"], Call(said["kind"], answer, said["at"], ended, node)


def main() -> int:
    """Live through as many histories as the command line says, and judge them."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--off", action="append", default=[])
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    began = time.monotonic()
    server = PostgreSQL.create(max_connections="100")
    try:
        with Histories(server, given.seed, given.off) as histories:
            wrong = histories.run(given.count)
    finally:
        server.remove()
    for key in wrong:
        sys.stdout.write(f"{key} is not linearizable:\n")
        for call in sorted(histories.calls[key], key=lambda call: call.began):
            sys.stdout.write(f"  {call} {call.node}\n")
    took = time.monotonic() - began
    told = ", ".join(f"{name} {n}" for name, n in sorted(histories.counts.items()))
    count = len(histories.calls)
    sys.stdout.write(f"[{took:6.1f} s] {count} histories, {len(wrong)} wrong: {told}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

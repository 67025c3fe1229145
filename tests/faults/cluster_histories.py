# SPDX-License-Identifier: MIT
"""
Linearizable histories: three nodes use and change keys, and they and the database fail.

Nodes are processes. They are stopped, killed and started again, their sessions with the
database are ended, their connections are cut when a commit was sent, waits for the
standby are canceled, and the standby is promoted. Some nodes learn of changes late, and
some changes are asked of several nodes. Every history of a key must be linearizable,
and in the end the audit logs of all nodes must verify. A call may have been made if its
node died or answered ``outcome_unknown``; any other error promises that it was not.

Without the condition on later changes they fail. They cannot show the need for two
other protections, and 1,000 of each did not. Without the unique operation id, no change
is made twice: it compares the generation of its key, whose document names the
operations that made it. Without the abort mark, a change may be made after its outcome
was recorded as failed, but its caller was told ``outcome_unknown``, so that it fits
into any order. The simulation and the tests of the stores show the need for both.

Usage: ``python -m tests.faults.cluster_histories [--count N] [--pair N] [--seed N]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
from hsm_core._internal.stores.postgresql.connection import read_location
from tests.core.linearizability import NEVER, UNKNOWN, Call, is_linearizable
from tests.faults import cluster_node
from tests.faults.cluster_faults import Pair, Proxy
from tests.postgresql import PostgreSQL

_BATCH: Final = 12
_CALLS: Final = 16
_THREADS: Final = 3
_NODES: Final = 3
_PATIENCE: Final = 120.0
_NOTHING: Final = "none: "
_STARTS: Final = 5

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tests.faults.cluster_node", "hsm_core._internal.stores.postgresql.driver"]
)


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
        self.records: list[dict[str, Any]] = []
        self._words = queue.Queue[dict[str, Any]]()
        theirs, self._lines = _CONTEXT.Pipe(duplex=False)
        self._output, output = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(
            target=cluster_node.main,
            args=(theirs, output, url, name, folder, protections),
        )
        self._process.start()
        theirs.close()
        output.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with open(os.dup(self._output.fileno()), "rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if "begin" in said or "end" in said:
                        self.records.append(said)
                    else:
                        self._words.put(said)
        self._words.put({"ended": True})

    def send(self, **given: Any) -> None:
        """Send something, unless it is dead."""
        with contextlib.suppress(OSError):
            self._lines.send(given)

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
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def close(self, *, kills: bool = False) -> None:
        """End it."""
        if kills:
            self._process.kill()
        self._lines.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._reader.join(_PATIENCE)
        self._output.close()
        self._process.close()


class Histories:
    """
    Histories over one database.

    Args:
        server: The database server, or one with a standby.

        seed: Of all that is random.

        protections: Protections that are switched off in each node.

    Attributes:
        calls: Calls of each key.
        counts: How often what was done.
    """

    def __init__(
        self, server: PostgreSQL | Pair, seed: int, protections: Sequence[str] = ()
    ) -> None:
        self._server = server
        self._choice = random.Random(seed)
        self._protections = protections
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nodes-"))
        )
        self._database = self._primary.new_database()
        self._proxy = Proxy(lambda: self._primary.socket)
        self._stack.callback(self._proxy.close)
        self._number = 0
        self._nodes: list[NodeProcess] = []
        self._ended: list[NodeProcess] = []
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.counts = Counter[str]()

    @property
    def _primary(self) -> PostgreSQL:
        server = self._server
        return server.primary if isinstance(server, Pair) else server

    def __enter__(self) -> Histories:
        # The first makes the tables.
        for _ in range(_NODES):
            self._nodes.append(self._opened())
        return self

    def __exit__(self, *_: object) -> None:
        self.close_nodes()
        self._stack.close()

    def close_nodes(self) -> None:
        """End all nodes in order."""
        while self._nodes:
            self._nodes.pop().close()

    def verify(self) -> int:
        """
        Verify the audit logs of all nodes, which are closed; return their records.

        Raises:
            AuditTamperedError: They do not verify.
        """
        location = read_location(self._primary.url(self._database))
        found = ClusterVerifier(location, bytes(32)).verify()
        return sum(each.log.records for each in found)

    def _opened(self) -> NodeProcess:
        """Start a node, and wait until it is open; a slow machine may take several."""
        for _ in range(_STARTS):
            node = self._start()
            if node.wait("open"):
                return node
            self.counts["failed starts"] += 1
            node.close(kills=True)
        log = self._folder / f"n{self._number}.err"
        raise AssertionError(log.read_text("utf-8"))

    def _start(self) -> NodeProcess:
        self._number += 1
        url = self._server.url(self._database)
        if self._number % 3 == 1:
            url = self._primary.url(self._database, host=str(self._proxy.folder))
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
        seed, choice = str(self._choice.random()), self._choice.choice
        repeated = [
            (f"{seed}/{number}", choice(cluster_node.CHANGES), choice(keys))
            for number in range(2 * count)
        ]
        calls = _CALLS * count // (len(self._nodes) * _THREADS)
        given = {"keys": keys, "seed": seed, "repeated": repeated}
        for node in self._nodes:
            node.send(**given, calls=calls, threads=_THREADS)
        if faults:
            self._make_faults()
        for number, node in enumerate(self._nodes):
            if node.wait("done") is None or not _has_answered(node):
                self._replace(number)
        if isinstance(self._server, Pair):
            self._server.restore()
        self._collect()

    def _replace(self, number: int) -> None:
        old = self._nodes[number]
        old.close(kills=True)
        self._ended.append(old)
        self._nodes[number] = self._opened()

    def _make_faults(self) -> None:
        faults: list[tuple[str, Callable[[], None]]] = [
            ("stopped", self._stop),
            ("stopped", self._stop),
            ("killed", self._kill),
            ("sessions ended", self._terminate),
            ("sessions ended", self._terminate),
            ("cut", self._proxy.cut),
            ("cut", self._proxy.cut),
        ]
        pair = self._server
        if isinstance(pair, Pair):
            faults += [("waits canceled", self._cancel_waits)] * 4
        promotes = isinstance(pair, Pair) and self._choice.random() < _PROMOTED
        count = self._choice.randint(2, 4)
        for number in range(count):
            time.sleep(self._choice.random() * 0.1)
            name, make = self._choice.choice(faults)
            if promotes and number == count // 2:
                assert isinstance(pair, Pair)
                name, make = "promoted", pair.fail_over
            self.counts[name] += 1
            make()

    def _cancel_waits(self) -> None:
        assert isinstance(self._server, Pair)
        self.counts["canceled commits"] += self._server.cancel_waits(0.2)

    def _stop(self) -> None:
        node = self._choice.choice(self._nodes)
        node.signal(signal.SIGSTOP)
        time.sleep(self._choice.random() * 0.3)
        node.signal(signal.SIGCONT)

    def _kill(self) -> None:
        self._choice.choice(self._nodes).signal(signal.SIGKILL)

    def _terminate(self) -> None:
        self._primary.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
            "application_name LIKE 'ferrohsm %' AND random() < 0.3"
        )

    def _collect(self) -> None:
        asked: dict[str, list[tuple[str, Call]]] = defaultdict(list)
        for node in [*self._nodes, *self._ended]:
            records, node.records = node.records, []
            for once, key, call in _calls_of(node.name, records):
                asked[once].append((key, call))
                kind = call.answer if call.answer in {UNKNOWN, "refused"} else "made"
                self.counts[kind] += 1
        for calls in asked.values():
            key = calls[0][0]
            self.calls[key] += _as_one([call for _, call in calls])
        self._ended = []


_PROMOTED: Final = 0.5
"""Share of batches with a standby in whose middle it is promoted."""


def _has_answered(node: NodeProcess) -> bool:
    """Return whether a node has decided at least one call of a batch."""
    answers = [said.get("answer", UNKNOWN) for said in node.records]
    return any(a != UNKNOWN and not a.startswith(_NOTHING) for a in answers)


def _calls_of(
    node: str, records: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, str, Call]]:
    ends = {said["end"]: said for said in records if "end" in said}
    for said in records:
        if "begin" not in said:
            continue
        end = ends.get(said["begin"], {"answer": UNKNOWN, "at": NEVER})
        answer, ended = end["answer"], end["at"]
        if answer.startswith(_NOTHING):
            continue
        if answer == UNKNOWN:
            ended = NEVER
        call = Call(said["kind"], answer, said["at"], ended, node)
        yield said["once"], said["key"], call


def _as_one(calls: Sequence[Call]) -> list[Call]:
    """
    Return calls that were made under one idempotency key, as those that count.

    All that were answered ``ok`` are one change, with those that may have made it.
    """
    refused = [call for call in calls if call.answer == "refused"]
    others = [call for call in calls if call.answer != "refused"]
    if len(others) < 2:
        return list(calls)
    first = min(others, key=lambda call: call.ended)
    began = min(call.began for call in others)
    return [*refused, Call(first.kind, first.answer, began, first.ended, first.node)]


def main() -> int:
    """Live through as many histories as the command line says, and judge them."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pair", type=int, default=50, help="more, with a standby")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--off", action="append", default=[])
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    wrong = 0
    if given.count:
        server = PostgreSQL.create(max_connections="100")
        try:
            wrong += _judge(server, given.count, given.seed, given.off)
        finally:
            server.remove()
    if given.pair:
        pair = Pair()
        try:
            wrong += _judge(pair, given.pair, given.seed, given.off)
        finally:
            pair.remove()
    return 1 if wrong else 0


_AT_ONCE: Final = 120
"""Histories over one database, whose logs are then verified."""


def _judge(server: PostgreSQL | Pair, count: int, seed: int, off: Sequence[str]) -> int:
    """Live through histories, tell of them, and return how many are wrong."""
    found, done, began = 0, 0, time.monotonic()
    counts = Counter[str]()
    for first in range(0, count, _AT_ONCE):
        with Histories(server, seed + first, off) as histories:
            wrong = histories.run(min(_AT_ONCE, count - first))
            for key in wrong:
                sys.stdout.write(f"{key} is not linearizable:\n")
                for call in sorted(histories.calls[key], key=lambda call: call.began):
                    sys.stdout.write(f"  {call} {call.node}\n")
            histories.close_nodes()
            histories.counts["records verified"] = histories.verify()
        found, done = found + len(wrong), done + len(histories.calls)
        counts += histories.counts
        told = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
        took = time.monotonic() - began
        sys.stdout.write(f"[{took:6.1f} s] {done} histories, {found} wrong: {told}\n")
        sys.stdout.flush()
    return found


if __name__ == "__main__":
    sys.exit(main())

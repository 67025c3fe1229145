# SPDX-License-Identifier: MIT
"""What nodes on one database cost, beside one machine with SQLite: P18."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.bench.figures import Absent, Finding, at_least, at_most
from tests.bench.processes import Worker, cpu_seconds
from tests.bench.rig import Rig
from tests.e2e.family import children
from tests.postgresql import PostgreSQL, is_installed

_ROUNDS: Final = 7
_USES: Final = 1600
_ROTATIONS: Final = 20
_GROUPS: Final = (1, 10, 16, 100, 256)
_RATES: Final = {16: 0.8, 64: 0.8}
"""Goal of uses a second, relative to SQLite, by how many are in flight."""
_WHAT: Final = "nodes on PostgreSQL"


def nodes(rig: Rig) -> list[Finding]:
    """Return the costs of uses and changes; those of processors over all processes."""
    if not is_installed():
        return [Absent(what=_WHAT, why="PostgreSQL is not installed")]
    with _server() as server, ExitStack() as stack:
        database = _Database(server)
        folder = rig.place("nodes")

        def start(store: str, name: str) -> BusyNode:
            return stack.enter_context(BusyNode(store, name, folder))

        alone = start(f"sqlite:{rig.place('one-machine')}", "alone")
        first, second = (start(database.url, name) for name in ("a", "b"))
        return [
            *_uses(alone, first, database),
            *_groups(first, database),
            *_changes(alone, first, second, database),
            _two_nodes(first, second, database),
        ]


class BusyNode(Worker):
    """
    An HSM in a process of its own, which works when it is told to.

    Args:
        store: As the setting.

        name: Of the node.

        folder: Where its mark lies.

    Raises:
        RuntimeError: It can't be opened.
    """

    def __init__(self, store: str, name: str, folder: Path) -> None:
        super().__init__("-m", "tests.bench.busy_node", store, name, folder)
        self.answer()

    @property
    def seconds(self) -> float:
        """Processor time of the process, in seconds; also of threads that ended."""
        text = Path(f"/proc/{self.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class _Database:
    """An empty database, and the processor time of its server."""

    def __init__(self, server: PostgreSQL) -> None:
        self.url = server.url(server.new_database())
        self._server = server

    @property
    def seconds(self) -> float:
        """Processor time of all processes that run, in seconds."""
        return cpu_seconds(self._server.pid, *children(self._server.pid))


@contextmanager
def _server() -> Iterator[PostgreSQL]:
    # On a disk like SQLite, and not in memory as for tests.
    server = PostgreSQL.create(
        Path(tempfile.gettempdir()), shared_buffers="128MB", max_wal_size="1GB"
    )
    try:
        yield server
    finally:
        server.remove()


class _Spent:
    """Seconds that rounds of one kind took, for each of what was done in them."""

    def __init__(self, times: int, *parts: Callable[[], float]) -> None:
        self._times, self._parts = times, parts
        self._taken: list[list[float]] = []

    def measure(self, work: Callable[[], float]) -> None:
        """Do it once more."""
        before = [part() for part in self._parts]
        took = [work()]
        took += [
            part() - earlier for part, earlier in zip(self._parts, before, strict=True)
        ]
        self._taken.append([seconds / self._times for seconds in took])

    @property
    def medians(self) -> list[float]:
        """Wall time, and the time of each part, in seconds for each."""
        return [statistics.median(taken) for taken in zip(*self._taken, strict=True)]


def _uses(alone: BusyNode, node: BusyNode, database: _Database) -> list[Finding]:
    return [
        _use(alone, node, database, in_flight, goal)
        for in_flight, goal in _RATES.items()
    ]


def _use(
    alone: BusyNode, node: BusyNode, database: _Database, in_flight: int, goal: float
) -> Finding:
    line = f"sign {_USES} {in_flight}"
    one = _Spent(_USES, lambda: alone.seconds)
    both = _Spent(_USES, lambda: node.seconds, lambda: database.seconds)
    for _ in range(_ROUNDS):
        one.measure(lambda: alone.work(line))
        both.measure(lambda: node.work(line))
    (sqlite, own), (wall, mine, theirs) = one.medians, both.medians
    what = f"uses a second, {in_flight} in flight, one node ÷ SQLite in strict mode"
    note = (
        f"Ed25519; wall time; {1 / wall:,.0f} and {1 / sqlite:,.0f} a second; "
        f"processor time for each: node {_us(mine)} and database {_us(theirs)}, "
        f"SQLite {_us(own)}"
    )
    return at_least(goal, what, sqlite / wall, note=note)


def _groups(node: BusyNode, database: _Database) -> list[Finding]:
    by_size = {size: _group(node, database, size) for size in _GROUPS}
    note = ", ".join(f"{size}: {_us(seconds)}" for size, seconds in by_size.items())
    what = "processor time of the database for a record in groups of 100"
    return [at_most(15, what, 1e6 * by_size[100], "µs", f"by size of group: {note}")]


def _group(node: BusyNode, database: _Database, size: int) -> float:
    times = max(4, _USES // size // 4)
    spent = _Spent(times * size, lambda: database.seconds)
    for _ in range(_ROUNDS):
        spent.measure(lambda: node.work(f"batch {times} {size}"))
    return spent.medians[1]


def _changes(
    alone: BusyNode, first: BusyNode, second: BusyNode, database: _Database
) -> list[Finding]:
    line = f"rotate {_ROTATIONS} 1"
    one = _Spent(_ROTATIONS, lambda: alone.seconds)
    mine = _Spent(_ROTATIONS, lambda: first.seconds, lambda: database.seconds)
    ours = _Spent(2 * _ROTATIONS)
    for _ in range(_ROUNDS):
        one.measure(lambda: alone.work(line))
        mine.measure(lambda: first.work(line))
        ours.measure(lambda: _together((first, second), line))
    (_, own), (wall, node, server) = one.medians, mine.medians
    note = (
        f"wall time {1e3 * wall:.1f} ms; SQLite {1e3 * own:.1f} ms, node "
        f"{1e3 * node:.1f} ms and database {1e3 * server:.1f} ms"
    )
    rate = 1 / ours.medians[0]
    return [
        at_most(
            3,
            "rotation of a key, processor time of node and database ÷ SQLite",
            (node + server) / own,
            note=note,
        ),
        at_least(200, "changes of two nodes at once", rate, "a second", "wall time"),
    ]


def _two_nodes(first: BusyNode, second: BusyNode, database: _Database) -> Finding:
    line = f"sign {_USES} 16"

    def all_processes() -> float:
        return first.seconds + second.seconds + database.seconds

    one, two = _Spent(_USES, all_processes), _Spent(2 * _USES, all_processes)
    for _ in range(_ROUNDS):
        one.measure(lambda: first.work(line))
        two.measure(lambda: _together((first, second), line))
    (wall_one, cpu_one), (wall_two, cpu_two) = one.medians, two.medians
    note = (
        f"16 in flight on each; {_us(cpu_one)} and {_us(cpu_two)} for each use; wall "
        f"time {1 / wall_one:,.0f} and {1 / wall_two:,.0f} a second"
    )
    what = "processor time of all processes for a use, two nodes ÷ one"
    return at_most(1.15, what, cpu_two / cpu_one, note=note)


def _together(nodes: Sequence[BusyNode], line: str) -> float:
    for node in nodes:
        node.begin(line)
    return max([float(node.answer()) for node in nodes])


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs"

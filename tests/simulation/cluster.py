# SPDX-License-Identifier: MIT
"""
Simulation of a cluster: fence, feed, groups and settling, in any order of events.

It is a model of the protocol, not of the product: every step of a node and of the
database is chosen by a seed, and so are pauses, lost answers, statements that arrive
late, deaths, clocks that run wrong, and a fail-over that loses commits. The conditions
of groups and the death watch are the product's own.

``python -m tests.simulation.cluster --seeds N --from K`` lives through many.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hsm_core._internal.audit.medium import GroupCondition
from hsm_core._internal.cluster.death_watch import DeathWatch
from tests.core.linearizability import NEVER, UNKNOWN, Call, Key, is_linearizable
from tests.simulation.cluster_database import (
    PROTECTIONS,
    Record,
    SimulatedDatabase,
    Tables,
    ViolationError,
    Wait,
    Work,
)

KEYS: Final = ("k", "l")
_STEPS: Final = 2500
_CALLS: Final = 4
_KINDS: Final = ("sign", "sign", "sign", "rotate", "suspend", "resume")


class LostError(Exception):
    """No answer came; the statement may be made, or will be, or never is."""


class StoppedError(Exception):
    """The node is none any more: it was fenced, or the database came back older."""


@dataclass
class Reply:
    """Answer to a statement."""

    value: Any = None
    is_there: bool = False
    is_lost: bool = False


@dataclass
class Task:
    """Something that goes on, of a node or of the server."""

    work: Generator[Wait, None, Any]
    node: Node | None = None
    wait: Wait = None
    reply: Reply | None = None


@dataclass
class Node:
    """
    A process with its memory.

    Attributes:
        epoch: Under which it writes.
        position: Newest change that it has applied, and its head.
        cells: Count the changes of each key that it has applied.
        repairs: Counts outages of its log.
        paused_until: Until when it does nothing.
        rate: How fast its clock runs.
    """

    name: str
    instance: int
    rate: float
    epoch: int = 1
    position: tuple[int, bytes] = (0, b"0")
    cache: dict[str, tuple[int, Key]] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    end: int = 0
    repairs: int = 0
    is_writing: bool = False
    is_broken: bool = False
    is_stopped: bool = False
    is_dead: bool = False
    paused_until: float = 0.0
    watch: DeathWatch = field(default_factory=DeathWatch)


class ClusterLife:
    """
    One life of a cluster.

    Args:
        seed: Of all that happens.

        off: Protection that is switched off, or nothing.
    """

    def __init__(self, seed: int, off: str = "") -> None:
        self._choice = choice = random.Random(seed)
        self._time = 0.0
        self._tasks: list[Task] = []
        self._database = SimulatedDatabase(choice, off)
        self._database.tables.keys = {key: (1, Key()) for key in KEYS}
        self._nodes: list[Node] = []
        self._calls: dict[str, list[Call]] = {key: [] for key in KEYS}
        self._told: dict[str, set[str]] = {}
        self._loses = off == "head" or choice.random() < 0.2
        self._is_calm = False
        for _ in range(3):
            self._join()
        self._database.copy_to_standby()

    def live(self) -> None:
        """
        Live, come to rest, and check what was promised.

        Raises:
            ViolationError: A promise was broken.
        """
        for _ in range(_STEPS):
            self._fault()
            self._step()
        self._is_calm = True
        for node in self._nodes:
            node.paused_until = 0.0
        for _ in range(20 * _STEPS):
            if not self._step():
                break
        if self._tasks:
            raise ViolationError("The cluster does not come to rest.")
        self._check()

    # Events

    def _step(self) -> bool:
        self._time += self._choice.random() * 0.02
        for _ in range(8):
            if not self._tasks:
                return False
            task = self._choice.choice(self._tasks)
            node = task.node
            if node is not None and (node.is_dead or node.is_stopped):
                self._tasks.remove(task)
                continue
            if node is not None and node.paused_until > self._time:
                continue
            if task.wait is not None and not task.wait():
                continue
            self._advance(task)
            return True
        return True

    def _advance(self, task: Task) -> None:
        try:
            task.wait = next(task.work)
            return
        except StopIteration as ended:
            if task.reply is not None:
                task.reply.value, task.reply.is_there = ended.value, True
        except StoppedError:
            if task.node is not None:
                task.node.is_stopped = True
        self._tasks.remove(task)

    def _fault(self) -> None:
        luck = self._choice.random()
        if luck < 0.01:
            node = self._choice.choice(self._nodes)
            node.paused_until = self._time + self._choice.choice([0.3, 1.0, 6.0])
        elif luck < 0.03:
            self._lose_an_answer()
        elif luck < 0.0315:
            self._choice.choice(self._nodes).is_dead = True
            self._join()
        elif luck < 0.05 and self._choice.random() < 0.3:
            self._database.copy_to_standby()
        elif luck < 0.0505 and self._loses:
            self._fail_over()

    def _lose_an_answer(self) -> None:
        asked = [t for t in self._tasks if t.reply is not None and not t.reply.is_lost]
        if asked:
            task = self._choice.choice(asked)
            assert task.reply is not None
            task.reply.is_lost = True
            if self._choice.random() < 0.3:
                self._tasks.remove(task)
                task.work.close()

    def _fail_over(self) -> None:
        self._database.fail_over()
        for task in list(self._tasks):
            if task.reply is not None:
                task.reply.is_lost = True
                self._tasks.remove(task)
                task.work.close()
        for node in self._nodes:
            # Through a pooler, connections may outlive their server.
            node.is_broken = self._database.off != "head" or self._choice.random() < 0.5
            node.watch.restart()

    def _join(self) -> None:
        number = len(self._nodes) + 1
        node = Node(f"n{number}", number, self._choice.choice([0.5, 1.0, 3.0]))
        self._nodes.append(node)
        tables = self._database.tables
        tables.fence[node.name] = 1, number
        tables.beats[node.name] = 0
        tables.logs[node.name] = []
        revision = len(tables.changes) - 1
        node.position = revision, self._database.head_at(revision)
        for work in (self._feed(node), self._watch(node)):
            self._tasks.append(Task(work, node))
        for _ in range(2):
            self._tasks.append(Task(self._client(node), node))

    # What nodes do

    def _ask(self, work: Work) -> Generator[Wait, None, Any]:
        reply = Reply()
        self._tasks.append(Task(work, reply=reply))
        yield lambda: reply.is_there or reply.is_lost
        if reply.is_lost:
            raise LostError
        return reply.value

    def _surely(self, make: Callable[[], Work]) -> Generator[Wait, None, Any]:
        """Ask until an answer comes, for what may be repeated."""
        while True:
            try:
                return (yield from self._ask(make()))
            except LostError:
                yield None

    def _read(self, look: Callable[[Tables], Any]) -> Generator[Wait, None, Any]:
        return (yield from self._surely(lambda: self._database.read(look)))

    def _feed(self, node: Node) -> Work:
        while not self._is_calm:
            after = self._time + self._choice.choice([0.0, 0.5, 5.0])
            yield lambda at=after: self._time >= at or self._is_calm  # type: ignore[misc]
            yield from self._catch_up(node)

    def _catch_up(self, node: Node) -> Work:
        revision, head = node.position
        changes = yield from self._read(lambda tables: tables.changes[revision:])
        if not changes or changes[0].head != head:
            raise StoppedError
        if node.position != (revision, head):
            return
        for number, change in enumerate(changes[1:], revision + 1):
            node.cache.pop(change.subject, None)
            node.cells[change.subject] += 1
            node.position = number, change.head

    def _load(self, node: Node, key: str) -> Generator[Wait, None, tuple[int, Key]]:
        if key in node.cache:
            return node.cache[key]
        cell = node.cells[key]
        found: tuple[int, Key] = yield from self._read(lambda tables: tables.keys[key])
        # It may be ahead of the changes that are applied.
        yield from self._catch_up(node)
        if node.cells[key] == cell:
            node.cache[key] = found
        return found

    def _write(
        self, node: Node, records: Sequence[Record], subjects: Sequence[str] = ()
    ) -> Generator[Wait, None, str]:
        """Write a group; return ``written``, ``refused`` or ``unknown``."""
        revision, head = node.position
        repairs = node.repairs
        while True:
            yield lambda: not node.is_writing
            if subjects and node.repairs != repairs:
                return "unknown"
            node.is_writing = True
            try:
                found = yield from self._write_once(
                    node,
                    records,
                    (revision, head) if subjects else node.position,
                    subjects,
                )
            finally:
                node.is_writing = False
            if found == "written" or subjects:
                return found

    def _write_once(
        self,
        node: Node,
        records: Sequence[Record],
        position: tuple[int, bytes],
        subjects: Sequence[str],
    ) -> Generator[Wait, None, str]:
        revision, head = position
        condition = GroupCondition(
            node=node.name,
            epoch=node.epoch,
            revision=revision,
            head=head,
            subjects=subjects,
        )
        try:
            if node.is_broken:
                raise LostError
            made = yield from self._ask(self._database.insert_group(condition, records))
        except LostError:
            stood = yield from self._repair(node, len(records))
            if subjects:
                return "unknown"
            return "written" if stood else "refused"
        if made:
            node.end += len(records)
            return "written"
        yield from self._check_fence(node)
        yield from self._catch_up(node)
        return "refused"

    def _repair(self, node: Node, count: int) -> Generator[Wait, None, bool]:
        """After an unknown outcome: raise the own epoch, then read what stands."""
        epoch = yield from self._surely(
            lambda: self._database.raise_epoch(node.name, node.instance, 0)
        )
        if not epoch:
            raise StoppedError
        node.epoch = epoch
        node.is_broken = False
        end = yield from self._read(lambda tables: len(tables.logs.get(node.name, [])))
        if end < node.end:
            raise StoppedError
        if end not in {node.end, node.end + count}:
            raise ViolationError(f"The log of {node.name} grew unnoticed.")
        stood, node.end = end > node.end, end
        # A document may be of a change that the fail-over has lost.
        node.cache.clear()
        for key in KEYS:
            node.cells[key] += 1
        node.repairs += 1
        yield from self._catch_up(node)
        return bool(stood)

    # What clients do

    def _client(self, node: Node) -> Work:
        for number in range(_CALLS):
            if self._is_calm:
                return
            kind, key = self._choice.choice(_KINDS), self._choice.choice(KEYS)
            name = f"{node.name}/{id(node) and number}/{self._choice.random()}"
            began = self._time
            slot = len(self._calls[key])
            self._calls[key].append(Call(kind, UNKNOWN, began, NEVER, node.name))
            if kind == "sign":
                answer = yield from self._use(node, key)
            else:
                answer = yield from self._change(node, key, kind, name)
                if self._choice.random() < 0.3:
                    self._repeat(node, key, kind, name, slot)
            if answer not in {UNKNOWN, "none"}:
                self._calls[key][slot] = Call(kind, answer, began, self._time)

    def _repeat(self, node: Node, key: str, kind: str, name: str, slot: int) -> None:
        """Let a client that got no good answer, or lost it, ask another node."""
        others = [n for n in self._nodes if n is not node and not n.is_stopped]
        if others:
            other = self._choice.choice(others)
            self._tasks.append(Task(self._again(other, key, kind, name), other))

    def _again(self, node: Node, key: str, kind: str, name: str) -> Work:
        yield from self._change(node, key, kind, name)

    def _use(self, node: Node, key: str) -> Generator[Wait, None, str]:
        while True:
            cell = node.cells[key]
            _, state = yield from self._load(node, key)
            yield None
            if node.cells[key] != cell:
                continue
            _, answer = state.after("sign")
            record = Record("use", key, state=state)
            found = yield from self._write(node, [record], [key])
            if found == "unknown":
                return UNKNOWN
            if found == "written":
                return answer

    def _change(
        self, node: Node, key: str, kind: str, name: str
    ) -> Generator[Wait, None, str]:
        yield from self._write(node, [Record("intent", key, name)])
        answer = yield from self._decide(node, key, kind, name)
        yield from self._write(node, [Record("outcome", key, name, answer=answer)])
        self._told.setdefault(name, set()).add(answer)
        return answer

    def _decide(
        self, node: Node, key: str, kind: str, name: str
    ) -> Generator[Wait, None, str]:
        while True:
            yield from self._catch_up(node)
            position = node.position
            before = yield from self._load(node, key)
            after, answer = before[1].after(kind)
            if answer == "refused":
                # Whoever repeats it must find that it was not made.
                found = yield from self._surely(lambda: self._database.abort(name))
                return "ok" if found == "made" else "refused"
            try:
                found = yield from self._ask(
                    self._database.change(
                        node.name, node.epoch, name, key, before, after, position
                    )
                )
            except LostError:
                found = yield from self._surely(lambda: self._database.abort(name))
            if found == "made":
                return "ok"
            if found == "aborted":
                return "none"
            if found == "older":
                raise StoppedError
            yield from self._check_fence(node)

    def _check_fence(self, node: Node) -> Work:
        """Find out whether the node was fenced; its own raise may have come late."""
        epoch, owner = yield from self._read(
            lambda tables: tables.fence.get(node.name, (0, 0))
        )
        if owner != node.instance:
            raise StoppedError
        node.epoch = epoch

    # Deaths

    def _watch(self, node: Node) -> Work:
        while not self._is_calm:
            after = self._time + 0.5
            yield lambda at=after: self._time >= at or self._is_calm  # type: ignore[misc]
            began = self._time * node.rate
            tables = self._database.tables
            if tables.fence.get(node.name, (0, 0))[1] != node.instance:
                raise StoppedError
            tables.beats[node.name] += 1
            beats = {
                name: (str(owner), epoch, tables.beats[name])
                for name, (epoch, owner) in tables.fence.items()
                if owner and name != node.name
            }
            for name in node.watch.observe(beats, began, self._time * node.rate):
                yield from self._bury(node, name, beats[name][1])

    def _bury(self, node: Node, name: str, epoch: int) -> Work:
        """Fence a dead node, end its sessions, and settle what it left."""
        self._database.end_sessions(name)
        raised = yield from self._surely(
            lambda: self._database.raise_epoch(name, None, epoch)
        )
        if not raised:
            return
        log = yield from self._read(lambda tables: list(tables.logs.get(name, [])))
        self._database.fixed[name] = len(log)
        done = {record.operation for record in log if record.kind == "outcome"}
        for record in log:
            if record.kind == "intent" and record.operation not in done:
                operation = record.operation
                found = yield from self._surely(
                    lambda operation=operation: self._database.abort(operation)  # type: ignore[misc]
                )
                answer = "ok" if found == "made" else "none"
                settled = Record("outcome", record.key, operation, answer=answer)
                yield from self._write(node, [settled])
                self._told.setdefault(operation, set()).add(answer)

    # Promises

    def _check(self) -> None:
        made = self._database.made
        if not self._loses and len(made) != len(set(made)):
            raise ViolationError("A change was made twice.")
        if self._loses:
            return
        for operation, answers in self._told.items():
            is_made = operation in made
            if is_made and answers & {"none"}:
                raise ViolationError(f"{operation} was made, and denied.")
            if not is_made and "ok" in answers:
                raise ViolationError(f"{operation} was told to be made, and was not.")
        for key, calls in self._calls.items():
            if not is_linearizable(calls):
                raise ViolationError(f"The calls of {key} have no order.")


def main() -> int:
    """Live through seeds, and tell of those that break a promise."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--off", choices=PROTECTIONS, default="")
    given = parser.parse_args()
    began, broken = time.monotonic(), 0
    for seed in range(given.first, given.first + given.seeds):
        try:
            ClusterLife(seed, given.off).live()
        except ViolationError as error:
            broken += 1
            sys.stdout.write(f"seed {seed}: {error}\n")
    took = time.monotonic() - began
    sys.stdout.write(f"[{took:6.1f} s] {given.seeds} seeds, {broken} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

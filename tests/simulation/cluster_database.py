# SPDX-License-Identifier: MIT
"""
Database of a simulated cluster, with the locks and snapshots that its protocol needs.

Work of the server is a generator: each ``yield`` is a moment in which something else
may happen, and what it yields is what it waits for. Statements arrive late or never;
what a client has given up may still arrive.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hsm_core._internal.audit.medium import GroupCondition
from tests.core.linearizability import Key

PROTECTIONS: Final = ("fence", "later", "head", "operation", "abort")
"""Fence lock, conditions on later changes and on the head, unique ID, abort mark."""

Wait: TypeAlias = Callable[[], bool] | None
Work: TypeAlias = Generator[Wait, None, Any]


class ViolationError(Exception):
    """A promise of the cluster was broken."""


@dataclass
class Change:
    """A change of a key, as the feed has it."""

    subject: str
    operation: str
    head: bytes


@dataclass
class Record:
    """
    A record of a log.

    Attributes:
        kind: ``use``, ``intent`` or ``outcome``.
        key: ID of the key.
        operation: ID of the change.
        state: State of the key that a use was decided under.
        answer: What an outcome says: ``ok`` or ``none``.
    """

    kind: str
    key: str = ""
    operation: str = ""
    state: Key = field(default_factory=Key)
    answer: str = ""


@dataclass
class Tables:
    """What a backup or a standby of the database has."""

    fence: dict[str, tuple[int, int]] = field(default_factory=dict)
    beats: dict[str, int] = field(default_factory=dict)
    keys: dict[str, tuple[int, Key]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    operations: dict[str, str] = field(default_factory=dict)
    logs: dict[str, list[Record]] = field(default_factory=dict)


class Session:
    """Transaction of a node that is open; ends when it is made, or with its session."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.is_ended = False


class SimulatedDatabase:
    """
    The database.

    Args:
        choice: Decides what is random.

        off: Protection that is switched off, or nothing.
    """

    def __init__(self, choice: random.Random, off: str) -> None:
        self.tables = Tables(changes=[Change("", "", b"0")])
        self.off = off
        self.fixed: dict[str, int] = {}
        self.made: list[str] = []
        self._choice = choice
        self._locks: dict[str, set[Session]] = {}
        self._standby = copy.deepcopy(self.tables)

    # Locks

    def _shared(self, name: str) -> set[Session]:
        holders = self._locks.setdefault(name, set())
        holders -= {session for session in holders if session.is_ended}
        return holders

    def _hold(self, name: str, session: Session) -> Work:
        """Take a lock alone."""
        yield lambda: session.is_ended or not self._shared(name) - {session}
        self._shared(name).add(session)

    def end_sessions(self, node: str) -> None:
        """End the transactions of a node."""
        for holders in self._locks.values():
            for session in holders:
                if session.node == node:
                    session.is_ended = True

    # Statements

    def insert_group(
        self, condition: GroupCondition, records: Sequence[Record]
    ) -> Work:
        """Insert a group of records, and return whether it was."""
        session = Session(condition.node)
        try:
            return (yield from self._insert(session, condition, records))
        finally:
            session.is_ended = True

    def _insert(
        self, session: Session, condition: GroupCondition, records: Sequence[Record]
    ) -> Work:
        tables, node = self.tables, condition.node
        count, keys = len(tables.changes), dict(tables.keys)
        is_ours = self.epoch_of(node) == condition.epoch
        yield None
        if self.off != "fence":
            self._shared(f"fence {node}").add(session)
            is_ours = self.epoch_of(node) == condition.epoch
        yield None
        if session.is_ended or not (is_ours and self._holds(condition, count)):
            return False
        if node in self.fixed:
            raise ViolationError(f"The log of {node} grew behind its settled end.")
        for record in records:
            if record.kind == "use" and keys[record.key][1] != record.state:
                raise ViolationError(f"A use of {record.key} was not decided anew.")
        tables.logs.setdefault(node, []).extend(records)
        return True

    def _holds(self, condition: GroupCondition, count: int) -> bool:
        changes, revision = self.tables.changes[:count], condition.revision
        is_there = revision < len(changes) and (
            changes[revision].head == condition.head
        )
        if not is_there and self.off != "head":
            return False
        later = changes[revision + 1 :]
        return self.off == "later" or not any(
            change.subject in condition.subjects for change in later
        )

    def change(
        self,
        node: str,
        epoch: int,
        operation: str,
        key: str,
        before: tuple[int, Key],
        after: Key,
        position: tuple[int, bytes],
    ) -> Work:
        """Change a key; return ``made``, ``conflict``, ``fenced``, or what was made."""
        tables, session = self.tables, Session(node)
        try:
            self._shared(f"fence {node}").add(session)
            yield None
            if self.epoch_of(node) != epoch:
                return "fenced"
            if self.off != "operation":
                yield from self._hold(f"operation {operation}", session)
                if operation in tables.operations:
                    return tables.operations[operation]
            yield from self._hold(f"key {key}", session)
            if tables.keys[key] != before:
                return "conflict"
            yield from self._hold("cluster", session)
            revision, head = position
            if self.head_at(revision) != head:
                return "older"
            yield None
            if session.is_ended:
                return "ended"
            self._make(operation, key, before[0], after)
            return "made"
        finally:
            session.is_ended = True

    def _make(self, operation: str, key: str, generation: int, after: Key) -> None:
        tables = self.tables
        tables.keys[key] = generation + 1, after
        tables.operations[operation] = "made"
        head = tables.changes[-1].head + b"%x" % self._choice.getrandbits(16)
        tables.changes.append(Change(key, operation, head))
        self.made.append(operation)

    def abort(self, operation: str) -> Work:
        """Abort an operation unless it was made, and return which."""
        session = Session("")
        try:
            if self.off != "abort":
                yield from self._hold(f"operation {operation}", session)
            yield None
            found = self.tables.operations.get(operation, "aborted")
            if self.off != "abort":
                self.tables.operations[operation] = found
            return found
        finally:
            session.is_ended = True

    def raise_epoch(self, node: str, instance: int | None, epoch: int) -> Work:
        """
        Raise a fence, one's own by its instance, and return the new epoch; or 0.

        It waits for the transactions that hold the fence.
        """
        yield lambda: not self._shared(f"fence {node}")
        found, owner = self.tables.fence.get(node, (0, 0))
        if (owner != instance) if instance is not None else (found != epoch):
            return 0
        self.tables.fence[node] = found + 1, owner if instance is not None else 0
        return found + 1

    def read(self, look: Callable[[Tables], Any]) -> Work:
        """Read something."""
        yield None
        return look(self.tables)

    def epoch_of(self, node: str) -> int:
        """Return the epoch of a node; 0 if the database does not know it."""
        return self.tables.fence.get(node, (0, 0))[0]

    def head_at(self, revision: int) -> bytes:
        """Return the head of the changes at a revision; nothing if there is none."""
        changes = self.tables.changes
        return changes[revision].head if revision < len(changes) else b""

    # Fail-over

    def copy_to_standby(self) -> None:
        """Let the standby catch up."""
        self._standby = copy.deepcopy(self.tables)

    def fail_over(self) -> None:
        """Go on with the standby, which may lack what was committed last."""
        self.tables = copy.deepcopy(self._standby)
        self._locks.clear()
        self.fixed.clear()

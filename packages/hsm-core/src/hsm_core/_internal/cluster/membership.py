# SPDX-License-Identifier: MIT
"""
Membership of one process in a cluster: join, beat, watch the others, leave.

A node that dies is fenced by another: its epoch is raised, its sessions are ended, and
what it left unfinished is settled. No clocks are compared, and fencing a node that
lives costs it a restart, never safety: nothing of an older epoch can be committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_core._internal.cluster import fence
from hsm_core._internal.cluster.death_watch import PACE, DeathWatch, Pace
from hsm_core._internal.cluster.node_rows import (
    Beating,
    NodeFacts,
    NodeRow,
    beat,
    enter,
    forget,
    note_settled,
    raise_level,
    read_level,
    read_nodes,
    read_time,
)
from hsm_core._internal.lib import silence
from hsm_core._internal.stores.postgresql.connection import (
    TransactionConflictError,
    no_statements,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.records import UnsettledError
from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    InvalidInputError,
    StoreLockedError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.protocols import Clock

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

LEVEL: Final = 1
"""Level of this program: which formats and fields it reads and writes."""

_LOOK_SECONDS: Final = 0.1
_JOIN_ATTEMPTS: Final = 3
_WRONG_SECONDS: Final = 30.0
"""Beyond such a difference of clocks, a rule with a time window can't be decided."""


class NodeFencedError(UnavailableError):
    """This process is a node no more: another raised its epoch, or the level rose."""


class NodeOutdatedError(NodeFencedError):
    """The cluster's level rose above this program's."""


def _nothing() -> int:
    return 0


class Membership:
    """
    Membership of this process; see `join`. Thread-safe.

    Args:
        database: Database of the cluster.

        node: Name of the node.

        instance: ID of this process; see `fence.new_instance`.

        epoch: The epoch under which it joined.

        level: Level of this program.

        clock: Compared with the database's at each beat.

        pace: When a node is dead.

    Attributes:
        node: Name of the node.
        instance: ID of this process.
        facts: Returns what the node says of itself at each beat.
        applied: Returns the newest revision that it has applied.
        on_dead: Settles what a dead node left, given its name and epoch; called on a
            thread of its own, again and again until `note_settled`. None while the
            node opens: then others settle.
        on_stop: Called once, when the node was fenced.
        on_clock: Called with whether the clock is wrong, after each beat.
        clock_difference_seconds: By how much the clock is ahead of the database's.
        rows: All nodes at the last beat, by name.
        cluster_level: Level of the cluster then.
        beaten_at: Instant of ``time.monotonic()`` then.
    """

    def __init__(
        self,
        database: ClusterDatabase,
        node: str,
        instance: str,
        epoch: int,
        *,
        level: int,
        clock: Clock,
        pace: Pace = PACE,
    ) -> None:
        self.node = node
        self.instance = instance
        self.facts: Callable[[], NodeFacts] = lambda: NodeFacts(level=level)
        self.applied: Callable[[], int] = _nothing
        self.on_dead: Callable[[str, int], None] | None = None
        self.on_stop: Callable[[NodeFencedError], None] = lambda _: None
        self.on_clock: Callable[[bool], None] = lambda _: None
        self.clock_difference_seconds = 0.0
        self.rows: Sequence[NodeRow] = ()
        self.cluster_level = 0
        self.beaten_at = time.monotonic()
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._level = level
        self._pace = pace
        self._watch = DeathWatch(pace)
        self._stopped: NodeFencedError | None = None
        self._renewing = threading.Lock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._settler: threading.Thread | None = None

    @classmethod
    def join(
        cls,
        database: ClusterDatabase,
        node: str,
        instance: str,
        *,
        clock: Clock,
        level: int = LEVEL,
        pace: Pace = PACE,
    ) -> Membership:
        """
        Take the name of a node, and end the sessions of who had it before.

        After a crash of the node, it takes three seconds until its beat shows that
        nobody has the name.

        Args:
            database: Database of the cluster, with sessions of `session_name`.

            node: Name of the node.

            instance: ID of this process.

            clock: Of this node.

            level: Level of this program.

            pace: When a node is dead.

        Raises:
            StoreLockedError: Another process is the node of this name.
            ConfigurationError: The name is no name, or the cluster's level is above
                this program's.
            StoreUnavailableError: The database can't be reached.
        """
        fence.check_node_name(node)
        for _ in range(_JOIN_ATTEMPTS):
            before = _free(database, node, instance, pace.dead)
            try:
                epoch = _enter(database, node, instance, before, level)
            except UnsettledError:
                continue
            if epoch is None:
                raise _is_taken(node)
            if before.instance and before.instance != instance:
                with database.reading() as connection:
                    fence.end_sessions(connection, node, before.instance)
            member = cls(
                database, node, instance, epoch, level=level, clock=clock, pace=pace
            )
            with database.reading() as connection:
                member._compare_clocks(read_time(connection))
            return member
        raise StoreUnavailableError("The database does not answer.")

    @property
    def epoch(self) -> int:
        """Epoch of this process's transactions; changes by `renew` alone."""
        return self._epoch

    @property
    def nodes_live(self) -> int:
        """Number of live nodes at the last beat."""
        return sum(row.is_live for row in self.rows)

    @property
    def is_clock_wrong(self) -> bool:
        """Whether the clock differs too much from the database's to decide by it."""
        return abs(self.clock_difference_seconds) > _WRONG_SECONDS

    def check(self) -> None:
        """
        Check that this process is still a node, as far as it knows.

        Raises:
            NodeFencedError: It is not.
        """
        if self._stopped is not None:
            raise self._stopped

    def check_fence(self) -> None:
        """
        Ask the database whether this process still has its name.

        To be called when a transaction found another epoch than `epoch`. If it has, the
        epoch was renewed meanwhile, and the transaction may be begun again.

        Raises:
            NodeFencedError: Another process has it, or the node was fenced.
            StoreUnavailableError: The database can't be read.
        """
        self.check()
        with self._renewing:
            standing = _standing(self._database, self.node)
            if standing.instance != self.instance:
                raise self._stop(self._lost(standing))
            # A raise of this process may come late, when its answer was given up.
            self._epoch = standing.epoch

    def lock_fence(
        self, connection: ServerConnection, then: Callable[[], object] = no_statements
    ) -> None:
        """
        Lock the fence for a transaction of this node; its first statement.

        Args:
            connection: In the transaction.

            then: Executes further statements, in the same write.

        Raises:
            TransactionConflictError: The epoch is being renewed; to be begun again.
            NodeFencedError: Another process has the name, or the node was fenced.
        """
        self.check()
        if fence.lock(connection, self.node, self._epoch, then):
            return
        standing = fence.read_standing(connection, self.node)
        if standing.instance != self.instance:
            raise self._stop(self._lost(standing))
        if not fence.lock(connection, self.node, standing.epoch):
            raise TransactionConflictError

    def renew(self, above: int = 0) -> int:
        """
        Raise the own epoch, after a transaction with unknown outcome; return it.

        It waits for that transaction. What is sent later under the old epoch fails.

        Args:
            above: Epoch that it must exceed, too.

        Raises:
            NodeFencedError: Another raised it.
            StoreUnavailableError: It is not raised, or perhaps; to be tried again.
        """
        with self._renewing:
            self.check()
            epoch = self._database.run(
                lambda connection: fence.renew(
                    connection, self.node, self.instance, above
                )
            )
            if epoch is None:
                raise self._stop(self._lost(_standing(self._database, self.node)))
            self._epoch = epoch
            return epoch

    def start(self) -> None:
        """Begin to beat, and to watch the others."""
        thread = threading.Thread(target=self._run, name="hsm-core-node", daemon=True)
        self._thread = thread
        thread.start()

    def nodes(self) -> list[NodeRow]:
        """
        Return all nodes of the cluster, by name.

        Raises:
            StoreUnavailableError: The database can't be read.
        """
        with self._database.reading() as connection:
            return read_nodes(connection)

    def is_fenced(self, node: str, epoch: int) -> bool:
        """
        Return whether a node is fenced, and was not started again since an epoch.

        Raises:
            StoreUnavailableError: The database can't be read.
        """
        standing = _standing(self._database, node)
        return standing.epoch == epoch and not standing.instance

    def note_settled(self, node: str, epoch: int) -> None:
        """Note that nothing of a dead node is unfinished up to an epoch."""
        self._database.run(lambda connection: note_settled(connection, node, epoch))

    def retire(self, node: str) -> None:
        """
        Remove a node that left or died from the list of nodes.

        Its log stays, and so does its epoch.

        Raises:
            InvalidInputError: There is no such node, it lives, or what it left
                unfinished is not settled.
            StoreUnavailableError: The database can't be written.
        """
        if not self._database.run(lambda connection: forget(connection, node)):
            raise InvalidInputError(
                f"Node {node[:40]!r} can't be retired. It must be a listed node that "
                "is stopped and settled.",
                field="node",
            )

    def close(self, *, settled: bool = False) -> None:
        """
        Stop beating, and give up the name.

        Without a database the node is left as after a crash.

        Args:
            settled: Whether nothing of the node is unfinished; otherwise another node
                settles it, as after a crash.
        """
        self._ends.set()
        for thread in (self._thread, self._settler):
            if thread is not None:
                thread.join(self._pace.dead)
        if self._stopped is None:
            with suppress(HSMError):
                self._database.run(
                    lambda connection: self._leave(connection, settled=settled)
                )
            self._stopped = NodeFencedError("This node has left the cluster.")

    def _leave(self, connection: ServerConnection, *, settled: bool) -> None:
        epoch = fence.leave(connection, self.node, self.instance)
        if epoch is not None and settled:
            note_settled(connection, self.node, epoch)

    # What the thread does.

    def _run(self) -> None:
        while not self._ends.wait(self._pace.beat) and self._stopped is None:
            try:
                with silence.task():
                    self._beat()
            except NodeFencedError:
                return
            except Exception:
                # Time without a connection does not count.
                self._watch.restart()

    def _beat(self) -> None:
        began = time.monotonic()
        facts, applied = self.facts(), self.applied()

        def work(connection: ServerConnection) -> Beating:
            beating = beat(connection, self.node, self.instance, facts, applied)
            if not beating.is_ours:
                # Raised here, it rolls back what was written of another process.
                raise self._lost(fence.read_standing(connection, self.node))
            return beating

        try:
            beating = self._database.run(work)
        except NodeFencedError as error:
            raise self._stop(error) from None
        ended = time.monotonic()
        self.rows, self.cluster_level = beating.rows, beating.level
        self.beaten_at = ended
        self._compare_clocks(beating.time)
        self.on_clock(self.is_clock_wrong)
        if beating.level > self._level:
            raise self._stop(NodeOutdatedError(_LEVEL_SENTENCE % beating.level))
        if all(row.level > beating.level for row in beating.rows if row.is_live):
            with self._database.transaction() as connection:
                raise_level(connection)
        others = {row.node: row for row in beating.rows if row.node != self.node}
        lives = {n: r.seen for n, r in others.items() if r.is_live}
        for node in self._watch.observe(lives, began, ended):
            self._fence(others[node])
        self._settle(others)

    def _compare_clocks(self, database_time: int) -> None:
        ahead = self._clock.now() - database_time
        self.clock_difference_seconds = ahead / 1_000_000

    def _fence(self, row: NodeRow) -> None:
        with suppress(StoreUnavailableError):
            self._database.run(
                lambda connection: fence.raise_epoch(connection, row.node, row.epoch)
            )
        # One that hangs in a transaction holds its row; the next beat comes back to it.
        with self._database.reading() as connection:
            fence.end_sessions(connection, row.node, row.instance)

    def _settle(self, others: Mapping[str, NodeRow]) -> None:
        if self._settler is not None and self._settler.is_alive():
            return
        open_ones = [row for row in others.values() if row.is_unsettled]
        on_dead = self.on_dead
        if not open_ones or on_dead is None:
            return

        def settle() -> None:
            for row in open_ones:
                with suppress(Exception):
                    on_dead(row.node, row.epoch)

        self._settler = threading.Thread(
            target=settle, name="hsm-core-settler", daemon=True
        )
        self._settler.start()

    def _lost(self, standing: fence.Standing) -> NodeFencedError:
        """Return the error of a node that is fenced, and perhaps too old to return."""
        if standing.level > self._level:
            return NodeOutdatedError(_LEVEL_SENTENCE % standing.level)
        if standing.epoch >= self._epoch:
            return _fenced(self.node)
        return NodeFencedError(
            f"The fence of this node, {self.node}, was removed or reset in the "
            f"database: it is at epoch {standing.epoch}, and was at {self._epoch}. "
            "Restart the node, and recover the store."
        )

    def _stop(self, error: NodeFencedError) -> NodeFencedError:
        """Note that this process is a node no more, tell, and return the error."""
        if self._stopped is None:
            self._stopped = error
            with suppress(Exception):
                self.on_stop(error)
        return self._stopped


_LEVEL_SENTENCE: Final = (
    "The cluster was upgraded to level %d, which this release does not support. "
    "Install the release that the other nodes run."
)


def _fenced(node: str) -> NodeFencedError:
    return NodeFencedError(
        f"This node, {node}, was fenced: another node considered it dead, or "
        "another process uses its name. Restart it."
    )


def _is_taken(node: str) -> StoreLockedError:
    return StoreLockedError(
        f"Another process is node {node} of this cluster. Stop it, or choose another "
        "node_name."
    )


def _free(
    database: ClusterDatabase, node: str, instance: str, dead: float
) -> fence.Standing:
    """Return the state of a name that no living process has."""
    seen = _standing(database, node)
    began = time.monotonic()
    while seen.instance and seen.instance != instance:
        if time.monotonic() - began >= dead:
            break
        time.sleep(_LOOK_SECONDS)
        found = _standing(database, node)
        if found.instance and (found.epoch, found.beat) != (seen.epoch, seen.beat):
            raise _is_taken(node)
        seen = found
    return seen


def _standing(database: ClusterDatabase, node: str) -> fence.Standing:
    with database.reading() as connection:
        return fence.read_standing(connection, node)


def _enter(
    database: ClusterDatabase,
    node: str,
    instance: str,
    before: fence.Standing,
    level: int,
) -> int | None:
    """Take the name in one transaction with the node's row; see `join`."""

    def work(connection: ServerConnection) -> int | None:
        # The fence first, as in a change that the process of before may be making.
        epoch = fence.take(connection, node, instance, before.epoch)
        floor = read_level(connection)
        if floor > level:
            raise ConfigurationError(_LEVEL_SENTENCE % floor, field="node_name")
        if epoch is not None:
            enter(connection, node, level)
        return epoch

    return database.run(work)

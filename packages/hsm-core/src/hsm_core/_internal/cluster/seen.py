# SPDX-License-Identifier: MIT
"""Database of a cluster compared with what a node has seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Final

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.cluster.mark import (
    LastSeenMark,
    OlderDatabase,
    SeenEnd,
    compare,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.errors import AuditTamperedError, Fact, HSMLockedError

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.audit_logs import ReadableLog

_REVISION: Final = "SELECT revision FROM cluster"
_HEAD: Final = "SELECT head FROM changes WHERE revision = $1"


class SeenDatabase:
    """
    Database as this node has seen it. Thread-safe.

    Args:
        mark: Last-seen mark of this node.

        database: Database of the cluster.

        log_of: Returns an audit log, by its ID.

        own_log: ID of this node's log.

        epoch: Returns the epoch of this node.

        was_here: Whether the cluster knew the node when it joined.

    Attributes:
        mark: The same.
    """

    def __init__(
        self,
        mark: LastSeenMark,
        database: ClusterDatabase,
        log_of: Callable[[str], ReadableLog],
        own_log: str,
        epoch: Callable[[], int],
        *,
        was_here: bool,
    ) -> None:
        self.mark = mark
        self._database = database
        self._log_of = log_of
        self._own_log = own_log
        self._epoch = epoch
        self._is_lost = was_here and mark.before is None
        self._notes = False

    def finding(self) -> str:
        """Return what is wrong with the mark, for people; empty if nothing."""
        if self._is_lost:
            return (
                "This node was in the cluster before, but its last-seen mark is "
                "missing, so this start could not detect an older database. Keep the "
                "mark on a persistent volume."
            )
        return self.mark.failure

    def find_older(self) -> OlderDatabase | None:
        """
        Return how the database is older than what was seen; None if it is not.

        Raises:
            UnavailableError: It can't be read.
        """
        # First: what other threads note meanwhile may be newer than what is read.
        seen = self.mark.seen
        found = self._database.row(_REVISION)
        revision = found[0] if found else -1
        older = compare(seen, revision, self._head, self._end)
        return older or self._find_older_fence(seen.epoch)

    def _find_older_fence(self, seen: int) -> OlderDatabase | None:
        """
        Return how the fence of this node is older than what was seen of it.

        An epoch that came again would let a process in that was stopped long ago.
        """
        epoch = self._epoch()
        if not seen and not self._notes and self._log_of(self._own_log).leaf_at(0):
            seen = 1  # Who has written a log had an epoch.
        # A start takes an epoch of its own.
        if epoch + self._notes > seen:
            return None
        return OlderDatabase(
            "The fence of this node was removed or reset in the database: it is at "
            f"epoch {epoch}, and this node has had epoch {seen}.",
            {"reason": "fence_older", "epoch": epoch, "seen": seen},
        )

    def why_older(self) -> tuple[str, Mapping[str, Fact]]:
        """Return the reason to lock the HSM, and its facts; empty if there is none."""
        older = self.find_older()
        return (older.reason, older.facts) if older else ("", {})

    def check(self, lock: Callable[[str, Mapping[str, Fact]], None]) -> None:
        """
        Lock the HSM if the database is older, as after a fail-over that lost something.

        Args:
            lock: Locks it.

        Raises:
            HSMLockedError: It is older.
            UnavailableError: It can't be read.
        """
        reason, facts = self.why_older() if self._notes else ("", {})
        if reason:
            lock(reason, facts)
            raise HSMLockedError(f"The HSM is locked. {reason}", **facts)

    def begin(self, changes: Changes) -> None:
        """Note from now on what is applied and written."""
        self._notes = True
        self.mark.note_epoch(self._epoch())
        self.mark.note_change(*changes.applied)
        changes.on_position(lambda position: self.mark.note_change(*position))

    def written(self, end: HeadMark) -> None:
        """Note the end of this node's log; before its records are answered."""
        if self._notes and end.seq >= 0:
            self.mark.note_epoch(self._epoch())
            self.mark.note_logs({self._own_log: SeenEnd(end.seq, end.leaf_hash)})

    def note_heads(
        self, heads: Mapping[str, SeenEnd], ended: Set[str] = frozenset()
    ) -> None:
        """
        Note ends of the logs of other nodes.

        Args:
            heads: The ends.

            ended: IDs of logs that are to be noted no more.
        """
        ended = self.mark.seen.logs.keys() & ended - {self._own_log}
        if self._notes and (heads or ended):
            self.mark.note_logs(heads, ended)

    def accept(self, changes: Changes) -> None:
        """Take the database as it is now, whatever was seen of it before."""
        self.mark.begin_again(*changes.applied)
        if not self._notes:
            self.begin(changes)

    def _head(self, revision: int) -> bytes | None:
        found = self._database.row(_HEAD, (revision,))
        return found[0] if found else None

    def _end(self, log_id: str, seq: int) -> SeenEnd | None:
        try:
            found = self._log_of(log_id).leaf_at(seq)
        except AuditTamperedError:
            return None
        return SeenEnd(found.seq, found.leaf_hash) if found else None

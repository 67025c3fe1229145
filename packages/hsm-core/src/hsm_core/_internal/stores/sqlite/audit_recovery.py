# SPDX-License-Identifier: MIT
"""
Recovery of an audit log in SQLite at opening.

SQLite has undone what was not committed, so there is no torn tail: the records end
where the head mark says, or somebody changed them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import OpenIntents
from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.mark import HeadCodec, HeadMark, StoredHead
from hsm_core._internal.audit.pruned import PrunedPrefix
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.replay import IntentReplay
from hsm_core._internal.stores.sqlite.audit_rows import (
    APPLICATION_ID,
    SCHEMA,
    check_schema,
    first_row,
    follow_rows,
    head_row,
    read_baseline,
    read_head,
    read_rows,
)
from hsm_core._internal.stores.sqlite.connection import MigrationStep, Schema
from hsm_core.model import AuditEvent

if TYPE_CHECKING:
    import sqlite_utils


@dataclass(slots=True)
class RecoveredDatabase:
    """
    Recovered audit log, ready for appending.

    Attributes:
        head: The head mark as it is stored.
        mark: The end of the trail.
        intents: Intents without outcome up to there.
        open_events: The same, as events.
        baseline: What is kept of the records before it.
        leftovers: Records before it are there, for their removal was interrupted.
    """

    head: StoredHead
    mark: HeadMark
    intents: OpenIntents
    open_events: list[AuditEvent]
    baseline: Baseline | None
    leftovers: bool


def schema_of(hmac_key: bytes, log_id: str) -> Schema:
    """
    Return the schema of a trail, which has its head mark from the beginning on.

    Args:
        hmac_key: Key of the trail.

        log_id: Of the trail if it is new.
    """

    def create(tables: sqlite_utils.Database) -> None:
        for statement in SCHEMA.values():
            tables.execute(statement)
        content = head_row(HeadCodec(hmac_key, log_id), 0, HeadMark())
        tables.execute("INSERT INTO head VALUES (0, ?)", (content,))

    step: MigrationStep = create
    return Schema(APPLICATION_ID, (step,))


def recover(connection: sqlite3.Connection, hmac_key: bytes) -> RecoveredDatabase:
    """
    Verify a trail as far as its head mark asks for it; nothing is written.

    Args:
        connection: Open on the trail.

        hmac_key: Key of the trail.

    Raises:
        WrongAuditKeyError: The key is not the trail's.
        AuditTamperedError: The trail is not what we left.
        AuditUnavailableError: It can't be read.
    """
    check_schema(connection)
    head = read_head(connection, hmac_key)
    baseline = read_baseline(connection, head.log_id, hmac_key)
    covered = baseline.header.next_seq if baseline else 0
    oldest = first_row(connection)
    leftovers = oldest is not None and oldest < covered
    first = covered if oldest is None or leftovers else oldest
    replay = _Replay(connection, hmac_key, head, PrunedPrefix(first, baseline))
    replay.run(first)
    return RecoveredDatabase(
        head=head,
        mark=replay.end(),
        intents=replay.found.intents,
        open_events=replay.found.open_events(),
        baseline=baseline,
        leftovers=leftovers,
    )


class _Replay:
    """Follows the records that the head mark, or an intent, still needs."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        hmac_key: bytes,
        head: StoredHead,
        prefix: PrunedPrefix,
    ) -> None:
        self._connection = connection
        self.found = IntentReplay(head.mark)
        self._mark = head.mark
        seq, leaf = prefix.start
        self._follower = Follower(
            log_id=head.log_id,
            hmac_key=hmac_key,
            seq=seq,
            leaf_hash=leaf,
            mark=head.mark,
        )

    def run(self, first: int) -> None:
        """Follow all of them, given the first record that is there."""
        needed = min(self._mark.floor, max(self._mark.seq, 0))
        if needed > first:
            self._stand_after(needed - 1)
        follow_rows(self._connection, self._follower, self._visit)

    def _stand_after(self, seq: int) -> None:
        for found, line in read_rows(self._connection, seq, 1):
            if found != seq:
                break
            self._follower.start_after(line, seq)
            if self._follower.seq != seq:
                break
            return
        raise tampered(Reason.SEQUENCE, seq)

    def end(self) -> HeadMark:
        """Return where the trail ends."""
        return self.found.mark(self._follower.seq, self._follower.leaf_hash)

    def _visit(self, event: AuditEvent, _leaf_hash: str) -> None:
        self.found.note(event)

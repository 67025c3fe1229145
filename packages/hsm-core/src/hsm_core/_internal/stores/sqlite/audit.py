# SPDX-License-Identifier: MIT
"""Audit log in SQLite: the same records, one per row, in their own database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_core._internal.audit.baseline import Baseline, PrunedPrefix
from hsm_core._internal.audit.chain import Chain, Follower, IntentReplay, OpenIntents
from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark, StoredHead
from hsm_core._internal.audit.log import TrailLog, TrailOptions
from hsm_core._internal.audit.medium import Cause, MediumError
from hsm_core._internal.audit.record import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    DiskReserve,
    audit_errors,
    check_file,
    reserve_name,
)
from hsm_core._internal.stores.sqlite.audit_beside import (
    ExternalHeadMark,
    check_beside,
    read_beside,
)
from hsm_core._internal.stores.sqlite.audit_medium import SqliteMedium
from hsm_core._internal.stores.sqlite.audit_pruning import RowPruner
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
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import AuditTamperedError, AuditUnavailableError, IntegrityError
from hsm_core.model import AuditEvent, Phase, PruneDetail
from hsm_core.protocols import AuditDraft

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


class SqliteAuditLog(TrailLog):
    """An `AuditLog` in a SQLite database; `open` makes one."""

    def __init__(
        self,
        chain: Chain,
        medium: SqliteMedium,
        reserve: DiskReserve,
        pruner: RowPruner,
        *,
        options: TrailOptions,
        open_events: Sequence[AuditEvent],
    ) -> None:
        self._database_medium = medium
        self._pruner = pruner
        super().__init__(
            chain, medium, reserve, pruner, options=options, open_events=open_events
        )

    def backup(self, to: Path, before_end: Callable[[], None]) -> None:
        """Copy the trail, in use, into a new file; see `Database.backup`."""
        self._database_medium.backup(to, before_end)

    @classmethod
    def open(cls, path: Path, options: TrailOptions) -> SqliteAuditLog:
        """
        Open a trail, or begin one.

        Args:
            path: The database; its directory is made with mode 0700 if absent.

            options: How it is written.

        Raises:
            WrongAuditKeyError: The key is not the trail's; no record was written.
            AuditTamperedError: The trail is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            StoreLockedError: Another process has this trail.
            UnsafeFileModeError: Others could read or write a file of the trail.
            ConfigurationError: The database is of another kind or a newer release.
            AuditUnavailableError: The trail can't be read or written.
        """
        path, hmac_key = path.absolute(), options.hmac_key
        with ExitStack() as stack, audit_errors():
            check_file(path.with_name(reserve_name(path.name)))
            stored = read_beside(path, hmac_key)
            database = _open(path, options, stored)
            stack.callback(database.close)
            recovered = _recover(database, hmac_key, stored)
            log_id = recovered.head.log_id
            beside = ExternalHeadMark(path, hmac_key, log_id, stored)
            stack.callback(beside.close)
            medium = SqliteMedium(database, hmac_key, recovered.head, beside)
            reserve = DiskReserve(
                path.with_name(reserve_name(path.name)), options.reserve_bytes
            )
            stack.callback(reserve.close)
            _begin(medium, recovered.mark, reserve)
            pruner = RowPruner(database, medium, log_id, hmac_key, recovered.baseline)
            if recovered.leftovers:
                with suppress(AuditUnavailableError):
                    pruner.remove()
            log = cls(
                options.chain(log_id, recovered.mark, recovered.intents),
                medium,
                reserve,
                pruner,
                options=options,
                open_events=recovered.open_events,
            )
            stack.pop_all()
        return log

    def _prune(self, end: int, policy: str, head: int) -> PruneDetail | None:
        if self._database_medium.prunes:
            raise AuditUnavailableError("An earlier prune is not recorded yet.")
        self._pruner.remove()
        if end <= self.first_seq:
            return None
        baseline, lines = self._pruner.gather(end, policy, head)
        self._pruner.stage(end, lines)
        self._record(baseline)
        failpoint("audit.prune.after_record")
        self._pruner.remove()
        return baseline.detail

    def _record(self, baseline: Baseline) -> None:
        draft = AuditDraft(
            phase=Phase.SINGLE, kind="system.prune", detail=baseline.detail
        )

        def adopt() -> None:
            self._pruner.baseline = baseline

        with self._lock:
            self._flusher.check(reserved=True)
            written = self._chain.extend([draft], self._clock.now())
            next_seq = baseline.header.next_seq
            self._database_medium.prune_with(self._chain.seq, next_seq, adopt)
            ticket = self._flusher.enqueue(written, durable=True)
        ticket.wait()


def _begin(medium: SqliteMedium, mark: HeadMark, reserve: DiskReserve) -> None:
    """Begin; on a full disk with the room that an earlier process kept back."""
    try:
        medium.begin(mark)
    except MediumError as error:
        if error.cause is not Cause.FULL or not (reserve.take() and reserve.give_up()):
            raise
        medium.begin(mark)


def _open(path: Path, options: TrailOptions, stored: StoredHead | None) -> Database:
    log_id = stored.log_id if stored else options.new_log_id()
    try:
        return Database(path, schema_of(options.hmac_key, log_id))
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error


def _recover(
    database: Database, hmac_key: bytes, stored: StoredHead | None
) -> RecoveredDatabase:
    # It may have been read before another process let go of the trail.
    stored = stored and read_beside(database.path, hmac_key)
    try:
        with database.reading() as connection:
            recovered = recover(connection, hmac_key)
            if stored is not None:
                check_beside(connection, stored, recovered.head)
            return recovered
    except AuditTamperedError:
        raise
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error

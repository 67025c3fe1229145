# SPDX-License-Identifier: MIT
"""Audit log in SQLite: the same records, one per row, in their own database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark, StoredHead
from hsm_core._internal.audit.log import AuditOptions, DurableAuditLog
from hsm_core._internal.audit.medium import Reserve
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.verify import RecoveredLog, recover
from hsm_core._internal.stores.audit_rows import StoredRows, head_row
from hsm_core._internal.stores.filesystem.audit_files import (
    HEAD,
    RESERVE,
    DiskReserve,
    audit_errors,
    check_file,
)
from hsm_core._internal.stores.filesystem.audit_head import (
    HeadFile,
    create_head,
    read_head,
)
from hsm_core._internal.stores.filesystem.opening import sibling
from hsm_core._internal.stores.sqlite.audit_medium import SqliteMedium
from hsm_core._internal.stores.sqlite.audit_rows import (
    APPLICATION_ID,
    SCHEMA,
    SqliteTables,
    check_beside,
    check_schema,
)
from hsm_core._internal.stores.sqlite.connection import MigrationStep, Schema
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import AuditTamperedError, AuditUnavailableError, IntegrityError

if TYPE_CHECKING:
    import sqlite_utils


def schema_of(hmac_key: bytes, log_id: str) -> Schema:
    """
    Return the schema of a log, which has its head mark from the beginning on.

    Args:
        hmac_key: Key of the log.

        log_id: Of the log if it is new.
    """

    def create(tables: sqlite_utils.Database) -> None:
        for statement in SCHEMA.values():
            tables.execute(statement)
        content = head_row(HeadCodec(hmac_key, log_id), 0, HeadMark())
        tables.execute("INSERT INTO head VALUES (0, ?)", (content,))

    step: MigrationStep = create
    return Schema(APPLICATION_ID, (step,))


class SqliteAuditLog(DurableAuditLog):
    """An `AuditLog` in a SQLite database; `open` makes one."""

    def __init__(
        self,
        medium: SqliteMedium,
        reserve: Reserve,
        recovered: RecoveredLog,
        options: AuditOptions,
    ) -> None:
        super().__init__(medium, reserve, recovered, options)
        self._rows = medium

    def backup(self, to: Path, before_end: Callable[[], None]) -> None:
        """Copy the log, in use, into a new file; see `Database.backup`."""
        self._rows.backup(to, before_end)

    @classmethod
    def open(cls, path: Path, options: AuditOptions) -> SqliteAuditLog:
        """
        Open a log, or begin one.

        Args:
            path: The database; its directory is made with mode 0700 if absent.

            options: How it is written.

        Raises:
            WrongAuditKeyError: The key is not the log's; no record was written.
            AuditTamperedError: The log is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            StoreLockedError: Another process has this log.
            UnsafeFileModeError: Others could read or write a file of the log.
            ConfigurationError: The database is of another kind or a newer release.
            AuditUnavailableError: The log can't be read or written.
        """
        path, hmac_key = path.absolute(), options.hmac_key
        with ExitStack() as stack, audit_errors(path):
            check_file(sibling(path, RESERVE))
            stored = read_head(sibling(path, HEAD), hmac_key)
            database = _open(path, options, stored)
            stack.callback(database.close)
            recovered, has_leftovers = _recover(database, hmac_key, stored)
            log_id = recovered.head.log_id
            if stored is None:
                create_head(sibling(path, HEAD), hmac_key, log_id)
            beside = HeadFile(sibling(path, HEAD), hmac_key)
            stack.callback(beside.close)
            medium = SqliteMedium(database, hmac_key, recovered.head, beside)
            reserve = DiskReserve(sibling(path, RESERVE), options.reserve_bytes)
            stack.callback(reserve.close)
            reserve.run(lambda: medium.begin(recovered.end.mark))
            if has_leftovers and recovered.baseline is not None:
                with suppress(AuditUnavailableError):
                    medium.remove(recovered.baseline.header.next_seq)
            log = cls(medium, reserve, recovered, options)
            stack.pop_all()
        return log


def _open(path: Path, options: AuditOptions, stored: StoredHead | None) -> Database:
    log_id = stored.log_id if stored else options.new_log_id()
    try:
        return Database(path, schema_of(options.hmac_key, log_id))
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error


def _recover(
    database: Database, hmac_key: bytes, beside: StoredHead | None
) -> tuple[RecoveredLog, bool]:
    """Recover; return whether pruned records are left too."""
    # It may have been read before another process let go of the log.
    beside = beside and read_head(sibling(database.path, HEAD), hmac_key)
    try:
        with database.reading() as connection:
            check_schema(connection)
            stored = StoredRows(SqliteTables(connection), hmac_key)
            recovered = recover(stored, hmac_key)
            if beside is not None:
                check_beside(connection, beside, recovered.head)
            return recovered, stored.has_leftovers
    except AuditTamperedError:
        raise
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error

# SPDX-License-Identifier: MIT
"""Audit log of a node in the database of its cluster."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark
from hsm_core._internal.audit.log import AuditOptions
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.shared_groups import ClusterView
from hsm_core._internal.audit.shared_log import SharedAuditLog
from hsm_core._internal.audit.verify import RecoveredLog, recover
from hsm_core._internal.stores.audit_rows import StoredRows, head_row, read_head
from hsm_core._internal.stores.postgresql.audit_medium import PostgresMedium
from hsm_core._internal.stores.postgresql.audit_rows import PostgresTables, log_errors
from hsm_core._internal.stores.postgresql.connection import connect, run
from hsm_core.errors import AuditTamperedError, AuditUnavailableError

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

READ_ONE_STATE: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""Begins a transaction that sees one state of the log while others write."""

LEDGER: Final = "@ledger"
"""Name of the retention ledger among the logs; no node can have it."""

_FIND: Final = "SELECT log_id FROM logs WHERE node = $1"
_CREATE: Final = (
    "INSERT INTO logs (log_id, node, head) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
)


class NoReserve:
    """Reserve of a log whose disk is another machine's: there is nothing to keep."""

    held: Final = True

    def take(self) -> bool:
        """Return True."""
        return True

    def give_up(self) -> bool:
        """Return False: nothing was held."""
        return False

    def close(self) -> None:
        """Do nothing."""


class PostgresAuditLog(SharedAuditLog):
    """An `AuditLog` of one node in PostgreSQL; `open` makes one."""

    @classmethod
    def open(
        cls,
        database: ClusterDatabase,
        options: AuditOptions,
        view: ClusterView,
    ) -> PostgresAuditLog:
        """
        Open the log of a node, or begin it.

        Args:
            database: Of the cluster. The node's name is this process's alone.

            options: How it is written; the node names the log.

            view: The cluster, as this node sees it.

        Raises:
            WrongAuditKeyError: The key is not the log's; no record was written.
            AuditTamperedError: The log is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            ConfigurationError: The server does not keep what it acknowledges.
            AuditUnavailableError: The log can't be read or written.
        """
        with ExitStack() as stack, log_errors():
            connection = connect(database.location)
            stack.callback(connection.close)
            log_id = _begin(connection, options)
            recovered, has_leftovers = _recover(connection, log_id, options.hmac_key)
            medium = PostgresMedium(
                database,
                connection,
                options.hmac_key,
                recovered.head,
                view,
                options.timeout_seconds,
            )
            medium.begin(recovered.end.mark)
            if has_leftovers and recovered.baseline is not None:
                with suppress(AuditUnavailableError):
                    medium.remove(recovered.baseline.header.next_seq)
            log = cls(medium, NoReserve(), recovered, options, view)
            stack.pop_all()
        return log


def check_known(database: ClusterDatabase, log_id: str, hmac_key: bytes) -> None:
    """
    Check that the first log of a cluster, which its key ring names, is there.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It is missing, or its head mark was altered.
        AuditUnavailableError: It can't be read.
    """
    with log_errors(), database.reading() as connection:
        tables = PostgresTables(connection, log_id)
        if not tables.heads():
            raise AuditTamperedError(
                f"The key store belongs to the audit log {log_id}, but the database "
                "has none of this ID.",
                seq=0,
                reason="missing",
            )
        read_head(tables, hmac_key)


def _begin(connection: ServerConnection, options: AuditOptions) -> str:
    """Return the id of the node's log; begin it if there is none."""
    row = run(connection, _FIND, (options.node,)).fetchone()
    if row is None:
        log_id = options.new_log_id()
        head = head_row(HeadCodec(options.hmac_key, log_id), 0, HeadMark())
        run(connection, _CREATE, (log_id, options.node, head))
        row = run(connection, _FIND, (options.node,)).fetchone()
    if row is None:
        raise AuditUnavailableError
    return str(row[0])


def _recover(
    connection: ServerConnection, log_id: str, hmac_key: bytes
) -> tuple[RecoveredLog, bool]:
    """Recover a log; return whether pruned records are left too."""
    run(connection, READ_ONE_STATE)
    stored = StoredRows(PostgresTables(connection, log_id), hmac_key)
    if stored.head is not None and stored.head.log_id != log_id:
        raise tampered(Reason.LOG_ID, 0)
    recovered = recover(stored, hmac_key)
    run(connection, "COMMIT")
    return recovered, stored.has_leftovers

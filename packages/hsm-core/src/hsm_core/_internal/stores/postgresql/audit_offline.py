# SPDX-License-Identifier: MIT
"""
Verification of the audit logs of a cluster by another process.

All of them are read in one transaction, so in one state, whatever the nodes do. Nothing
is written, and memory does not grow with the uses that the logs record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hsm_core._internal.audit.cluster import Note, VerifiedLog, verify_logs
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.audit.verify import (
    Look,
    OfflineVerification,
    StoredLog,
    verify_log,
)
from hsm_core._internal.stores.audit_rows import StoredRows
from hsm_core._internal.stores.postgresql.audit import LEDGER, READ_ONE_STATE
from hsm_core._internal.stores.postgresql.audit_logs import (
    LogName,
    ledger_id,
    log_names,
)
from hsm_core._internal.stores.postgresql.audit_rows import PostgresTables, log_errors
from hsm_core._internal.stores.postgresql.connection import Location, connect, run
from hsm_core._internal.stores.postgresql.migrations import check_present
from hsm_core.errors import AuditUnavailableError, ConfigurationError
from hsm_core.model import AuditEvent

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_PATIENCE_SECONDS: Final = 60.0


class _StoredNamedLog:
    """A `NamedLog` in the tables of a cluster."""

    def __init__(
        self, connection: ServerConnection, name: LogName, hmac_key: bytes | None
    ) -> None:
        self.log_id = name.log_id
        self.node = name.node
        self._tables = PostgresTables(connection, name.log_id)
        stored = StoredRows(self._tables, hmac_key)
        if stored.head is not None and stored.head.log_id != name.log_id:
            raise tampered(Reason.LOG_ID, 0)
        self.stored: StoredLog = stored

    def entries(self, start_seq: int, limit: int, /) -> Sequence[tuple[int, bytes]]:
        """Return up to *limit* entries from *start_seq* on, with their numbers."""
        with log_errors(max(start_seq, 0)):
            return list(self._tables.rows(start_seq, limit))


class ClusterState:
    """
    Logs of a cluster in one state.

    Args:
        connection: It sees that state.

        name: What messages call the database.

        hmac_key: None verifies the chains only.
    """

    def __init__(
        self, connection: ServerConnection, name: str, hmac_key: bytes | None
    ) -> None:
        self._connection = connection
        self._name = name
        self._hmac_key = hmac_key

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
        note: Note | None = None,
    ) -> list[VerifiedLog]:
        """
        Verify all audit logs; see `verify_logs`.

        Raises:
            HSMError: See `ClusterVerifier.verify`.
        """
        names = log_names(self._connection)
        if not names:
            raise ConfigurationError(f"{self._name} has no audit log.")
        logs = [_StoredNamedLog(self._connection, n, self._hmac_key) for n in names]
        return verify_logs(logs, self._hmac_key, progress, look, note)

    @property
    def ledger(self) -> LedgerVerifier | None:
        """
        The retention ledger; None if there is none.

        Raises:
            AuditTamperedError: Its head mark is missing, or was altered.
        """
        log_id = ledger_id(self._connection)
        if not log_id:
            return None
        name = LogName(log_id, LEDGER)
        log = _StoredNamedLog(self._connection, name, self._hmac_key)
        return LedgerVerifier(log.stored, self._hmac_key)


class LedgerVerifier:
    """
    Verifies the retention ledger of a cluster.

    Args:
        stored: Its records.

        hmac_key: None verifies the chain only.
    """

    def __init__(self, stored: StoredLog, hmac_key: bytes | None) -> None:
        self._stored = stored
        self._hmac_key = hmac_key

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> OfflineVerification:
        """
        Verify every record of it.

        Args:
            progress: Called now and then with the number of records verified.

            look: Called with each good record.

        Raises:
            AuditTamperedError: It is damaged.
        """

        def show(record: bytes, seq: int) -> None:
            if look is not None:
                look(event_of(record, seq))

        return verify_log(self._stored, self._hmac_key, progress, show)


class ClusterVerifier:
    """
    Verifies the logs of a cluster, in use or not.

    Args:
        location: Of the database.

        hmac_key: None verifies the chains only.
    """

    def __init__(self, location: Location, hmac_key: bytes | None) -> None:
        self._location = location
        self._hmac_key = hmac_key

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> list[VerifiedLog]:
        """
        Verify every record of every log, and what the logs say of each other.

        Args:
            progress: Called now and then with the number of records verified.

            look: Called with each good record; its exceptions end the verification.

        Raises:
            AuditTamperedError: A log is damaged, or they contradict each other;
                ``facts`` name the log as ``log_id``, the first bad record as ``seq``
                and the ``reason``.
            WrongAuditKeyError: The key is not theirs.
            ConfigurationError: There is no cluster, or it can't be read.
        """
        with self.opened() as state:
            return state.verify(progress, look)

    @contextmanager
    def opened(self) -> Iterator[ClusterState]:
        """
        Give the logs of the cluster in one state.

        Raises:
            HSMError: See `verify`.
        """
        with self._opened() as connection:
            yield ClusterState(connection, self._location.name, self._hmac_key)

    def read(self, log_id: str, look: Look, look_from: int = 0) -> OfflineVerification:
        """
        Verify one log, and show records from one on.

        Args:
            log_id: 32 hex digits.

            look: Called with each of them, facts line and entry, and its seq.

            look_from: The first; a negative number counts from the end that the head
                mark names.

        Raises:
            HSMError: See `verify`.
        """
        with self._opened() as connection:
            for name in log_names(connection):
                if name.log_id == log_id:
                    log = _StoredNamedLog(connection, name, self._hmac_key)
                    key = self._hmac_key
                    return verify_log(log.stored, key, None, look, look_from)
        raise ConfigurationError(f"{self._location.name} has no audit log {log_id}.")

    @contextmanager
    def _opened(self) -> Iterator[ServerConnection]:
        """Give a connection that sees one state of a cluster's tables."""
        connection = connect(self._location)
        try:
            connection.patience = _PATIENCE_SECONDS
            with log_errors():
                check_present(connection, self._location.name)
                run(connection, READ_ONE_STATE)
                yield connection
        except AuditUnavailableError as error:
            raise ConfigurationError(
                f"The audit logs of {self._location.name} can't be read."
            ) from error
        finally:
            connection.abandon()

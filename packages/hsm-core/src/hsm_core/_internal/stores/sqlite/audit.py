# SPDX-License-Identifier: MIT
"""The trail in SQLite: the same records, one to a row, in a database of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.naming import reserve_name
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.stores.sqlite.audit_medium import SqliteMedium
from hsm_core._internal.stores.sqlite.audit_recovery import (
    Recovered,
    recover,
    schema_of,
)
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.trail.log import TrailLog
from hsm_core._internal.stores.trail.reserve import Reserve
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
    IntegrityError,
    StoreUnavailableError,
)
from hsm_core.protocols import Clock, Entropy
from hsm_core.settings import AuditSync

__all__ = ["SqliteAuditLog"]

_MIN_KEY_BYTES: Final = 32
_LOG_ID_BYTES: Final = 16


class SqliteAuditLog(TrailLog):
    """An `AuditLog` in a SQLite database; `open` makes one."""

    @classmethod
    def open(
        cls,
        path: Path,
        hmac_key: bytes,
        *,
        clock: Clock,
        entropy: Entropy,
        sync: AuditSync,
        timeout_seconds: float,
        node: str,
        reserve_bytes: int,
    ) -> SqliteAuditLog:
        """
        Open a trail, or begin one.

        Args:
            path: The database; its directory is made with mode 0700 if absent.

            hmac_key: At least 32 bytes; what all keys of the trail are derived from.

            clock: Gives the time of each record.

            entropy: Gives the id of a new trail.

            sync: When a ticket is done.

            timeout_seconds: How long an append may take before it fails.

            node: Name of this node in the trail.

            reserve_bytes: Disk space kept back for when the disk is full.

        Raises:
            WrongAuditKeyError: The key is not the trail's; no record was written.
            AuditTamperedError: The trail is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            StoreLockedError: Another process has this trail.
            UnsafeFileModeError: Others could read or write a file of the trail.
            ConfigurationError: The HMAC key is too short, or the database is of
                another kind or a newer release.
            AuditUnavailableError: The trail can't be read or written.
        """
        if len(hmac_key) < _MIN_KEY_BYTES:
            raise ConfigurationError(
                f"The HMAC key must have at least {_MIN_KEY_BYTES} bytes."
            )
        path = path.absolute()
        with ExitStack() as stack:
            database = _open(path, hmac_key, entropy)
            stack.callback(database.close)
            recovered = _recover(database, hmac_key)
            medium = SqliteMedium(database, hmac_key, recovered.head)
            chain = Chain(
                log_id=recovered.head.log_id,
                hmac_key=hmac_key,
                node=node,
                mark=recovered.mark,
                intents=recovered.intents,
            )
            log = cls(
                chain,
                medium,
                Reserve(path.with_name(reserve_name(path.name)), reserve_bytes),
                clock=clock,
                sync=sync,
                timeout_seconds=timeout_seconds,
                open_events=recovered.open_events,
            )
            stack.pop_all()
        return log


def _open(path: Path, hmac_key: bytes, entropy: Entropy) -> Database:
    log_id = entropy.random_bytes(_LOG_ID_BYTES).hex()
    try:
        return Database(path, schema_of(hmac_key, log_id))
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error
    except StoreUnavailableError as error:
        raise AuditUnavailableError from error


def _recover(database: Database, hmac_key: bytes) -> Recovered:
    try:
        with database.reading() as connection:
            return recover(connection, hmac_key)
    except AuditTamperedError:
        raise
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, 0) from error
    except StoreUnavailableError as error:
        raise AuditUnavailableError from error

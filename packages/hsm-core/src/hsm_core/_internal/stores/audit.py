# SPDX-License-Identifier: MIT
"""The audit log and the retention ledger that the settings name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from hsm_core._internal.audit.log import AuditOptions
from hsm_core._internal.stores.filesystem.audit import FileAuditLog, log_exists
from hsm_core._internal.stores.filesystem.opening import path_exists
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core.errors import AuditTamperedError, ConfigurationError
from hsm_core.model import RepairDetail
from hsm_core.protocols import AuditLog, Clock, Entropy
from hsm_core.settings import AuditStoreKind, AuditSync, KeyStoreKind, Settings

if TYPE_CHECKING:
    from hsm_core._internal.audit.shared_groups import ClusterView
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase

_LEDGER_RESERVE_BYTES: Final = 64 * 1024
"""Room for the outcomes of purges whose intent was written; a sweep has one at most."""


def open_audit_log(
    settings: Settings,
    hmac_key: bytes,
    clock: Clock,
    entropy: Entropy,
    *,
    known_id: str | None,
    database: ClusterDatabase | None = None,
    view: ClusterView | None = None,
) -> AuditLog:
    """
    Open the log that the settings name, or begin it.

    Args:
        settings: Where it lies.

        hmac_key: 32 bytes.

        clock: Gives the time of each record.

        entropy: Gives the id of a new log.

        known_id: Id of the log that belongs to the key store; None for a new one.

        database: Of the cluster, where the log of each node lies in one.

        view: The cluster, as its node sees it.

    Raises:
        ConfigurationError: A setting or a key is wrong; nothing was written.
        AuditTamperedError: It is damaged, missing, or another store's.
        AuditUnavailableError: It can't be read or written.
    """
    if database is not None and view is not None:
        from hsm_core._internal.stores.postgresql.audit import (
            PostgresAuditLog,
            check_known,
        )

        if known_id is not None:
            check_known(database, known_id, hmac_key)
        options = _options(settings, hmac_key, clock, entropy)
        return PostgresAuditLog.open(database, options, view)
    if settings.audit_store == AuditStoreKind.SQLITE:
        path = settings.audit_sqlite_path
        if known_id is not None and not path_exists(path):
            _refuse_missing(known_id, path)
        options = _options(settings, hmac_key, clock, entropy)
        audit: AuditLog = SqliteAuditLog.open(path, options)
    elif settings.audit_log is not None:
        path = settings.audit_log
        if known_id is not None and not log_exists(path):
            _refuse_missing(known_id, path)
        options = _options(settings, hmac_key, clock, entropy)
        size = settings.audit_segment_bytes
        audit = FileAuditLog.open(path, options, segment_bytes=size)
    elif settings.key_store == KeyStoreKind.MEMORY:
        return MemoryAuditLog(hmac_key, clock=clock, entropy=entropy)
    else:
        raise ConfigurationError(
            "audit_log is required: only a memory key store can keep its audit "
            "log in memory.",
            field="audit_log",
        )
    if known_id is not None and known_id != audit.log_id:
        audit.close()
        raise AuditTamperedError(
            "The audit log belongs to another key store.", seq=0, reason="log_id"
        )
    return audit


def open_cluster_ledger(
    settings: Settings,
    hmac_key: bytes,
    clock: Clock,
    entropy: Entropy,
    database: ClusterDatabase,
    view: ClusterView,
) -> AuditLog:
    """
    Open the retention ledger of a cluster, or begin it; one node at a time may.

    Raises:
        AuditTamperedError: It is damaged.
        AuditUnavailableError: It can't be read or written.
    """
    from hsm_core._internal.stores.postgresql.audit import LEDGER, PostgresAuditLog

    options = _options(settings, hmac_key, clock, entropy)
    options = replace(options, node=LEDGER)
    return PostgresAuditLog.open(database, options, view)


def open_ledger(
    settings: Settings, hmac_key: bytes, clock: Clock, entropy: Entropy
) -> AuditLog | None:
    """
    Open the retention ledger, or begin it; None where there is to be none.

    Raises:
        ConfigurationError: A setting or the key is wrong; nothing was written.
        AuditTamperedError: It is damaged.
        AuditUnavailableError: It can't be read or written.
    """
    path = settings.retention_ledger
    if path is None or settings.retention_config is None:
        if path is None and settings.retention_config is not None:
            raise ConfigurationError(
                "retention_config needs retention_ledger, which attests every purge.",
                field="retention_ledger",
            )
        return None
    careful = msgspec.structs.replace(
        settings,
        audit_sync=AuditSync.STRICT,
        audit_reserve_bytes=_LEDGER_RESERVE_BYTES,
    )
    options = _options(careful, hmac_key, clock, entropy)
    return FileAuditLog.open(path, options, segment_bytes=settings.audit_segment_bytes)


def recover_fork(
    path: Path, hmac_key: bytes, clock: Clock, entropy: Entropy
) -> RepairDetail:
    """Recover a forked log in files; see `FileAuditLog.recover_fork`."""
    settings = Settings(audit_log=path)
    options = _options(settings, hmac_key, clock, entropy)
    size = settings.audit_segment_bytes
    return FileAuditLog.recover_fork(path, options, segment_bytes=size)


def _options(
    settings: Settings, hmac_key: bytes, clock: Clock, entropy: Entropy
) -> AuditOptions:
    return AuditOptions(
        hmac_key=hmac_key,
        clock=clock,
        entropy=entropy,
        sync=settings.audit_sync,
        timeout_seconds=settings.audit_timeout_seconds,
        node=settings.node_name,
        reserve_bytes=settings.audit_reserve_bytes,
    )


def _refuse_missing(known_id: str, path: Path) -> NoReturn:
    raise AuditTamperedError(
        f"The key store belongs to the audit log {known_id}, but none exists at "
        f"{path}.",
        seq=0,
        reason="missing",
    )

"""What the tests of the trail in SQLite share: logs to write, rows to attack."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hsm_core._internal.audit.log import AuditOptions
from hsm_core._internal.audit.verify import OfflineVerification
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core._internal.stores.sqlite.audit_offline import SqliteAuditVerifier
from hsm_core.protocols import Clock
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core.audit_support import KEY


def open_log(
    path: Path,
    *,
    key: bytes = KEY,
    clock: Clock | None = None,
    seed: int = 0,
    sync: AuditSync = AuditSync.STRICT,
    timeout_seconds: float = 20.0,
    reserve_bytes: int = 0,
) -> SqliteAuditLog:
    """Open the trail at *path*; the seed gives a new one its id."""
    return SqliteAuditLog.open(
        path,
        AuditOptions(
            hmac_key=key,
            clock=clock or FakeClock(),
            entropy=FakeEntropy(seed),
            sync=sync,
            timeout_seconds=timeout_seconds,
            node="node-1",
            reserve_bytes=reserve_bytes,
        ),
    )


@contextmanager
def opened(
    path: Path,
    *,
    clock: Clock | None = None,
    seed: int = 0,
    sync: AuditSync = AuditSync.STRICT,
) -> Iterator[SqliteAuditLog]:
    """Open the trail at *path* and close it in order."""
    log = open_log(path, clock=clock, seed=seed, sync=sync)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a trail that nobody has open, as an attacker would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows_of(path: Path) -> dict[int, bytes]:
    """Return all records of a trail that nobody has open."""
    with edited(path) as connection:
        return dict(connection.execute("SELECT seq, line FROM records ORDER BY seq"))


def verified(path: Path, key: bytes | None = KEY) -> OfflineVerification:
    """Verify a trail offline."""
    return SqliteAuditVerifier(path, key).verify()

# SPDX-License-Identifier: MIT
"""Audit logs that the contract suites run over: each medium, and each of its modes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Unpack

import pytest

from hsm_core._internal.cluster.membership import Membership
from hsm_core._internal.cluster.view import NodeView
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.postgresql.audit import PostgresAuditLog
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.protocols import AuditLog, Clock
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeEntropy
from tests.core.audit_support import KEY, Given, open_any, options


def _memory(folder: Path, clock: Clock) -> AuditLog:
    return MemoryAuditLog(KEY, clock=clock, entropy=FakeEntropy(), node="node-1")


def _stored(name: str, **given: Unpack[Given]) -> Callable[[Path, Clock], AuditLog]:
    return lambda folder, clock: open_any(folder / name, **given | Given(clock=clock))


def open_empty(
    name: str, request: pytest.FixtureRequest, folder: Path, clock: Clock
) -> AuditLog:
    """
    Open an empty log.

    Args:
        name: One of `LOGS`, or ``postgresql``.

        request: Gives the database.

        folder: Empty folder for files.

        clock: Gives the time of each record.
    """
    if name != "postgresql":
        return LOGS[name](folder, clock)
    database: ClusterDatabase = request.getfixturevalue("empty_logs")
    given = options(clock=clock)
    member = Membership.join(database, given.node, name, clock=clock)
    return PostgresAuditLog.open(database, given, NodeView(member, database))


LOGS: Final[dict[str, Callable[[Path, Clock], AuditLog]]] = {
    "memory": _memory,
    "strict": _stored("audit.log"),
    "bounded": _stored("audit.log", sync=AuditSync.BOUNDED),
    "segmented": _stored("audit.log", segment_bytes=4096),
    "sqlite": _stored("audit.sqlite", reserve_bytes=4096),
    "sqlite-bounded": _stored(
        "audit.sqlite", reserve_bytes=4096, sync=AuditSync.BOUNDED
    ),
}
"""What opens an empty log in a folder."""

KINDS: Final = (*LOGS, "postgresql")

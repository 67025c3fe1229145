# SPDX-License-Identifier: MIT
"""What the trail costs: P7."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from hsm_core._internal.audit.verify import AuditVerifier
from hsm_core._internal.clock import SystemClock
from hsm_core._internal.entropy import SystemEntropy
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core._internal.stores.trail.options import TrailOptions
from hsm_core.protocols import AuditLog
from hsm_core.settings import AuditSync
from tests.bench.figures import Absent, Finding, at_least, at_most
from tests.bench.harness import interleave
from tests.bench.rig import Rig
from tests.core.audit_support import KEY, draft

__all__ = ["records"]

_AT_ONCE = 500
_BATCHES = 200


def records(rig: Rig) -> list[Finding]:
    """Return what a record costs who writes one, and how quickly many are handled."""
    folder = rig.place("trail")
    found: list[Finding] = [_inline(folder / "inline" / "audit.log")]
    path = folder / "file" / "audit.log"
    with closing(_file(path)) as log:
        found.append(_appending("file", 250, log))
    with closing(_database(folder / "audit.sqlite")) as log:
        found.append(_appending("SQLite", 150, log))
    chain = Absent(
        what="`audit verify`, chain only (≥ 600 thousand/s)", why="no row yet"
    )
    return [*found, _verifying(path), chain]


def _inline(path: Path) -> Finding:
    """Measure the thread that appends; the trail's own thread writes and syncs."""
    with closing(_file(path)) as log:
        one = [draft()]

        def append(times: int) -> None:
            for _ in range(times):
                log.append(one, lazy=True)
            log.append(one).wait()

        took = interleave({"own": append}, clock=time.thread_time)["own"]
    return at_most(
        4, "a record, for the thread that writes it", 1e6 * took, "µs", "Merkle leaf"
    )


def _appending(kind: str, goal: float, log: AuditLog) -> Finding:
    """Measure wall time: chain, MAC, leaf, write and sync of many records at once."""
    many = [draft(number) for number in range(_AT_ONCE)]
    began = time.perf_counter()
    for _ in range(_BATCHES - 1):
        log.append(many)
    log.append(many, durable=True).wait()
    seconds = time.perf_counter() - began
    thousands = _BATCHES * _AT_ONCE / seconds / 1000
    return at_least(
        goal,
        f"records, {kind}",
        thousands,
        "thousand/s",
        f"wall time, {_AT_ONCE} at once, synced",
    )


def _verifying(path: Path) -> Finding:
    verifier = AuditVerifier(path, hmac_key=KEY)
    began = time.process_time()
    verified = verifier.verify().records
    thousands = verified / (time.process_time() - began) / 1000
    return at_least(
        250, "`audit verify`, chain, MAC and Merkle", thousands, "thousand/s"
    )


def _file(path: Path) -> FileAuditLog:
    return FileAuditLog.open(
        path,
        TrailOptions(
            hmac_key=KEY,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            sync=AuditSync.BOUNDED,
            timeout_seconds=60,
            node="",
        ),
        segment_bytes=64 * 1024 * 1024,
    )


def _database(path: Path) -> SqliteAuditLog:
    return SqliteAuditLog.open(
        path,
        TrailOptions(
            hmac_key=KEY,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            sync=AuditSync.BOUNDED,
            timeout_seconds=60,
            node="",
            reserve_bytes=0,
        ),
    )

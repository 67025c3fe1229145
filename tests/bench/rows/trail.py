# SPDX-License-Identifier: MIT
"""What the trail costs: P7."""

from __future__ import annotations

import statistics
import time
from collections import deque
from contextlib import closing
from pathlib import Path

from hsm_core._internal.audit.log import AuditOptions
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core._internal.time.clock import SystemClock
from hsm_core.factory import open_verifier
from hsm_core.model import AuditedCaller
from hsm_core.protocols import AuditFacts, AuditLog, AuditTicket, UseDraft
from hsm_core.settings import AuditSync
from tests.bench.figures import Finding, at_least, at_most
from tests.bench.harness import interleave, repeated
from tests.bench.rig import Rig
from tests.core.audit_support import KEY

AT_ONCE = 500
"""Records of one append, where many are wanted."""

_FACTS = AuditFacts(
    kind="Sign",
    caller=AuditedCaller(principal="alice", roles=("Operator",)),
    parameters={"message_bytes": None, "scheme": "pss"},
)
_IN_FLIGHT = 8
_BATCHES = 200
_LONG_BATCHES = 2000


def records(rig: Rig) -> list[Finding]:
    """Return what a record costs who writes one, and how quickly many are handled."""
    folder = rig.place("trail")
    found: list[Finding] = [_inline(folder / "inline" / "audit.log")]
    path = folder / "file" / "audit.log"
    with closing(_file(path)) as log:
        found.append(_appending("file", 250, log))
    database = folder / "audit.sqlite"
    with closing(_database(database)) as log:
        found.append(_appending("SQLite", 150, log))
    many = folder / "long" / "audit.log"
    with closing(_file(many)) as log:
        append_many(log, _LONG_BATCHES)
    for key, goal, what in ((KEY, 330, "chain and MAC"), (None, 640, "chain only")):
        found.append(_verifying_long(many, key, goal, f"{what}, file, 1,000,000"))
    for kind, place in (("file", path), ("SQLite", database)):
        found.append(_verifying(place, KEY, 330, f"chain and MAC, {kind}"))
        found.append(_verifying(place, None, 640, f"chain only, {kind}"))
    return found


def _inline(path: Path) -> Finding:
    """Measure the thread that appends; the trail's own thread writes and syncs."""
    with closing(_file(path)) as log:
        one = [_use()]

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
    seconds = append_many(log, _BATCHES)
    thousands = _BATCHES * AT_ONCE / seconds / 1000
    return at_least(
        goal,
        f"records, {kind}",
        thousands,
        "thousand/s",
        f"wall time, {AT_ONCE} at once, {_IN_FLIGHT} times in flight, synced",
    )


def append_many(log: AuditLog, batches: int) -> float:
    """
    Append records by 500 as several callers would, and return the seconds it took.

    Each waits for its own before it appends again: a trail that lags behind refuses
    more than so many mebibytes that wait to be written.
    """
    many = [_use(number) for number in range(AT_ONCE)]
    waiting: deque[AuditTicket] = deque()
    began = time.perf_counter()
    for _ in range(batches):
        if len(waiting) == _IN_FLIGHT:
            waiting.popleft().wait()
        waiting.append(log.append(many))
    log.append([_use()], durable=True).wait()
    return time.perf_counter() - began


def _use(number: int = 0) -> UseDraft:
    """Return the draft of a signature by one caller with one key."""
    return UseDraft(
        facts=_FACTS,
        request_id=f"request-{number}",
        numbers=(number,),
        bound=bytes(32),
    )


def _verifying(path: Path, key: bytes | None, goal: float, what: str) -> Finding:
    verifier = open_verifier(path, key)
    took = interleave({what: repeated(verifier.verify)}, rounds=5)[what]
    thousands = verifier.verify().records / took / 1000
    return at_least(goal, f"`audit verify`, {what}", thousands, "thousand/s")


def _verifying_long(path: Path, key: bytes | None, goal: float, what: str) -> Finding:
    """Measure wall time: processes share the work."""
    verifier, seconds = open_verifier(path, key), list[float]()
    for _ in range(3):
        began = time.perf_counter()
        records = verifier.verify().records
        seconds.append((time.perf_counter() - began) / records)
    thousands = 1 / statistics.median(seconds) / 1000
    return at_least(
        goal, f"`audit verify`, {what}", thousands, "thousand/s", "wall time"
    )


def _file(path: Path) -> FileAuditLog:
    return FileAuditLog.open(
        path,
        AuditOptions(
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
        AuditOptions(
            hmac_key=KEY,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            sync=AuditSync.BOUNDED,
            timeout_seconds=60,
            node="",
            reserve_bytes=0,
        ),
    )

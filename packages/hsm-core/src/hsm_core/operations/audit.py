# SPDX-License-Identifier: MIT
"""Audit log: queries and verification."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final, TypeAlias

from msgspec import Meta
from msgspec.structs import replace

from hsm_core.model import AuditEntry, Record
from hsm_core.operations.base import (
    Effect,
    Instant,
    Operation,
    PerPage,
    Route,
    Sequence53,
)

__all__ = [
    "FROM_NOW",
    "AuditPage",
    "AuditStatus",
    "AuditVerification",
    "ListAuditEvents",
    "SyncTimes",
    "VerifyAudit",
    "cursor_after",
    "following_range",
    "join_ranges",
]

FROM_NOW: Final = "now"
"""Cursor of a live view of all logs of a cluster that begins with new records."""


_LogId: TypeAlias = Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")]
_Kind: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


class AuditPage(Record, frozen=True, kw_only=True):
    """
    Page of audit records.

    Attributes:
        next_seq: Sequence number of the next page; None at the end, and in pages of all
            logs of a cluster. Views that follow the audit log always have a next page.
            Pages before the end can be short or empty, because a call scans a bounded
            number of records.
        next_cursor: Cursor of the next page of all logs of a cluster, in order of time;
            empty on the last page, and in pages of one log.
        head_seq: Sequence number of the newest record of this node's log.
        head_hash: Its leaf hash, 64 hex digits.
        head_cursor: Cursor of a live view of all logs of a cluster, of what is recorded
            after this page; only in the first page of all logs.
    """

    items: tuple[AuditEntry, ...]
    next_seq: int | None
    head_seq: int
    head_hash: str
    next_cursor: str = ""
    head_cursor: str = ""


class AuditVerification(Record, frozen=True, kw_only=True):
    """
    Result of a verification; damage raises an error instead.

    Attributes:
        start_seq: First record checked: the requested one, or the oldest record not
            pruned.
        verified: Records checked by this call.
        next_seq: Start of the next call, or None if everything up to the head is
            verified.
        head_seq: Sequence number of the newest record of the log.
        head_hash: Its leaf hash, 64 hex digits; store it elsewhere to compare later.
        node: Node of a cluster that writes the log.
        log_id: Log of a cluster that was verified.
        next_log_id: Log of a cluster to verify after this one; empty for none.
    """

    start_seq: int
    verified: int
    next_seq: int | None
    head_seq: int
    head_hash: str
    node: str = ""
    log_id: str = ""
    next_log_id: str = ""


def following_range(
    operation: VerifyAudit, found: AuditVerification
) -> VerifyAudit | None:
    """
    Return the call that continues a verification; None if all is verified.

    Args:
        operation: The call before.

        found: Its answer.
    """
    if found.next_seq is not None:
        return replace(operation, start_seq=found.next_seq, log_id=found.log_id)
    if found.next_log_id:
        return replace(operation, start_seq=0, log_id=found.next_log_id)
    return None


def join_ranges(ranges: Iterable[AuditVerification]) -> tuple[AuditVerification, ...]:
    """
    Return one result for each log.

    Args:
        ranges: Answers to a verification and to the calls that continued it, in order.
    """
    logs: list[AuditVerification] = []
    for found in ranges:
        if logs and logs[-1].next_seq is not None:
            before = logs.pop()
            verified = before.verified + found.verified
            found = replace(found, start_seq=before.start_seq, verified=verified)
        logs.append(replace(found, next_log_id=""))
    return tuple(logs)


def cursor_after(cursor: str, entry: AuditEntry) -> str:
    """
    Return the cursor of a live view of all logs of a cluster, moved behind a record.

    Args:
        cursor: ``next_cursor`` of the page before, or what this returned for the record
            before.

        entry: The next record of the view.
    """
    parts = [part for part in cursor.split(",") if part[:32] != entry.log_id]
    return ",".join([*parts, f"{entry.log_id}{entry.event.seq + 1}"])


class SyncTimes(Record, frozen=True, kw_only=True):
    """
    Sync latency of the audit log since the HSM was opened.

    Attributes:
        count: Number of syncs.
        seconds: Total duration, in seconds.
        bounds_seconds: Histogram bounds in seconds, ascending.
        within: Number of successful syncs within each bound.
    """

    count: int = 0
    seconds: float = 0.0
    bounds_seconds: tuple[float, ...] = ()
    within: tuple[int, ...] = ()


class AuditStatus(Record, frozen=True, kw_only=True):
    """
    State of the audit log.

    Attributes:
        sync: ``strict`` or ``bounded``.
        head_seq: Sequence number of the newest record, -1 for an empty log.
        head_hash: Leaf hash of that record; store it elsewhere to compare later.
        state: ``ok``; ``reserve``: the disk is full and only records of recovery and
            administration are accepted; ``failing``: no records are accepted.
        cause: Cause of a state other than ok: ``full``, ``write``, ``sync``, ``moved``
            or ``hanging``.
        failures: Number of failures since the HSM was opened.
        resumes: Number of automatic recoveries since then.
        first_seq: Oldest record not pruned.
        syncs: Sync latency.
    """

    available: bool
    sync: str
    log_id: str
    head_seq: int
    head_hash: str
    state: str = "ok"
    cause: str = ""
    failures: int = 0
    resumes: int = 0
    first_seq: int = 0
    syncs: SyncTimes = SyncTimes()


class ListAuditEvents(Operation[AuditPage], frozen=True, kw_only=True):
    """
    Return audit records; the query itself is recorded.

    Attributes:
        start_seq: First record; None means the newest, or the oldest with *ascending*.
            Ascending from a pruned record starts at the oldest record; from a future
            record, the page is empty. It counts in one log, so in a cluster the page
            has records of that log only.
        log_id: Log of a cluster; empty means this node's, or all of them if there is
            no *start_seq* either. Only this node's can be followed alone.
        cursor: ``next_cursor`` of the previous page of all logs of a cluster; refused
            beside *start_seq* or *log_id*, and on a single machine. ``"now"`` begins a
            live view of all logs with new records.
        ascending: Oldest first.
        kind: Record kinds: operations such as ``Sign``, or system events such as
            ``system.start``; empty for all. An unknown kind raises `InvalidInputError`.
        code: Result code: ``ok`` or an error code. Intent records have none.
            An unknown code is an `InvalidInputError`.
        failed: Only requests that failed.
        since: Only records at or after this time, by the HSM's clock.
        until: Only records before this time.
        follow: Whether the view continues with new records; requires *ascending*, see
            `LiveHSM.follow`. ``execute`` returns only the first page.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "GET",
        "/audit/events",
        events=True,
        example={"limit": 20},
    )

    start_seq: Sequence53 | None = None
    log_id: _LogId = ""
    cursor: Annotated[str, Meta(max_length=4096)] = ""
    limit: PerPage = 50
    ascending: bool = False
    key_id: Annotated[str, Meta(max_length=64)] = ""
    principal: Annotated[str, Meta(max_length=128)] = ""
    kind: Annotated[tuple[_Kind, ...], Meta(max_length=64)] = ()
    code: Annotated[str, Meta(max_length=64)] = ""
    failed: bool = False
    since: Instant | None = None
    until: Instant | None = None
    follow: bool = False


class VerifyAudit(Operation[AuditVerification], frozen=True, kw_only=True):
    """
    Verify a range of the audit log: framing, sequence, chain and MAC of each record.

    A range that starts with pruned records starts at the oldest record instead. In a
    cluster, each log is verified by itself: go on with ``next_log_id`` of the answer.

    Raises `AuditTamperedError` with the first bad record and the reason.

    Attributes:
        log_id: Log of a cluster; empty means the first one.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/audit/verify",
        example={"start_seq": 0, "limit": 1000},
    )

    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    log_id: _LogId = ""

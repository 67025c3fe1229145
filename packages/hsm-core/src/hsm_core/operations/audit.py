# SPDX-License-Identifier: MIT
"""The audit trail: reading and verifying it."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from msgspec import Meta

from hsm_core.model import AuditEntry, Record
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import Instant, PerPage, Sequence53

__all__ = [
    "AuditPage",
    "AuditStatus",
    "AuditVerification",
    "ListAuditEvents",
    "SyncTimes",
    "VerifyAudit",
]


_Kind: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


class AuditPage(Record, frozen=True, kw_only=True):
    """
    Events of the trail.

    Attributes:
        next_seq: Where to go on; None when there is no more. Of a view that follows the
            trail there is always more. A page may be short, even empty, before the end:
            one call looks at a bounded number of records.
        head_seq: Sequence number of the newest record.
        head_hash: Its leaf hash, 64 hex digits.
    """

    items: tuple[AuditEntry, ...]
    next_seq: int | None
    head_seq: int
    head_hash: str


class AuditVerification(Record, frozen=True, kw_only=True):
    """
    How far a verification got; damage raises instead.

    Attributes:
        start_seq: The first record checked: where the call asked for, or the oldest
            that was not pruned.
        verified: Records checked by this call.
        next_seq: Where to go on, or None: everything up to the head is verified.
    """

    start_seq: int
    verified: int
    next_seq: int | None
    head_seq: int
    head_hash: str


class SyncTimes(Record, frozen=True, kw_only=True):
    """
    How long it took to make records durable, since the HSM was opened.

    Attributes:
        count: How often that was done.
        seconds: How long it took in all.
        bounds_seconds: Times to compare with, the shortest first.
        within: How often it took no longer than each of these. What failed doesn't
            count.
    """

    count: int = 0
    seconds: float = 0.0
    bounds_seconds: tuple[float, ...] = ()
    within: tuple[int, ...] = ()


class AuditStatus(Record, frozen=True, kw_only=True):
    """
    State of the trail.

    Attributes:
        sync: ``strict`` or ``bounded``.
        head_seq: Sequence number of the newest record, -1 for an empty trail.
        head_hash: Its leaf hash; write it down to compare later.
        state: ``ok``; ``reserve``: the disk is full and only records of recovery and
            administration are taken; ``failing``: nothing is taken.
        cause: Of another state than ok: ``full``, ``write``, ``sync``, ``moved`` or
            ``hanging``.
        failures: How often it failed since the HSM was opened.
        resumes: How often it has healed itself since then.
        first_seq: Oldest record that was not pruned.
        syncs: How long the disk takes.
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
    Return events of the trail; the view itself is recorded.

    Attributes:
        start_seq: First record to look at; None is the newest, or the oldest with
            *ascending*. Ascending from a record that was pruned begins at the oldest;
            from one that is not there yet, there is nothing to show.
        ascending: Oldest first.
        kind: Only records of one of these kinds: names of operations such as ``Sign``,
            or of the HSM's own records such as ``system.start``. One that no record
            has is an `InvalidInputError`. Empty for all.
        code: Only what was answered with it: ``ok``, or the code of an error. No
            intent is that.
        failed: Only what was answered with an error.
        since: Only records of this time or later, by the clock that wrote them.
        until: Only records before this time.
        follow: Whether the view goes on with what is recorded later, which needs
            *ascending*; see `AsyncHSM.follow`. Executed, it gives its first page alone.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True

    start_seq: Sequence53 | None = None
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
    Check a range of the trail: framing, sequence, chain and MAC of every record.

    A range that would begin with records that were pruned begins at the oldest one.

    Raises `AuditTamperedError` with the first bad record and the reason.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True

    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000

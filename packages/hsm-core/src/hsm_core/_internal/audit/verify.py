# SPDX-License-Identifier: MIT
"""
Verification of an audit log: a range of records, or a whole log offline.

Recovery at opening is a verification from the first record that is still needed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Final, Protocol, TypeAlias

import msgspec

from hsm_core._internal.audit.baseline import Baseline, PrunedPrefix
from hsm_core._internal.audit.chain import Follower, LogEnd
from hsm_core._internal.audit.facts import HASH, FactsTrack, entry_of, facts_line_of
from hsm_core._internal.audit.head_mark import HeadMark, StoredHead
from hsm_core._internal.audit.reading import RecordSource
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import GENESIS, changes_end, event_of, leaf_hash
from hsm_core._internal.audit.uses import Line, lines_of, uses_from
from hsm_core.errors import AuditTamperedError, InvalidInputError
from hsm_core.model import AuditEvent
from hsm_core.operations import AuditVerification

_PROGRESS_EVERY: Final = 10_000

_BLOCK: Final = 1000


class OfflineVerification(msgspec.Struct, frozen=True, kw_only=True):
    """
    Result of verifying an intact audit log; damage raises instead.

    Attributes:
        records: Number of verified records.
        head_seq: The newest one, -1 for an empty log.
        head_hash: Its leaf hash, hex; compare it with one written down before.
        log_id: 32 hex digits; empty for an empty log read without key.
        macs_checked: Whether the key was given. Without it, an attacker who edits a
            record can recompute all later ones, or truncate the log.
        mark_checked: Whether the head mark was authenticated and agrees.
        clean: The log was closed cleanly at its end.
        in_use: A process has the log open, so that it is not closed yet.
        torn_bytes: Length of an unfinished tail: left by a crash, or being written.
        first_seq: The oldest record; all before it were pruned, and a record that was
            verified says so.
        pruned_roots: RFC 6962 subtree roots (compact range) of the records before it,
            from the largest subtree to the smallest, hex.
        baseline_checked: Whether the baseline matches the pruning record.
    """

    records: int
    head_seq: int
    head_hash: str
    log_id: str
    macs_checked: bool
    mark_checked: bool
    clean: bool
    torn_bytes: int
    in_use: bool = False
    first_seq: int = 0
    pruned_roots: tuple[str, ...] = ()
    baseline_checked: bool = False


Look: TypeAlias = Callable[[bytes, int], None]
"""What sees good records, each with its seq."""

UseFollower: TypeAlias = Callable[[Sequence[Line], FactsTrack], int]
"""See `Follower.follow_uses`."""


class CheckedPart(msgspec.Struct, frozen=True):
    """
    Consecutive records of an audit log that another process found good.

    They are good if the log before them is, and if its next record is the first one.

    Attributes:
        first_seq: The first record.
        first_leaf: Its leaf hash.
        seq: The last record.
        leaf_hash: Its leaf hash.
        prunes: Entries that may tell of a prune, each with its seq and leaf hash.
    """

    first_seq: int
    first_leaf: str
    seq: int
    leaf_hash: str
    prunes: tuple[tuple[int, str, bytes], ...] = ()


class PartFollower(msgspec.Struct, frozen=True):
    """
    Reaction to parts that were checked.

    Attributes:
        follow: Moves on over a part, and returns True; or returns False.
        told: Called with the newest record of a part that was checked so far.
    """

    follow: Callable[[CheckedPart], bool]
    told: Callable[[int], None]


class CheckedAhead(Protocol):
    """
    Parts of an audit log that other processes check while it is read.

    Attributes:
        follower: Gets the parts; without it they are not used.
    """

    follower: PartFollower | None

    def follow(self, position: int, /) -> bool:
        """
        Wait for the part of a closed segment, and move on to its end if it is good.

        The first record of the segment was found good. If this returns False, the rest
        of it must be read.
        """
        ...


class StoredLog(Protocol):
    """
    Audit log as a medium holds it: its lines in order, and how they may end.

    Attributes:
        head: Authenticated head mark; None without one, or without the key.
        baseline: Checked baseline of pruned records.
        torn_bytes: Length of the torn tail, once `judge_end` has accepted one.
        follow_uses: What may follow uses before they are yielded; those are not.
    """

    head: StoredHead | None
    baseline: Baseline | None
    torn_bytes: int
    follow_uses: UseFollower | None

    @property
    def first_seq(self) -> int:
        """First record that counts."""
        ...

    def lines(self, start_seq: int, /) -> Generator[bytes, None, None]:
        """
        Yield the entries from a record on, without newline.

        The facts line that an entry names is there. The next entry is requested only
        after the one before was found good, so an entry whose successor is requested
        counts as verified. A second call continues where the first one ended.

        Raises:
            AuditTamperedError: Lines are missing, or can't be told apart.
            AuditUnavailableError: They can't be read now.
        """
        ...

    @property
    def facts(self) -> FactsTrack:
        """Facts lines that were read up to the entry that was yielded last."""
        ...

    def joined(self, entry: bytes, /) -> bytes:
        """
        Return the record of the entry that was yielded last, which is good.

        Raises:
            AuditUnavailableError: Its facts line can't be read now.
        """
        ...

    def anchors(self, before: int, /) -> Iterator[tuple[int, bytes]]:
        """
        Yield lines after which reading may start, newest first.

        Args:
            before: First record that must be read.

        Returns:
            A sequence number to report if the line is bad, and the line; `lines`
            continues after the line that was yielded last.
        """
        ...

    def judge_end(self, follower: Follower, error: AuditTamperedError | None) -> None:
        """
        Decide whether the log may end after the last good record.

        Args:
            follower: Stands at the last good record.

            error: Fault of what follows it; None if nothing does.

        Raises:
            AuditTamperedError: No crash and no clean stop leaves such an end.
        """
        ...

    def has_grown(self, follower: Follower, /) -> bool:
        """Return whether a rejected end is worth reading again."""
        ...


def check_end(follower: Follower, error: AuditTamperedError | None) -> None:
    """
    Compare the end of an audit log with the head mark.

    Args:
        follower: Stands at the last good record.

        error: Fault of what follows it.

    Raises:
        AuditTamperedError: Records that the mark names are missing or bad, or
            something follows a clean end.
    """
    mark = follower.mark or HeadMark()
    if mark.clean and follower.seq > mark.seq:
        raise tampered(Reason.AFTER_CLEAN, mark.seq + 1)
    if error is not None and (mark.clean or follower.seq < mark.seq):
        raise error
    if follower.seq < mark.seq:
        raise tampered(Reason.SHORTER, follower.seq + 1)


def follow(
    stored: StoredLog, follower: Follower, visit: Callable[[bytes], None]
) -> None:
    """
    Verify all entries after those that a follower has verified, and the end.

    Args:
        stored: The audit log.

        follower: Bears the head mark, unless there is no key to authenticate it.

        visit: Called with each good entry.

    Raises:
        AuditTamperedError: A record is bad, or the end is.
        AuditUnavailableError: They can't be read now.
    """
    while True:
        error = _follow_lines(stored, follower, visit)
        try:
            stored.judge_end(follower, error)
        except AuditTamperedError:
            if not stored.has_grown(follower):
                raise
        else:
            return


def _follow_lines(
    stored: StoredLog, follower: Follower, visit: Callable[[bytes], None]
) -> AuditTamperedError | None:
    # What the lines are read from stays open while an error has them in its traceback.
    with closing(stored.lines(follower.seq + 1)) as lines:
        for entry in lines:
            try:
                follower.advance(entry, stored.facts)
            except AuditTamperedError as error:
                return error
            visit(entry)
    return None


def first_follower(stored: StoredLog, hmac_key: bytes | None) -> Follower:
    """
    Return a follower at the start of an audit log.

    Raises:
        AuditTamperedError: Records are missing that the baseline does not cover.
    """
    seq, leaf_hash = PrunedPrefix(stored.first_seq, stored.baseline).start
    head = stored.head
    return Follower(
        log_id=log_id_of(stored),
        hmac_key=hmac_key,
        seq=seq,
        leaf_hash=leaf_hash,
        mark=head.mark if head else None,
    )


def log_id_of(stored: StoredLog) -> str | None:
    """Return the id of a log, if its head mark or its baseline has it."""
    if stored.head is not None:
        return stored.head.log_id
    return None if stored.baseline is None else stored.baseline.header.log_id


def of_events(look: Callable[[AuditEvent], None] | None) -> Look | None:
    """Return what sees records, given what sees their events."""
    if look is None:
        return None
    return lambda record, seq: look(event_of(record, seq))


class RecoveredLog(msgspec.Struct, frozen=True):
    """
    Verified audit log, ready for appending.

    Attributes:
        head: Stored head mark.
        end: End of the log.
        baseline: Baseline of pruned records.
    """

    head: StoredHead
    end: LogEnd
    baseline: Baseline | None


def recover(stored: StoredLog, hmac_key: bytes) -> RecoveredLog:
    """
    Verify an audit log from the first record that the head mark needs; write nothing.

    Args:
        stored: The audit log.

        hmac_key: Key of the audit log.

    Raises:
        AuditTamperedError: It was altered.
        AuditUnavailableError: It can't be read.
    """
    head = stored.head
    if head is None:
        raise tampered(Reason.HEAD_MISSING, 0)
    follower = skip_to_needed(stored, hmac_key)
    end = LogEnd.at(head.mark)

    def visit(entry: bytes) -> None:
        nonlocal end
        seq = follower.seq
        if changes_end(entry):
            event = event_of(stored.joined(entry), seq)
            end = end.after(event, seq, follower.leaf_hash)

    stored.follow_uses = follower.follow_uses
    follow(stored, follower, visit)
    end = end.after_use(follower.seq, follower.leaf_hash)
    return RecoveredLog(head, end, stored.baseline)


def skip_to_needed(
    stored: StoredLog, hmac_key: bytes | None, needed: int | None = None
) -> Follower:
    """
    Return a follower before the first record that must be read.

    Args:
        stored: The audit log.

        hmac_key: Key of the audit log.

        needed: That record; None for the first one that the head mark or an intent
            needs.

    Raises:
        AuditTamperedError: Records are missing that the baseline does not cover.
    """
    follower = first_follower(stored, hmac_key)
    start = follower.seq, follower.leaf_hash
    if needed is None:
        mark = follower.mark or HeadMark()
        needed = min(mark.floor, max(mark.seq, 0))
    for seq, line in stored.anchors(needed):
        if follower.codec.is_record(line):
            follower.start_after(line, seq)
            if follower.seq < needed:
                return follower
    # Records are read from the start, so that the first bad one is named.
    follower.seq, follower.leaf_hash = start
    return follower


def verify_log(
    stored: StoredLog,
    hmac_key: bytes | None,
    progress: Callable[[int], None] | None = None,
    look: Look | None = None,
    look_from: int = 0,
    ahead: CheckedAhead | None = None,
    *,
    looks_at_uses: bool = True,
) -> OfflineVerification:
    """
    Verify every record of an audit log, and its end.

    Args:
        stored: The audit log.

        hmac_key: Key of the audit log; None leaves the MACs unchecked.

        progress: Called now and then with the number of records verified.

        look: Called with each good record and its seq; its exceptions end the
            verification.

        look_from: First record to call it with. A negative number counts from the end
            that the head mark names.

        ahead: Parts that other processes check; they are not used with *look*.

        looks_at_uses: Whether *look* is called with every use, and not only with some.

    Raises:
        AuditTamperedError: The log is damaged; ``facts`` name the first bad record as
            ``seq`` and the ``reason``.
        AuditUnavailableError: It can't be read now.
    """
    prefix = PrunedPrefix(stored.first_seq, stored.baseline)
    follower = first_follower(stored, hmac_key)
    before = follower.seq
    if look_from < 0:
        look_from += follower.mark.seq + 1 if follower.mark else 0

    told = 0

    def tell(seq: int) -> None:
        nonlocal told
        records = seq - before
        if progress is not None and records - told >= _PROGRESS_EVERY:
            told = records - records % _PROGRESS_EVERY
            progress(told)

    def visit(entry: bytes) -> None:
        prefix.visit(entry, follower.seq, follower.leaf_hash)
        if look is not None and follower.seq >= look_from:
            look(stored.joined(entry), follower.seq)
        tell(follower.seq)

    def follow_uses(lines: Sequence[Line], facts: FactsTrack) -> int:
        first = follower.seq + 1
        count = follower.follow_uses(lines, facts)
        if look is not None and looks_at_uses:
            for seq in range(max(first, look_from), first + count):
                look(stored.joined(lines[seq - first][0][1:]), seq)
        tell(follower.seq)
        return count

    def follow_part(part: CheckedPart) -> bool:
        mark = follower.mark
        joins = (follower.seq, follower.leaf_hash) == (part.first_seq, part.first_leaf)
        if not joins or (mark is not None and mark.seq <= part.seq):
            return False
        for seq, leaf, entry in part.prunes:
            prefix.visit(entry, seq, leaf)
        follower.seq, follower.leaf_hash = part.seq, part.leaf_hash
        tell(part.seq)
        return True

    if not prefix.overlaps:
        stored.follow_uses = follow_uses
        if ahead is not None and look is None:
            ahead.follower = PartFollower(follow_part, tell)
    follow(stored, follower, visit)
    if follower.mark is None and hmac_key is not None:
        raise tampered(Reason.HEAD_MISSING, 0)
    if follower.mark is None and follower.seq < 0 and stored.torn_bytes:
        # Without a mark and a record, a file could be anything.
        raise tampered(Reason.TORN, 0)
    prefix.finish()
    if progress is not None:
        progress(follower.seq - before)
    return OfflineVerification(
        records=follower.seq - before,
        head_seq=follower.seq,
        head_hash=follower.leaf_hash,
        log_id=follower.log_id,
        macs_checked=hmac_key is not None,
        mark_checked=follower.mark is not None,
        clean=follower.mark is not None and follower.mark.clean,
        torn_bytes=stored.torn_bytes,
        first_seq=before + 1,
        pruned_roots=prefix.detail.roots if prefix.detail else (),
        baseline_checked=prefix.detail is not None,
    )


def verify_range(
    audit: RecordSource, hmac_key: bytes, start_seq: int, limit: int
) -> AuditVerification:
    """
    Verify up to *limit* records from *start_seq*, up to the current head.

    A range that does not start at 0 starts after the leaf hash of the record before it,
    which a walk from 0 has verified. A range that would start before the oldest
    remaining record starts there, and the baseline is checked. The pruning record was
    verified when the log was opened, and is verified again offline.

    Raises:
        AuditTamperedError: A record is bad or missing; ``facts`` name the first.
        AuditUnavailableError: The log can't be read.
        InvalidInputError: *start_seq* lies beyond the end.
    """
    while True:
        first = max(start_seq, audit.first_seq)
        try:
            return _verify_from(audit, hmac_key, first, limit)
        except InvalidInputError:
            # Unless records were pruned meanwhile, nothing helps.
            if audit.first_seq <= first:
                raise


def _verify_from(
    audit: RecordSource, hmac_key: bytes, start_seq: int, limit: int
) -> AuditVerification:
    head = audit.head()
    if start_seq > head.seq + 1:
        raise InvalidInputError(
            f"start_seq must be at most {head.seq + 1}, got {start_seq}.",
            field="start_seq",
            limit=head.seq + 1,
        )
    end = min(start_seq + limit, head.seq + 1)
    before, leaf = _before(audit, start_seq)
    follower = Follower(
        log_id=audit.log_id, hmac_key=hmac_key, seq=before, leaf_hash=leaf
    )
    while (seq := follower.seq + 1) < end:
        _check(follower, _lines(audit, seq, min(_BLOCK, end - seq)))
    if follower.seq == head.seq and follower.leaf_hash != head.leaf_hash:
        raise tampered(Reason.CHAIN, head.seq)
    return AuditVerification(
        start_seq=start_seq,
        verified=seq - start_seq,
        next_seq=seq if seq <= head.seq else None,
        head_seq=head.seq,
        head_hash=head.leaf_hash,
    )


def _check(follower: Follower, records: Sequence[bytes]) -> None:
    """Check the next records, uses many at a time, and move on to them."""
    lines = lines_of(b"\n".join([*map(entry_of, records), b""]))
    at = 0
    while at < len(records):
        # A faulty entry may count as two lines.
        uses = uses_from(lines, at) if len(lines) == len(records) else []
        run = records[at : at + max(len(uses), 1)]
        if not _follow_uses(follower, uses, run):
            for record in run:
                follower.check(record)
        at += len(run)


def _follow_uses(
    follower: Follower, uses: Sequence[Line], records: Sequence[bytes]
) -> bool:
    """Move on over uses if all are good; each record has its own facts line."""
    if not uses or [record[HASH] for record in records] != [use[3] for use in uses]:
        return False
    facts = FactsTrack(keeps_lines=False)
    for line in set(map(facts_line_of, records)):
        facts.take_earlier(line, follower.seq + 1)
    return follower.follow_uses(uses, facts) == len(uses)


def _lines(audit: RecordSource, seq: int, limit: int) -> list[bytes]:
    try:
        lines = audit.lines(seq, limit)
    except AuditTamperedError as error:
        # A record is missing. One before it may be bad, and is to be named first.
        missing = error.facts["seq"]
        if not isinstance(missing, int) or missing <= seq:
            raise
        lines = audit.lines(seq, missing - seq)
    if not lines:
        raise tampered(Reason.SHORTER, seq)
    return lines


def _before(audit: RecordSource, start_seq: int) -> tuple[int, str]:
    """Return seq and leaf hash of the record before a range."""
    if start_seq == 0:
        return -1, GENESIS
    if start_seq == audit.first_seq:
        for _ in audit.baseline():
            pass
        # The word of the first record, which its MAC binds, for the one before.
        return start_seq - 1, ""
    lines = audit.lines(start_seq - 1, 1)
    if not lines:
        raise tampered(Reason.SHORTER, start_seq - 1)
    return start_seq - 1, leaf_hash(lines[0])

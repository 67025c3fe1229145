# SPDX-License-Identifier: MIT
"""
Pruning of old records: the rule that finds them, and their baseline.

Only time that is known to have passed ages a record. While the log is open, the
monotonic clock counts it. Before that only the times of the records are known: a gap of
more than `IDLE` between two of them means that the machine was off or its clock was
wrong, and counts as `IDLE`. So a clock that jumped, in either direction, removes
nothing early.

A prune must not hide a forgery, so each record is verified before it is removed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from hsm_core._internal.audit.baseline import (
    FORMAT,
    Baseline,
    BaselineHeader,
    KnownKeys,
    check_baseline,
    encode_baseline,
    known_keys,
)
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.medium import BaselineStore
from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import GENESIS
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import PruneDetail
from hsm_core.protocols import AuditTicket, Clock, KnownKey

IDLE: Final = 7 * 24 * 3600 * 1_000_000
"""Longest gap between two records that counts in full, in microseconds."""

_BLOCK: Final = 1000


class WatchedClock:
    """
    Clock that tracks the drift of the wall clock since its creation.

    Used by one thread at a time.
    """

    def __init__(self, clock: Clock) -> None:
        self._wall, self._steady = clock.now, clock.monotonic
        monotonic = self._steady()
        self.begun = self._wall()
        self._lowest = self.begun - monotonic * 1_000_000

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        now = self._wall()
        ahead = now - self._steady() * 1_000_000
        if ahead < self._lowest:
            self._lowest = ahead
        return now

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        return self._steady()

    def look(self) -> tuple[int, int]:
        """Return wall time, and its largest gain over any time returned before."""
        now = self._wall()
        return now, max(0, int(now - self._steady() * 1_000_000 - self._lowest))


class RetentionRule:
    """
    Finds the records that may be pruned.

    Args:
        clock: Created at opening; the source of every record's time.

        newest: The newest record then, -1 for none.

        times: Returns the times of up to so many records, starting at one.
    """

    def __init__(
        self,
        clock: WatchedClock,
        newest: int,
        times: Callable[[int, int], Sequence[int]],
    ) -> None:
        self._clock = clock
        self._newest = newest
        self._times = times

    def prunable(self, first: int, end: int, head: int, before: int) -> int:
        """
        Return the first record to keep.

        Args:
            first: Oldest present record.

            end: This record and all later ones are kept.

            head: The newest record.

            before: Microseconds since 1970; only older records go.
        """
        now, gained = self._clock.look()
        end = min(end, head)
        if end <= first or self._time(head) > now:
            return first
        leaps = self._leaps(first)
        uncounted = gained + sum(leap for _, leap in leaps)
        found, latest = first, 0
        for seq, time in self._each(first, end):
            while leaps and leaps[0][0] <= seq:
                uncounted -= leaps.pop(0)[1]
            if time + uncounted >= before:
                break
            if time >= latest:
                # A record after a step back may be younger than its time: it goes
                # only with a later one whose time is above all before.
                found, latest = seq + 1, time
        return found

    def _each(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        seq = first
        while seq < end:
            times = self._times(seq, min(_BLOCK, end - seq))
            if not times:
                return
            yield from enumerate(times, seq)
            seq += len(times)

    def _leaps(self, first: int) -> list[tuple[int, int]]:
        """Return clock jumps before the opening, and their uncounted time."""
        newest = self._newest
        if newest < first:
            return []
        found = []
        oldest_time, newest_time = self._time(first), self._time(newest)
        leap = self._clock.begun - newest_time - IDLE
        if leap > 0:
            found.append((newest + 1, leap))
        spans = [(first, oldest_time, newest, newest_time)]
        while spans:
            low, low_time, high, high_time = spans.pop()
            leap = high_time - low_time - IDLE
            if leap <= 0:
                continue
            if high - low == 1:
                found.append((high, leap))
                continue
            middle = (low + high) // 2
            time = self._time(middle)
            spans += [(low, low_time, middle, time), (middle, time, high, high_time)]
        return sorted(found)

    def _time(self, seq: int) -> int:
        return self._times(seq, 1)[0]


def gather(
    lines: Callable[[int, int], Sequence[bytes]],
    *,
    log_id: str,
    hmac_key: bytes,
    baseline: Baseline | None,
    keys: Iterable[KnownKey],
    next_seq: int,
    policy: str,
    after_seq: int,
) -> tuple[Baseline, list[bytes]]:
    """
    Follow the records before *next_seq*; return their baseline and its lines.

    Args:
        lines: Returns up to so many lines from one record on, without newline.

        log_id: The log, 32 hex digits.

        hmac_key: Key of the log.

        baseline: Baseline of earlier prunes.

        keys: The keys that it names.

        next_seq: First record to keep.

        policy: Hash of the policy in force.

        after_seq: Sequence number before the pruning record.

    Raises:
        AuditTamperedError: A record is bad; it must not be removed.
        AuditUnavailableError: They can't be read.
    """
    before = baseline.header if baseline else None
    first = before.next_seq if before else 0
    known = KnownKeys(keys)
    tree = CompactRange(first, before.roots if before else ())
    follower = Follower(
        log_id=log_id,
        hmac_key=hmac_key,
        seq=first - 1,
        leaf_hash=before.last_leaf_hash if before else GENESIS,
    )
    while (seq := follower.seq + 1) < next_seq:
        found = lines(seq, min(_BLOCK, next_seq - seq))
        if not found:
            raise tampered(Reason.SHORTER, seq)
        for line in found:
            known.note(follower.follow(line))
            tree.append(follower.leaf_hash)
    header = BaselineHeader(
        format=FORMAT,
        log_id=log_id,
        first_seq=first,
        next_seq=next_seq,
        last_leaf_hash=follower.leaf_hash,
        roots=tree.roots,
        policy=policy,
        keys=len(known),
        after_seq=after_seq,
    )
    return encode_baseline(header, known, hmac_key)


class Pruner:
    """
    Prunes one open audit log, one thread at a time; any thread may read the baseline.

    The new baseline is staged first, where it does not count. Then the record of the
    prune is written, and only when that is durable does the new baseline replace the
    old one. From then on the records before are gone, whether or not they still are
    stored: what an interruption leaves of them goes with the next start or prune.

    Args:
        store: Records and baselines.

        log_id: 32 hex digits.

        hmac_key: Key of the audit log.

        baseline: Baseline that counts now.
    """

    def __init__(
        self,
        store: BaselineStore,
        *,
        log_id: str,
        hmac_key: bytes,
        baseline: Baseline | None,
    ) -> None:
        self._store = store
        self._log_id = log_id
        self._hmac_key = hmac_key
        self._baseline = baseline
        self._staged = baseline
        self._pending: tuple[int, Baseline] | None = None
        self._guard = threading.Lock()

    @property
    def first_seq(self) -> int:
        """The oldest record that counts."""
        return self._baseline.header.next_seq if self._baseline else 0

    def known(self) -> Iterator[KnownKey]:
        """
        Return the recorded state of each key in pruned records.

        Raises:
            AuditTamperedError: It was altered since the log was opened.
            AuditUnavailableError: It can't be read.
        """
        with ExitStack() as stack:
            with self._guard:
                baseline = self._baseline
                if baseline is None:
                    return
                # Opened under the guard, so that no other one replaces it meanwhile.
                opened = self._store.open_baseline(baseline.header.next_seq)
                lines = stack.enter_context(opened)
            found = check_baseline(
                lines(), log_id=self._log_id, hmac_key=self._hmac_key
            )
            if found != baseline:
                raise tampered(Reason.BASELINE, 0)
            yield from known_keys(lines())

    def prune(
        self,
        end: int,
        policy: str,
        head: int,
        lines: Callable[[int, int], Sequence[bytes]],
        record: Callable[[PruneDetail], AuditTicket],
    ) -> PruneDetail | None:
        """
        Remove the records before *end*.

        Args:
            end: First record to keep.

            policy: Hash of the policy in force.

            head: The newest record.

            lines: Reads records.

            record: Appends the record of the prune, calling `announce` before it can
                be written.

        Returns:
            What was recorded; None if nothing can be removed.

        Raises:
            AuditTamperedError: A record that would be removed is bad; none was.
            AuditUnavailableError: It can't be recorded; or a removal failed.
        """
        self._store.remove(self.first_seq)
        end = self._store.boundary(end)
        if end <= self.first_seq:
            return None
        baseline, content = gather(
            lines,
            log_id=self._log_id,
            hmac_key=self._hmac_key,
            baseline=self._baseline,
            keys=self.known(),
            next_seq=end,
            policy=policy,
            after_seq=head,
        )
        self._store.stage(end, content)
        self._staged = baseline
        record(baseline.detail).wait()
        failpoint("audit.prune.after_record")
        if self._pending is not None:
            self._adopt(baseline)
        self._store.remove(self.first_seq)
        return baseline.detail

    def announce(self, seq: int) -> None:
        """Note the sequence number that the record of the staged baseline gets."""
        staged = self._staged
        if staged is not None:
            self._pending = seq, staged
            self._store.adopt_with(
                seq, staged.header.next_seq, lambda: self._count(staged)
            )

    def _count(self, baseline: Baseline) -> None:
        with self._guard:
            self._baseline = baseline
            self._pending = None

    def finish(self, durable_seq: int) -> None:
        """
        Finish an earlier prune whose record was written late.

        Raises:
            AuditUnavailableError: It is not durable yet; or adopting it failed.
        """
        pending = self._pending
        if pending is None:
            return
        seq, baseline = pending
        if seq > durable_seq:
            raise AuditUnavailableError("An earlier prune is not recorded yet.")
        self._adopt(baseline)

    def _adopt(self, baseline: Baseline) -> None:
        with self._guard:
            self._store.adopt()
            # Readers find it from now on; only what it replaces must not go before
            # that is durable.
            self._baseline = baseline
            self._store.settle()
            self._pending = None

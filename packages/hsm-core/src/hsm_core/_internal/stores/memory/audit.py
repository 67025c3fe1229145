# SPDX-License-Identifier: MIT
"""Audit log in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from hsm_core._internal.audit.baseline import Baseline, known_keys
from hsm_core._internal.audit.chain import Chain, OpenIntents
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.pruning import RetentionRule, WatchedClock, gather
from hsm_core._internal.audit.reading import pruned_before
from hsm_core._internal.audit.record import event_of
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import AuditEvent, Phase, PruneDetail
from hsm_core.protocols import (
    AuditDraft,
    AuditHead,
    AuditHealth,
    AuditTicket,
    Clock,
    Entropy,
    KnownKey,
)


class _DoneTicket:
    """Ticket that is done at once: memory has no later durability."""

    def wait(self, timeout: float | None = None) -> None:
        """Return."""

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Call *callback* here."""
        callback(None)


class MemoryAuditLog:
    """
    `AuditLog` in memory, discarded on close.

    Args:
        hmac_key: What the key of the records' MACs is derived from.

        clock: Gives the time of each record.

        entropy: Gives the trail's id.

        node: Name of this node in the trail.
    """

    def __init__(
        self, hmac_key: bytes, *, clock: Clock, entropy: Entropy, node: str = ""
    ) -> None:
        self._clock = WatchedClock(clock)
        self._hmac_key = hmac_key
        self._lock = threading.Lock()
        self._pruning = threading.Lock()
        self._lines: list[bytes] = []
        self._first_seq = 0
        self._baseline: Baseline | None = None
        self._kept: list[bytes] = []
        self._closed = False
        self._chain = Chain(
            log_id=entropy.random_bytes(16).hex(),
            hmac_key=hmac_key,
            node=node,
            mark=HeadMark(),
            intents=OpenIntents(),
        )
        self._rule = RetentionRule(self._clock, -1, self._times)

    @property
    def log_id(self) -> str:
        """Random identifier of this trail, 32 hex digits."""
        return self._chain.log_id

    @property
    def available(self) -> bool:
        """Whether the next append may succeed."""
        return not self._closed

    @property
    def set_digest_at_open(self) -> str:
        """Empty: the trail began when it was opened."""
        return ""

    @property
    def health(self) -> AuditHealth:
        """Health of the audit log."""
        return AuditHealth(state="ok" if self.available else "failing")

    @property
    def first_seq(self) -> int:
        """Oldest record that is still there; all before it were pruned."""
        return self._first_seq

    def baseline(self) -> Iterator[KnownKey]:
        """Return what the pruned records said of each key."""
        with self._lock:
            kept = self._kept
        return known_keys(kept) if kept else iter(())

    def prunable(self, before: int, /) -> int:
        """
        Return the seq up to which (exclusive) a prune may remove records.

        Args:
            before: Microseconds since 1970; see `RetentionRule`.

        Raises:
            AuditUnavailableError: The trail is closed.
        """
        with self._lock:
            mark = self._chain.mark()
        return self._rule.prunable(self._first_seq, mark.floor, mark.seq, before)

    def _times(self, seq: int, limit: int) -> list[int]:
        lines = self.lines(seq, limit)
        return [event_of(line, place).time for place, line in enumerate(lines, seq)]

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """
        Remove all records before *seq*; see `AuditLog.prune`.

        Raises:
            AuditUnavailableError: The trail is closed.
        """
        with self._pruning:
            with self._lock:
                mark = self._chain.mark()
            end = min(seq, mark.floor, mark.seq)
            if end <= self._first_seq:
                return None
            baseline, kept = gather(
                self.lines,
                log_id=self.log_id,
                hmac_key=self._hmac_key,
                baseline=self._baseline,
                keys=self.baseline(),
                next_seq=end,
                policy=policy,
                after_seq=mark.seq,
            )
            detail = baseline.detail
            draft = AuditDraft(phase=Phase.SINGLE, kind="system.prune", detail=detail)
            self.append([draft], durable=True, reserved=True)
            with self._lock:
                del self._lines[: end - self._first_seq]
                self._first_seq, self._baseline, self._kept = end, baseline, kept
            return detail

    def append(
        self,
        drafts: Sequence[AuditDraft],
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """
        Append records; see `AuditLog.append`.

        Raises:
            AuditUnavailableError: The trail is closed.
            InvalidInputError: A draft can't be recorded; none of them was.
        """
        with self._lock:
            self._check_open()
            lines = self._chain.extend(drafts, self._clock.now())
            self._lines += [line[:-1] for line in lines]
        return _DoneTicket()

    def head(self) -> AuditHead:
        """Return the newest record's position and leaf hash."""
        with self._lock:
            return AuditHead(self._chain.seq, self._chain.leaf_hash)

    def durable_head(self) -> AuditHead:
        """Return the same: nothing is more durable later than at once."""
        return self.head()

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: The trail is closed.
            InvalidInputError: *start_seq* lies before `first_seq`.
        """
        with self._lock:
            self._check_open()
            start = max(start_seq, 0) - self._first_seq
            if start < 0:
                raise pruned_before(self._first_seq)
            return self._lines[start : start + max(limit, 0)]

    def open_intents(self) -> list[AuditEvent]:
        """Return nothing: the trail began when it was opened."""
        return []

    def close(self) -> None:
        """Refuse everything from now on."""
        with self._lock:
            self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise AuditUnavailableError("The audit log is closed.")

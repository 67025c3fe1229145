# SPDX-License-Identifier: MIT
"""Audit log over a medium: chained by the caller, written by another thread."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from hsm_core._internal.audit.chain import Chain, OpenIntents
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import Reserve, TrailMedium
from hsm_core._internal.audit.pruning import RetentionRule, WatchedClock
from hsm_core._internal.audit.reading import pruned_before
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.audit.writer import Flusher
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
)
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
from hsm_core.settings import AuditSync

_MIN_KEY_BYTES: Final = 32
_LOG_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailOptions:
    """
    How a trail is written.

    Attributes:
        hmac_key: At least 32 bytes; what all keys of the trail are derived from.
        clock: Gives the time of each record.
        entropy: Gives the id of a new trail.
        sync: When a ticket is done.
        timeout_seconds: How long an append may take before it fails.
        node: Name of this node in the trail.
        reserve_bytes: Disk space that is kept back for when the disk is full.

    Raises:
        ConfigurationError: The key is too short.
    """

    hmac_key: bytes = field(repr=False)
    clock: Clock
    entropy: Entropy
    sync: AuditSync
    timeout_seconds: float
    node: str
    reserve_bytes: int = 0

    def __post_init__(self) -> None:
        if len(self.hmac_key) < _MIN_KEY_BYTES:
            raise ConfigurationError(
                f"The HMAC key must be at least {_MIN_KEY_BYTES} bytes."
            )

    def new_log_id(self) -> str:
        """Return the id of a new trail, 32 hex digits."""
        return self.entropy.random_bytes(_LOG_ID_BYTES).hex()

    def chain(self, log_id: str, mark: HeadMark, intents: OpenIntents) -> Chain:
        """Return what goes on where a trail ends."""
        return Chain(
            log_id=log_id,
            hmac_key=self.hmac_key,
            node=self.node,
            mark=mark,
            intents=intents,
        )


class Pruned(Protocol):
    """What is kept of records that are gone."""

    @property
    def first_seq(self) -> int:
        """Oldest record that counts; all before it were pruned."""
        ...

    def known(self) -> Iterator[KnownKey]:
        """
        Return what the records that are gone said of each key.

        Raises:
            AuditTamperedError: It was changed since the trail was opened.
            AuditUnavailableError: It can't be read.
        """
        ...


class TrailLog(ABC):
    """
    An `AuditLog` over a medium; a subclass knows how to open and prune it.

    Records are hashed and authenticated in the calling thread; one other thread
    writes and syncs them. After a failed write or sync appends are refused until the
    medium has healed.

    Args:
        chain: Where the trail ends.

        medium: What it is written on; closed with the log.

        reserve: Room for the records that matter when the disk is full.

        pruned: What is kept of records that are gone.

        options: How it is written.

        open_events: The intents without outcome that were found.
    """

    def __init__(
        self,
        chain: Chain,
        medium: TrailMedium,
        reserve: Reserve,
        pruned: Pruned,
        *,
        options: TrailOptions,
        open_events: Sequence[AuditEvent],
    ) -> None:
        self._process = os.getpid()
        self._chain = chain
        self._medium = medium
        self._reserve = reserve
        self._pruned = pruned
        self._pruning = threading.Lock()
        self._clock = WatchedClock(options.clock)
        self._rule = RetentionRule(self._clock, chain.seq, self._times)
        self._open_events = list(open_events)
        self._set_digest_at_open = chain.mark().set_digest
        self._closed = False
        self._lock = threading.Lock()
        self._flusher = Flusher(
            self._lock,
            chain,
            medium,
            reserve,
            clock=self._clock,
            sync=options.sync,
            timeout_seconds=options.timeout_seconds,
        )

    @property
    def log_id(self) -> str:
        """Random identifier of this trail, 32 hex digits."""
        return self._chain.log_id

    @property
    def available(self) -> bool:
        """Whether the next append may succeed, if it can't use the reserve."""
        try:
            self._check_process()
            self._flusher.check()
        except AuditUnavailableError:
            return False
        return True

    @property
    def health(self) -> AuditHealth:
        """How the trail is."""
        if self._process != os.getpid():
            return AuditHealth(state="failing")
        return self._flusher.health

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that the trail held when it was opened, or empty."""
        return self._set_digest_at_open

    @property
    def first_seq(self) -> int:
        """Oldest record that is still there; all before it were pruned."""
        return self._pruned.first_seq

    def baseline(self) -> Iterator[KnownKey]:
        """
        Return what the pruned records said of each key.

        Raises:
            AuditTamperedError: It was changed.
            AuditUnavailableError: It can't be read.
        """
        return self._pruned.known()

    def prunable(self, before: int, /) -> int:
        """
        Return the seq up to which (exclusive) a prune may remove records.

        Args:
            before: Microseconds since 1970; see `RetentionRule`.

        Raises:
            AuditUnavailableError: The trail can't be read.
            AuditTamperedError: It is damaged.
        """
        head = self.head().seq
        return self._rule.prunable(self.first_seq, self._floor(), head, before)

    def _floor(self) -> int:
        """Return the first record that no prune may reach: that of an open intent."""
        with self._lock:
            return self._chain.mark().floor

    def _times(self, seq: int, limit: int) -> list[int]:
        lines = self.lines(seq, limit)
        return [event_of(line, place).time for place, line in enumerate(lines, seq)]

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """
        Remove records before *seq*, as far as none is needed; see `AuditLog.prune`.

        Raises:
            AuditTamperedError: A record that would be removed is bad; none was.
            AuditUnavailableError: It can't be recorded, and nothing was removed; or a
                removal failed, which the next start or prune finishes.
        """
        self._check_process()
        with self._pruning:
            head = self.head().seq
            return self._prune(min(seq, self._floor(), head), policy, head)

    @abstractmethod
    def _prune(self, end: int, policy: str, head: int) -> PruneDetail | None:
        """Remove records before *end*; the record of it comes after *head*."""

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
            AuditUnavailableError: The trail can't be written.
            InvalidInputError: A draft can't be recorded; none of them was.
        """
        self._check_process()
        reserved = reserved or all(map(_uses_the_reserve, drafts))
        with self._lock:
            self._flusher.check(reserved=reserved)
            lines = self._chain.extend(drafts, self._clock.now())
            return self._flusher.enqueue(lines, durable=durable, lazy=lazy)

    def head(self) -> AuditHead:
        """Return position and leaf hash of the newest record that was written."""
        mark = self._flusher.written
        return AuditHead(mark.seq, mark.leaf_hash)

    def durable_head(self) -> AuditHead:
        """Return position and leaf hash of the newest record that is durable."""
        mark = self._flusher.durable
        return AuditHead(mark.seq, mark.leaf_hash)

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: The trail can't be read, or is closed.
            AuditTamperedError: It holds fewer lines than were written.
            InvalidInputError: *start_seq* lies before `first_seq`.
        """
        if self._closed:
            raise AuditUnavailableError("The audit log is closed.")
        start_seq = max(start_seq, 0)
        if start_seq < self.first_seq:
            raise pruned_before(self.first_seq)
        written = self._flusher.written.seq
        try:
            found = self._medium.read(start_seq, limit)
        except AuditTamperedError:
            # What is removed while it is read is not damaged.
            if start_seq >= self.first_seq:
                raise
            found = []
        if len(found) < min(limit, written + 1 - start_seq):
            if start_seq < self.first_seq:
                raise pruned_before(self.first_seq)
            raise AuditUnavailableError("The audit log is being rewritten. Try again.")
        return found

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without outcome that were found at start."""
        return list(self._open_events)

    def close(self) -> None:
        """
        Sync, mark the end as clean, release the lock; a second time does nothing.

        Raises:
            AuditUnavailableError: Something could not be written, now or before; all
                is released, and the trail is left as after a crash. Or writing still
                hangs; then the lock stays.
        """
        if self._closed or self._process != os.getpid():
            return
        if not self._flusher.close():
            # The lock stays: what still hangs may yet be written.
            raise AuditUnavailableError("The audit log was not written in time.")
        self._closed = True
        self._reserve.close()
        self._medium.close()
        failure = self._flusher.failure
        if failure is not None:
            raise AuditUnavailableError from failure

    def _check_process(self) -> None:
        # A child made by fork shares the files, but has no thread that writes them.
        if self._process != os.getpid():
            raise AuditUnavailableError("The audit log was opened by another process.")


def _uses_the_reserve(draft: AuditDraft) -> bool:
    """Whether it tells of what has been done already, or of the system itself."""
    return draft.phase is Phase.OUTCOME or draft.kind.startswith("system.")

# SPDX-License-Identifier: MIT
"""Audit log over a medium: chained under its lock, and handed to its writer."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.medium import DONE, AuditMedium, BaselineStore, Reserve
from hsm_core._internal.audit.pruning import Pruner, RetentionRule, WatchedClock
from hsm_core._internal.audit.reading import pruned_before
from hsm_core._internal.audit.record import time_of
from hsm_core._internal.audit.verify import RecoveredLog
from hsm_core._internal.audit.writer import Flusher
from hsm_core._internal.lib.process import OpeningProcess
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
)
from hsm_core.model import AuditEvent, Phase, PruneDetail
from hsm_core.protocols import (
    AuditDraft,
    AuditDrafts,
    AuditHead,
    AuditHealth,
    AuditTicket,
    Clock,
    Entropy,
    KnownKey,
    UseDraft,
)
from hsm_core.settings import AuditSync

_MIN_KEY_BYTES: Final = 32
_AT_ONCE: Final = (False,)
_LOG_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """
    How a log is written.

    Attributes:
        hmac_key: At least 32 bytes; what all keys of the log are derived from.
        clock: Gives the time of each record.
        entropy: Gives the id of a new log.
        sync: When a ticket is done.
        timeout_seconds: How long an append may take before it fails.
        node: Name of this node in the log.
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
                f"hmac_key must be at least {_MIN_KEY_BYTES} bytes, "
                f"got {len(self.hmac_key)}."
            )

    def new_log_id(self) -> str:
        """Return the id of a new log, 32 hex digits."""
        return self.entropy.random_bytes(_LOG_ID_BYTES).hex()


class BaseAuditLog(ABC):
    """
    Reading and pruning of an open audit log, whatever it is written on.

    Args:
        chain: End of the log.

        store: Records and baselines, for pruning.

        baseline: Baseline of the records that are pruned already.

        clock: Gives the time of each record.

        hmac_key: Key of the audit log.
    """

    def __init__(
        self,
        chain: Chain,
        store: BaselineStore,
        baseline: Baseline | None,
        *,
        clock: Clock,
        hmac_key: bytes,
    ) -> None:
        self._process = OpeningProcess()
        self._lock = threading.Lock()
        self._chain = chain
        self._clock = WatchedClock(clock)
        self._rule = RetentionRule(self._clock, chain.end.mark.seq, self._times)
        self._pruning = threading.Lock()
        self._pruner = Pruner(
            store, log_id=chain.log_id, hmac_key=hmac_key, baseline=baseline
        )

    @property
    def log_id(self) -> str:
        """Random identifier of this audit log, 32 hex digits."""
        return self._chain.log_id

    @property
    def first_seq(self) -> int:
        """Oldest record that is still there; all before it were pruned."""
        return self._pruner.first_seq

    def baseline(self) -> Iterator[KnownKey]:
        """
        Return what the pruned records said of each key.

        Raises:
            AuditTamperedError: It was altered.
            AuditUnavailableError: It can't be read.
        """
        return self._pruner.known()

    def prunable(self, before: int, /) -> int:
        """
        Return the seq up to which (exclusive) a prune may remove records.

        Args:
            before: Microseconds since 1970; see `RetentionRule`.

        Raises:
            AuditUnavailableError: The audit log can't be read.
            AuditTamperedError: It is damaged.
        """
        head = self.head().seq
        return self._rule.prunable(self.first_seq, self._floor(), head, before)

    def _floor(self) -> int:
        """Return the first record that no prune may reach: that of an open intent."""
        with self._lock:
            return self._chain.end.mark.floor

    def _times(self, seq: int, limit: int) -> list[int]:
        lines = self.lines(seq, limit)
        return [time_of(line) for line in lines]

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
            end = min(seq, self._floor(), head)
            self._pruner.finish(self.durable_head().seq)
            return self._pruner.prune(end, policy, head, self.lines, self._append_prune)

    def _check_process(self) -> None:
        # A child made by fork shares the files, but has no thread that writes them.
        if not self._process.is_this():
            raise AuditUnavailableError("The audit log was opened by another process.")

    def _append_prune(self, detail: PruneDetail) -> AuditTicket:
        draft = AuditDraft(phase=Phase.SINGLE, kind="system.prune", detail=detail)
        return self.append([draft], durable=True, reserved=True)

    def _announce(self, drafts: Sequence[AuditDraft | UseDraft]) -> None:
        """Tell the pruner about the record of its prune, before it can be written."""
        if isinstance(drafts[-1].detail, PruneDetail):
            self._pruner.announce(self._chain.end.mark.seq)

    @abstractmethod
    def append(
        self,
        drafts: AuditDrafts,
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """Append records; see `AuditLog.append`."""

    @abstractmethod
    def head(self) -> AuditHead:
        """Return position and leaf hash of the newest record that was written."""

    @abstractmethod
    def durable_head(self) -> AuditHead:
        """Return position and leaf hash of the newest record that is durable."""

    @abstractmethod
    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """Return up to *limit* written records from *start_seq* on, without newline."""


class DurableAuditLog(BaseAuditLog):
    """
    An `AuditLog` over a medium.

    Records are hashed and authenticated in the calling thread. In bounded mode it
    writes them too, and another thread syncs them; else that one does both. After a
    failed write or sync appends are refused until the medium has healed.

    Args:
        medium: Where records go; closed with the log.

        reserve: Room for the records that matter when the disk is full.

        recovered: Content found at opening.

        options: How the log is written.
    """

    def __init__(
        self,
        medium: AuditMedium,
        reserve: Reserve,
        recovered: RecoveredLog,
        options: AuditOptions,
    ) -> None:
        chain = Chain(
            log_id=recovered.head.log_id,
            hmac_key=options.hmac_key,
            node=options.node,
            random=options.entropy.random_bytes,
            end=recovered.end,
        )
        super().__init__(
            chain,
            medium,
            recovered.baseline,
            clock=options.clock,
            hmac_key=options.hmac_key,
        )
        self._medium = medium
        self._open_events = recovered.end.open_events()
        self._set_digest_at_open = recovered.end.mark.set_digest
        self._closed = False
        self._flusher = self._begin_writer(chain, medium, reserve, options)

    def _begin_writer(
        self, chain: Chain, medium: AuditMedium, reserve: Reserve, options: AuditOptions
    ) -> Flusher:
        return Flusher(
            self._lock,
            chain,
            medium,
            reserve,
            clock=self._clock,
            sync=options.sync,
            timeout_seconds=options.timeout_seconds,
        )

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
        """How the log is."""
        if not self._process.is_this():
            return AuditHealth(state="failing")
        return self._flusher.health

    @property
    def set_digest_at_open(self) -> str:
        """The newest set digest that the log held when it was opened, or empty."""
        return self._set_digest_at_open

    def append(
        self,
        drafts: AuditDrafts,
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """
        Append records; see `AuditLog.append`.

        Raises:
            AuditUnavailableError: The log can't be written.
            InvalidInputError: A draft can't be recorded; none of them was.
        """
        # Each use comes here, so calls that decide nothing as a rule are not made.
        if not self._process.mark[0]:
            self._check_process()
        flusher, chain, before, rings = self._flusher, self._chain, None, True
        records: list[Record] = []
        held: list[bool] = []
        try:
            # An interrupt can't come between taking the lock and noting it: that is one
            # call of C.
            held.extend(map(self._lock.acquire, _AT_ONCE))
            if not held[0]:
                flusher.wait_for_lock(held)
            if callable(drafts):
                drafts = drafts()
                if not drafts:
                    return DONE
            flusher.check(drafts, reserved=reserved)
            before = chain.end
            records = chain.extend(drafts, self._clock.now())
            if drafts[-1].detail is not None:
                self._announce(drafts)
            return flusher.enqueue(records, durable=durable, lazy=lazy)
        except BaseException:
            # An interrupt may come before the writer has them: then the next
            # records must not follow on them.
            if before is not None and not flusher.has_taken(records):
                chain.end = before
            raise
        finally:
            if held and held[-1]:
                try:
                    try:
                        rings = flusher.must_ring()
                    finally:
                        self._lock.release()
                finally:
                    if rings:
                        flusher.ring()

    def hand_over(self) -> None:
        """Let no caller write itself from now on; see `AuditLog.hand_over`."""
        self._flusher.hand_over()

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
        Return up to *limit* written records from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: The log can't be read, or is closed.
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
                is released, and the log is left as after a crash. Or writing still
                hangs; then the lock is released once it does no more.
        """
        if self._closed or not self._process.is_this():
            return
        if not self._flusher.close():
            raise AuditUnavailableError("The audit log was not written in time.")
        self._closed = True
        failure = self._flusher.failure
        if failure is not None:
            raise AuditUnavailableError from failure

# SPDX-License-Identifier: MIT
"""Audit log in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.log import BaseAuditLog
from hsm_core._internal.audit.medium import DONE
from hsm_core._internal.audit.reading import pruned_before
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import AuditEvent
from hsm_core.protocols import (
    AuditDrafts,
    AuditHead,
    AuditHealth,
    AuditTicket,
    Clock,
    Entropy,
)


class _MemoryLines:
    """Lines of an audit log, and of its baseline; a `BaselineStore`."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._first_seq = 0
        self._lines: list[bytes] = []
        self._kept: Sequence[bytes] = ()
        self._staged: Sequence[bytes] = ()

    def add(self, records: Iterable[Record]) -> None:
        """Append records."""
        with self._guard:
            self._lines += [(facts + entry)[:-1] for facts, entry in records]

    def read(self, start_seq: int, limit: int) -> list[bytes]:
        """
        Return up to *limit* lines from *start_seq* on, without newline.

        Raises:
            InvalidInputError: They were pruned.
        """
        with self._guard:
            start = start_seq - self._first_seq
            if start < 0:
                raise pruned_before(self._first_seq)
            return self._lines[start : start + limit]

    def boundary(self, seq: int, /) -> int:
        """Return *seq*: every record can be removed by itself."""
        return seq

    def stage(self, _next_seq: int, lines: Sequence[bytes], /) -> None:
        """Keep a baseline that does not count yet."""
        self._staged = lines

    def adopt_with(
        self, record_seq: int, next_seq: int, adopted: Callable[[], None], /
    ) -> None:
        """Do nothing: `adopt` can't fail."""

    def adopt(self) -> None:
        """Replace the baseline by the staged one."""
        self._kept = self._staged

    def settle(self) -> None:
        """Do nothing: memory has no later durability."""

    @contextmanager
    def open_baseline(
        self, _next_seq: int, /
    ) -> Iterator[Callable[[], Iterable[bytes]]]:
        """Give the baseline that counts."""
        kept = self._kept
        yield lambda: kept

    def remove(self, first_seq: int, /) -> None:
        """Remove the lines before a record."""
        with self._guard:
            del self._lines[: first_seq - self._first_seq]
            self._first_seq = first_seq


class MemoryAuditLog(BaseAuditLog):
    """
    `AuditLog` in memory, discarded on close.

    Args:
        hmac_key: What the key of the records' MACs is derived from.

        clock: Gives the time of each record.

        entropy: Gives the log's id.

        node: Name of this node in the log.
    """

    def __init__(
        self, hmac_key: bytes, *, clock: Clock, entropy: Entropy, node: str = ""
    ) -> None:
        self._stored = _MemoryLines()
        self._closed = False
        chain = Chain(
            log_id=entropy.random_bytes(16).hex(),
            hmac_key=hmac_key,
            node=node,
            random=entropy.random_bytes,
        )
        super().__init__(chain, self._stored, None, clock=clock, hmac_key=hmac_key)

    @property
    def available(self) -> bool:
        """Whether the next append may succeed."""
        return not self._closed

    @property
    def set_digest_at_open(self) -> str:
        """Empty: the log began when it was opened."""
        return ""

    @property
    def health(self) -> AuditHealth:
        """Health of the audit log."""
        return AuditHealth(state="ok" if self.available else "failing")

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
            AuditUnavailableError: The log is closed.
            InvalidInputError: A draft can't be recorded; none of them was.
        """
        with self._lock:
            self._check_open()
            if callable(drafts):
                drafts = drafts()
                if not drafts:
                    return DONE
            before = self._chain.end
            try:
                records = self._chain.extend(drafts, self._clock.now())
                self._announce(drafts)
                self._stored.add(records)
            except BaseException:
                self._chain.end = before
                raise
        return DONE

    def hand_over(self) -> None:
        """Do nothing: memory is never waited for."""

    def head(self) -> AuditHead:
        """Return the newest record's position and leaf hash."""
        with self._lock:
            mark = self._chain.end.mark
            return AuditHead(mark.seq, mark.leaf_hash)

    def durable_head(self) -> AuditHead:
        """Return the same: nothing is more durable later than at once."""
        return self.head()

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: The log is closed.
            InvalidInputError: *start_seq* lies before `first_seq`.
        """
        self._check_open()
        return self._stored.read(max(start_seq, 0), max(limit, 0))

    def open_intents(self) -> list[AuditEvent]:
        """Return nothing: the log began when it was opened."""
        return []

    def close(self) -> None:
        """Refuse everything from now on."""
        with self._lock:
            self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise AuditUnavailableError("The audit log is closed.")

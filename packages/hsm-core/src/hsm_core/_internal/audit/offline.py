# SPDX-License-Identifier: MIT
"""Verifiers of an audit log without its HSM, and pages that they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from hsm_core._internal.audit.reading import EventFilter
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.audit.verify import Look, OfflineVerification, of_events
from hsm_core.model import AuditEntry, AuditEvent
from hsm_core.operations import AuditPage, ListAuditEvents


class OfflineVerifier(ABC):
    """Verifier of the audit log in one place."""

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> OfflineVerification:
        """
        Verify every record, and the end against the head mark.

        Args:
            progress: Called now and then with the number of records verified.

            look: Called with each good record, with some more than once; its exceptions
                end the verification.

        Raises:
            AuditTamperedError: The log is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            WrongAuditKeyError: The key is not the log's.
            StoreLockedError: A process has its database open.
            ConfigurationError: There is no audit log, or it can't be read.
        """
        return self._verified(progress, of_events(look))

    def read(self, look: Look, look_from: int = 0) -> OfflineVerification:
        """
        Verify every record, and show records from one on.

        Args:
            look: Called with each of them, facts line and entry, and its seq; with some
                more than once.

            look_from: The first; a negative number counts from the end that the head
                mark names.

        Raises:
            HSMError: See `verify`.
        """
        return self._verified(None, look, look_from)

    @abstractmethod
    def _verified(
        self,
        progress: Callable[[int], None] | None,
        look: Look | None,
        look_from: int = 0,
    ) -> OfflineVerification:
        """Verify the log; see `verify` and `read`."""


def entry_for(events: EventFilter, record: bytes, seq: int) -> AuditEntry | None:
    """Return the entry of a good record; None if the filter does not let it through."""
    if not events.lets_through(record):
        return None
    event = event_of(record, seq)
    if not events.matches(event):
        return None
    return AuditEntry(event=event, leaf_hash=leaf_hash(record))


def read_page(
    log: OfflineVerifier, query: ListAuditEvents, events: EventFilter
) -> AuditPage:
    """
    Verify an audit log, and return the page of a query.

    Args:
        log: Verifier of the log.

        query: The query.

        events: Filter of the query.

    Raises:
        HSMError: See `OfflineVerifier.read`.
    """
    found: deque[AuditEntry] = deque()
    is_longer = False
    first, last = _bounds(query)

    def look(record: bytes, seq: int) -> None:
        nonlocal is_longer
        # A log that changed while it was read is read once more.
        while found and found[-1].event.seq >= seq:
            found.pop()
        if last is not None and seq > last:
            return
        entry = entry_for(events, record, seq)
        if entry is None:
            return
        if len(found) == query.limit:
            is_longer = True
            if query.ascending:
                return
            found.popleft()
        found.append(entry)

    verified = log.read(look, first)
    if not query.ascending:
        is_longer = is_longer or (first != 0 and len(found) == query.limit)
        found.reverse()
    step = 1 if query.ascending else -1
    return AuditPage(
        items=tuple(found),
        next_seq=found[-1].event.seq + step if found and is_longer else None,
        head_seq=verified.head_seq,
        head_hash=verified.head_hash,
    )


def _bounds(query: ListAuditEvents) -> tuple[int, int | None]:
    """Return the first and the last record to look at; see `verify_log` for both."""
    start, limit = query.start_seq, query.limit
    if query.ascending:
        return start or 0, None
    if query != ListAuditEvents(start_seq=start, limit=limit):
        return 0, start
    return -limit if start is None else max(start + 1 - limit, 0), start

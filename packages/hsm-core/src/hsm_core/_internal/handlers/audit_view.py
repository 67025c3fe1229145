# SPDX-License-Identifier: MIT
"""View of one audit log: its records that pass the filters of a query."""

from __future__ import annotations

from typing import Final, NamedTuple

from hsm_core import operations as ops
from hsm_core._internal.audit.reading import (
    EventFilter,
    LogLabel,
    RecordSource,
    lines_from,
)
from hsm_core._internal.audit.record import event_of, leaf_hash
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.time.clock import microseconds
from hsm_core.model import AuditEntry
from hsm_core.protocols import AuditHead

_BLOCK: Final = 500
_SCANNED: Final = 10_000
"""Maximum number of records scanned per call; bounds calls with rare filters."""


def filter_of(operation: ops.ListAuditEvents) -> EventFilter:
    """Return the filter of a query."""
    return EventFilter(
        operation,
        microseconds(operation.since) if operation.since else None,
        microseconds(operation.until) if operation.until else None,
    )


def learn_keys(
    services: HandlerDependencies, operation: ops.ListAuditEvents, events: EventFilter
) -> None:
    """
    Look up the key that a filter names, beside those that it has named before.

    Raises:
        HSMError: It can't be looked up.
    """
    reference = operation.key_id
    entry = services.inventory.entry(reference) if reference else None
    if entry is not None:
        events.learn_keys((entry.key_id,))


class Scan(NamedTuple):
    """
    Part of a log that was scanned.

    Attributes:
        items: Records that pass the filter.
        position: Record at which the next scan goes on.
        is_ended: Whether no record is left.
        last: Last record scanned, with its sequence number; None for none.
    """

    items: list[AuditEntry]
    position: int
    is_ended: bool
    last: tuple[int, bytes] | None


class View:
    """
    The records of one log that the filters of an operation let through.

    Args:
        source: The log.

        operation: Checked already.

        events: Its filter.

        label: Names the log in entries; None on a single machine.
    """

    def __init__(
        self,
        source: RecordSource,
        operation: ops.ListAuditEvents,
        events: EventFilter,
        label: LogLabel | None = None,
    ) -> None:
        self._source = source
        self._named = (label.log_id, label.node) if label else ("", "")
        self._operation = operation
        self._filter = events

    def page(self, start_seq: int | None, head: AuditHead) -> ops.AuditPage:
        """
        Return a page of this log alone.

        Args:
            start_seq: As in the operation.

            head: The newest record that may be shown.

        Raises:
            AuditTamperedError: A record that may have to be shown is bad.
            AuditUnavailableError: The log can't be read.
        """
        found = self.scan(start_seq, head)
        more = self._operation.follow or not found.is_ended
        return ops.AuditPage(
            items=tuple(found.items),
            next_seq=found.position if more else None,
            head_seq=head.seq,
            head_hash=head.leaf_hash,
        )

    def scan(self, start_seq: int | None, head: AuditHead) -> Scan:
        """
        Scan the log a block at a time until the page or the bound is full.

        Args and errors: see `page`.
        """
        operation = self._operation
        items: list[AuditEntry] = []
        first = self._source.first_seq
        position = _start(start_seq, head, first, ascending=operation.ascending)
        scanned, last = 0, None
        while first <= position <= head.seq and scanned < _SCANNED:
            block = self._block(position, head)
            for seq, line in block:
                if len(items) == operation.limit:
                    break
                position = seq + (1 if operation.ascending else -1)
                scanned, last = scanned + 1, (seq, line)
                if not self._filter.lets_through(line):
                    continue
                event = event_of(line, seq)
                if self._filter.matches(event):
                    log_id, node = self._named
                    items.append(
                        AuditEntry(
                            event=event,
                            leaf_hash=leaf_hash(line),
                            log_id=log_id,
                            node=node,
                        )
                    )
            if len(items) == operation.limit or not block:
                break
        oldest = 0 if operation.ascending else first
        is_ended = not oldest <= position <= head.seq
        return Scan(items, position, is_ended, last)

    def _block(self, position: int, head: AuditHead) -> list[tuple[int, bytes]]:
        """Return lines around a position; none if they were pruned meanwhile."""
        if self._operation.ascending:
            wanted, last = position, min(position + _BLOCK - 1, head.seq)
        else:
            wanted, last = max(0, position - _BLOCK + 1), position
        first, lines = lines_from(self._source, wanted, last + 1 - wanted)
        lines = lines[: max(last + 1 - first, 0)]
        block = list(enumerate(lines, first))
        return block if self._operation.ascending else block[::-1]


def _start(
    start_seq: int | None, head: AuditHead, first: int, *, ascending: bool
) -> int:
    if start_seq is None:
        return first if ascending else head.seq
    return max(start_seq, first) if ascending else min(start_seq, head.seq)

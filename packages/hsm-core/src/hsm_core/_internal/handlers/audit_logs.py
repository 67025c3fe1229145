# SPDX-License-Identifier: MIT
"""Audit logs of a cluster: pages of all of them, and verification one by one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.audit.reading import LogCatalog, LogLabel
from hsm_core._internal.audit.record import event_of, head_of
from hsm_core._internal.handlers.audit_view import Scan, View, filter_of, learn_keys
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core.errors import InvalidInputError
from hsm_core.model import AuditEntry

_CURSOR: Final = re.compile(r"([0-9a-f]{32})([0-9]{1,16})")


def unknown_log() -> InvalidInputError:
    """Return the error for a log that does not exist."""
    return InvalidInputError("log_id names no audit log.", field="log_id")


def label_of(logs: LogCatalog, log_id: str) -> LogLabel:
    """
    Return a log of a cluster.

    Raises:
        InvalidInputError: There is none of this ID.
    """
    for label in logs.names():
        if label.log_id == log_id:
            return label
    raise unknown_log()


class _LogPart:
    """
    Records of one log that a page may show, and where the next page goes on in it.

    Args:
        label: The log.

        scan: What was found.

        size: Number of records that the log had then.

        step: 1 for oldest first, or -1.
    """

    def __init__(self, label: LogLabel, scan: Scan, size: int, step: int) -> None:
        self.label = label
        self.position = scan.position
        self.is_ended = scan.is_ended
        self.size = size
        # Within a log, the order of its records counts, whatever its clock did.
        times = (step * entry.event.time for entry in scan.items)
        self.entries = list(zip(accumulate(times, max), scan.items, strict=True))
        self.reached: int | None = None
        if scan.last is not None and not scan.is_ended:
            last = step * _time_of(*scan.last)
            self.reached = max(last, self.entries[-1][0] if self.entries else last)

    def keep(self, shown: int) -> None:
        """Leave all but the first entries to the next page."""
        if shown < len(self.entries):
            self.position = self.entries[shown][1].event.seq
            self.is_ended = False


def _time_of(seq: int, line: bytes) -> int:
    found = head_of(line)
    return event_of(line, seq).time if found is None else found.time


def _merged(parts: Sequence[_LogPart], limit: int) -> list[AuditEntry]:
    """
    Return the first entries of several logs in order of time, and keep the others.

    Where a log was not scanned to its end, entries of the others behind the time that
    the scan has reached wait for the rest of it.
    """
    limits = [part.reached for part in parts if part.reached is not None]
    reached = min(limits, default=None)
    order = [
        (time, number, entry)
        for number, part in enumerate(parts)
        for time, entry in part.entries
        if reached is None or time <= reached
    ]
    order.sort(key=lambda found: found[:2])
    counts = Counter(number for _, number, _ in order[:limit])
    for number, part in enumerate(parts):
        part.keep(counts[number])
    return [entry for _, _, entry in order[:limit]]


class MergedView:
    """
    The records of all logs of a cluster that the filters of an operation let through.

    Args:
        services: Dependencies of the handlers.

        operation: Checked already.

        logs: Logs of the cluster.

    Attributes:
        is_behind: Whether the last page has left records to the next one.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        operation: ops.ListAuditEvents,
        logs: LogCatalog,
    ) -> None:
        self._services = services
        self._operation = operation
        self._logs = logs
        self._filter = filter_of(operation)
        self._ends: dict[str, tuple[bytes, int]] = {}
        self.is_behind = False

    def learn_keys(self) -> None:
        """
        Look up the key that the filter names; see `learn_keys`.

        Raises:
            HSMError: It can't be looked up.
        """
        learn_keys(self._services, self._operation, self._filter)

    def page(self, cursor: str) -> ops.AuditPage:
        """
        Return a page of all logs, in order of time.

        Args:
            cursor: As in the operation.

        Raises:
            InvalidInputError: The cursor is none of ours.
            AuditTamperedError: A record that may have to be shown is bad.
            AuditUnavailableError: A log can't be read.
        """
        is_live = self._operation.follow
        parts = self._parts(cursor)
        shown = _merged(parts, self._operation.limit)
        self.is_behind = any(not part.is_ended for part in parts)
        self._ends = {
            part.label.log_id: (part.label.written, part.position)
            for part in parts
            if part.is_ended
        }
        head = self._services.audit.head()
        return ops.AuditPage(
            items=tuple(shown),
            next_seq=None,
            head_seq=head.seq,
            head_hash=head.leaf_hash,
            next_cursor=_cursor(
                (part.label, part.position)
                for part in parts
                if is_live or not part.is_ended
            ),
            head_cursor=(
                "" if cursor else _cursor((part.label, part.size) for part in parts)
            ),
        )

    def _parts(self, cursor: str) -> list[_LogPart]:
        """Scan the logs that a cursor names, or all of them."""
        is_live, labels = self._operation.follow, self._logs.names()
        if is_live and cursor == ops.FROM_NOW:
            return [self._end(label) for label in labels]
        starts = _starts(cursor)
        if not is_live and starts.keys() - {label.log_id for label in labels}:
            raise _invalid_cursor()
        # A list has shown to its end what its cursor does not name. A log that is in no
        # cursor of a live view has begun since.
        return [
            self._scan(label, starts.get(label.log_id))
            for label in labels
            if is_live or not starts or label.log_id in starts
        ]

    def _scan(self, label: LogLabel, start_seq: int | None) -> _LogPart:
        """Scan a log, unless the page before has shown all that it holds."""
        if start_seq and self._ends.get(label.log_id) == (label.written, start_seq):
            return _LogPart(label, _nothing(start_seq), start_seq, 1)
        operation, source = self._operation, self._logs.log(label.log_id)
        head = source.head()
        view = View(source, operation, self._filter, label)
        step = 1 if operation.ascending else -1
        return _LogPart(label, view.scan(start_seq, head), head.seq + 1, step)

    def _end(self, label: LogLabel) -> _LogPart:
        """Return the end of a log, without a record."""
        size = self._logs.log(label.log_id).head().seq + 1
        return _LogPart(label, _nothing(size), size, 1)


def _nothing(position: int) -> Scan:
    return Scan([], position, is_ended=True, last=None)


def _cursor(positions: Iterable[tuple[LogLabel, int]]) -> str:
    return ",".join(f"{label.log_id}{position}" for label, position in positions)


def _starts(cursor: str) -> dict[str, int]:
    """Return the next record of each log."""
    found = [_CURSOR.fullmatch(part) for part in cursor.split(",")] if cursor else []
    starts = {part[1]: int(part[2]) for part in found if part is not None}
    if len(starts) != len(found):
        raise _invalid_cursor()
    return starts


def _invalid_cursor() -> InvalidInputError:
    return InvalidInputError(
        "cursor must be the next_cursor value of an earlier page.", field="cursor"
    )


def verify_next(logs: LogCatalog, operation: ops.VerifyAudit) -> ops.AuditVerification:
    """
    Verify a range of one log of a cluster, and name the log after it.

    Raises:
        InvalidInputError: There is no such log.
        HSMError: See `VerifyAudit`.
    """
    labels = list(logs.names())
    ids = [label.log_id for label in labels]
    if operation.log_id and operation.log_id not in ids:
        raise unknown_log()
    at = ids.index(operation.log_id) if operation.log_id else 0
    found = logs.log(ids[at]).verify(operation.start_seq, operation.limit)
    after = ids[at + 1] if at + 1 < len(ids) else ""
    return replace(found, node=labels[at].node, log_id=ids[at], next_log_id=after)

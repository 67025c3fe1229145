# SPDX-License-Identifier: MIT
"""Audit logs of a cluster: pages of all of them, and verification one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.audit.reading import LogCatalog, LogLabel
from hsm_core.errors import InvalidInputError
from hsm_core.model import AuditEntry
from hsm_core.protocols import AuditHead

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


def merged_page(
    operation: ops.ListAuditEvents,
    logs: LogCatalog,
    page_of: Callable[[LogLabel, int | None], ops.AuditPage],
    head: AuditHead,
) -> ops.AuditPage:
    """
    Return a page of the records of all logs, in order of time.

    Args:
        operation: The query.

        logs: Logs of the cluster.

        page_of: Returns a page of one log, from a record on.

        head: Newest record of this node's log.

    Raises:
        InvalidInputError: The cursor is none of ours.
    """
    starts = _starts(operation.cursor)
    pages = [
        (label, page_of(label, starts.get(label.log_id)))
        for label in logs.names()
        if not starts or label.log_id in starts
    ]
    # Within a log, the order of its records counts, whatever its clock did.
    step = 1 if operation.ascending else -1
    order: list[tuple[int, int, AuditEntry]] = []
    for number, (_, page) in enumerate(pages):
        reached = 0
        for place, entry in enumerate(page.items):
            time = step * entry.event.time
            reached = time if place == 0 else max(reached, time)
            order.append((reached, number, entry))
    order.sort(key=lambda found: found[:2])
    shown = order[: operation.limit]
    taken = [0] * len(pages)
    for _, number, _ in shown:
        taken[number] += 1
    rest = []
    for count, (label, page) in zip(taken, pages, strict=True):
        left = page.items[count].event.seq if count < len(page.items) else page.next_seq
        if left is not None:
            rest.append(f"{label.log_id}{left}")
    return ops.AuditPage(
        items=tuple(entry for _, _, entry in shown),
        next_seq=None,
        head_seq=head.seq,
        head_hash=head.leaf_hash,
        next_cursor=",".join(rest),
    )


def _starts(cursor: str) -> dict[str, int]:
    """Return the next record of each log."""
    found = [_CURSOR.fullmatch(part) for part in cursor.split(",")] if cursor else []
    starts = {part[1]: int(part[2]) for part in found if part is not None}
    if len(starts) != len(found):
        raise InvalidInputError(
            "cursor must be next_cursor of a page before.", field="cursor"
        )
    return starts


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
    return replace(found, node=labels[at].node, next_log_id=after)

# SPDX-License-Identifier: MIT
"""Events decoded from stored lines, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import FRAME, decode_event
from hsm_core._internal.lib import envelope
from hsm_core.errors import MalformedError
from hsm_core.model import AuditEvent
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditLog

_BLOCK: Final = 1000


def event_of(line: bytes, seq: int) -> AuditEvent:
    """
    Return the event of a stored line.

    Raises:
        AuditTamperedError: It is no event, or not number *seq*.
    """
    try:
        event = decode_event(envelope.split(FRAME, line)[0])
    except MalformedError:
        event = None
    if event is None or event.seq != seq:
        raise tampered(Reason.EVENT, seq)
    return event


def verified_events(
    audit: AuditLog, verify: Callable[[int, int], AuditVerification], start: int
) -> Iterator[AuditEvent]:
    """
    Yield the events up to the current head, verifying each record.

    Args:
        audit: The trail.

        verify: Verifies a range of it, given the first record and how many.

        start: The first record.

    Raises:
        AuditTamperedError: A record is bad.
        AuditUnavailableError: The trail can't be read.
    """
    seq, head = start, audit.head()
    while seq <= head.seq:
        verify(seq, _BLOCK)
        for line in audit.lines(seq, _BLOCK):
            yield event_of(line, seq)
            seq += 1

# SPDX-License-Identifier: MIT
"""Answers of the stub that are live views of an audit log."""

from hsm_core import errors, wire
from hsm_core.model import AuditEntry
from tests.client.stub import PROBLEM, Fault, answer, problem, stream

DENIED = answer(403, PROBLEM, problem(errors.AccessDeniedError()))


def block(entry: AuditEntry) -> bytes:
    """Return an entry as a server sends it."""
    data = wire.encode_json(entry)
    return f"id: {entry.event.seq + 1}\nevent: entry\ndata: ".encode() + data + b"\n\n"


def streamed(*entries: AuditEntry, then: bytes = b"", whole: bool = True) -> Fault:
    """Return the answer that shows entries."""
    return stream([*map(block, entries), then], whole=whole)

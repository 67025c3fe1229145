# SPDX-License-Identifier: MIT
"""Reasons for which verification rejects an audit log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from hsm_core.errors import AuditTamperedError


class Reason(StrEnum):
    """Fault of the first bad record, or of the audit log as a whole."""

    FRAMING = "framing"
    MAC = "mac"
    FORMAT = "format"
    EVENT = "event"
    FACTS = "facts"
    LOG_ID = "log_id"
    SEQUENCE = "sequence"
    CHAIN = "chain"
    SEGMENT = "segment"
    MARK = "mark"
    TORN = "torn"
    SHORTER = "shorter"
    AFTER_CLEAN = "after_clean"
    AFTER_CLOSE = "after_close"
    AFTER_MARK = "after_mark"
    DATABASE = "database"
    PRUNED = "pruned"
    BASELINE = "baseline"
    HEAD_MISSING = "head_missing"
    HEAD_DAMAGED = "head_damaged"
    LOG_MISSING = "log_missing"
    CUT = "cut"
    HEADS = "heads"
    STALE_USE = "stale_use"
    UNNAMED = "unnamed"
    UNSETTLED = "unsettled"


_SENTENCES: Final = {
    Reason.FRAMING: "its framing is invalid",
    Reason.MAC: "its MAC is wrong",
    Reason.FORMAT: "its format is supported only by a newer release",
    Reason.EVENT: "its members are not in the canonical form of format 2",
    Reason.FACTS: "its facts line is missing, altered or misplaced",
    Reason.LOG_ID: "it belongs to another audit log",
    Reason.SEQUENCE: "its sequence number is out of order",
    Reason.CHAIN: "its hash does not match the previous record",
    Reason.SEGMENT: "the segments before and after it do not connect",
    Reason.MARK: "it differs from the record that the head mark names",
    Reason.TORN: "its line is truncated in a place that a crash can't explain",
    Reason.SHORTER: "it is missing, and the head mark names it",
    Reason.AFTER_CLEAN: "it was added after the log was closed cleanly",
    Reason.AFTER_CLOSE: "it was added after the log was closed for good",
    Reason.AFTER_MARK: "it lies past the end that the head mark names",
    Reason.DATABASE: "the database is damaged from here on, or has unknown tables",
    Reason.PRUNED: "it is missing, and no pruning record accounts for it",
    Reason.BASELINE: "the baseline kept from the pruned records before it was altered",
    Reason.HEAD_MISSING: "the head mark is missing",
    Reason.HEAD_DAMAGED: "the head mark was altered",
    Reason.LOG_MISSING: "it names a log that is missing",
    Reason.CUT: "it is missing, and another log names it",
    Reason.HEADS: "it differs from the record that another log names",
    Reason.STALE_USE: "the use was decided on an outdated state of its key",
    Reason.UNNAMED: "another log grew over ten seconds earlier, but no record names it",
    Reason.UNSETTLED: "the intent has no outcome, and its node has stopped",
}


def tampered(reason: Reason, seq: int) -> AuditTamperedError:
    """Return the error that names the first bad record and the reason."""
    return AuditTamperedError(
        f"The audit log is damaged at record {seq}: {_SENTENCES[reason]}.",
        seq=seq,
        reason=reason.value,
    )


@contextmanager
def faults_of(log_id: str, owner: str = "") -> Iterator[None]:
    """Name a log in the faults that are found in it."""
    try:
        yield
    except AuditTamperedError as error:
        if "log_id" in error.facts:
            raise
        raise AuditTamperedError(
            f"{error} It is the log {log_id}{owner}.", **error.facts, log_id=log_id
        ) from None


def damaged_ledger(error: AuditTamperedError) -> str:
    """Return the message for a damaged retention ledger."""
    seq, reason = error.facts.get("seq", 0), error.facts.get("reason")
    why = f": {_SENTENCES[Reason.FORMAT]}" if reason == Reason.FORMAT else ""
    return f"The retention ledger is damaged at record {seq}{why}."

# SPDX-License-Identifier: MIT
"""Why a trail is not believed: names for programs, sentences for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from hsm_core.errors import AuditTamperedError


class Reason(StrEnum):
    """What is wrong with the first bad record, or with the trail as a whole."""

    FRAMING = "framing"
    MAC = "mac"
    FORMAT = "format"
    EVENT = "event"
    LOG_ID = "log_id"
    EPOCH = "epoch"
    SEQUENCE = "sequence"
    CHAIN = "chain"
    SEGMENT = "segment"
    MARK = "mark"
    TORN = "torn"
    SHORTER = "shorter"
    AFTER_CLEAN = "after_clean"
    AFTER_MARK = "after_mark"
    DATABASE = "database"
    PRUNED = "pruned"
    BASELINE = "baseline"
    HEAD_MISSING = "head_missing"
    HEAD_DAMAGED = "head_damaged"


_SENTENCES: Final = {
    Reason.FRAMING: "it is not framed as a record",
    Reason.MAC: "its MAC is wrong",
    Reason.FORMAT: "it has a format that only a newer release knows; use that one",
    Reason.EVENT: "its event is not in the one form of format 1",
    Reason.LOG_ID: "it belongs to another trail",
    Reason.EPOCH: "its epoch is not the trail's",
    Reason.SEQUENCE: "another record stands in its place",
    Reason.CHAIN: "it does not follow from the record before",
    Reason.SEGMENT: "the segments do not join here",
    Reason.MARK: "it is not the record that the head mark names",
    Reason.TORN: "its line is torn, where no crash can have torn it",
    Reason.SHORTER: "the head mark knows it, and it is gone",
    Reason.AFTER_CLEAN: "it came after the trail was closed in order",
    Reason.AFTER_MARK: "it came after the end that the head mark names",
    Reason.DATABASE: "the database is damaged from here on, or has other tables",
    Reason.PRUNED: "it was removed, and no record of a prune tells so",
    Reason.BASELINE: "what is kept of the pruned records before it was changed",
    Reason.HEAD_MISSING: "the head mark is missing",
    Reason.HEAD_DAMAGED: "the head mark was changed",
}


def tampered(reason: Reason, seq: int) -> AuditTamperedError:
    """Return the error that names the first bad record and the reason."""
    return AuditTamperedError(
        f"The audit trail is damaged at record {seq}: {_SENTENCES[reason]}.",
        seq=seq,
        reason=reason.value,
    )


def damaged_ledger(error: AuditTamperedError) -> str:
    """Return what is to be said of a ledger, which is read as a trail is."""
    seq, reason = error.facts.get("seq", 0), error.facts.get("reason")
    why = f": {_SENTENCES[Reason.FORMAT]}" if reason == Reason.FORMAT else ""
    return f"The retention ledger is damaged at record {seq}{why}."

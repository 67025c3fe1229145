# SPDX-License-Identifier: MIT
"""Errors ↔ records, as they travel between processes and in JSON output."""

from __future__ import annotations

import msgspec

from hsm_core.errors import ApprovalRequiredError, Fact, HSMError, error_classes
from hsm_core.model import Record
from hsm_core.operations.approvals import ApprovalInfo

__all__ = ["ErrorRecord", "asked_approval", "error_from_record", "error_record"]


class ErrorRecord(Record, frozen=True, kw_only=True):
    """
    An error as it travels.

    Attributes:
        approval: Of an `ApprovalRequiredError`, what other people are asked.
    """

    code: str
    message: str
    facts: dict[str, Fact] = msgspec.field(default_factory=dict)
    approval: ApprovalInfo | None = None


def error_record(error: HSMError) -> ErrorRecord:
    """Return the form of an error that travels."""
    return ErrorRecord(
        code=error.code,
        message=str(error),
        facts=error.facts,
        approval=asked_approval(error),
    )


def asked_approval(error: HSMError) -> ApprovalInfo | None:
    """Return what other people are asked where an error says that they must agree."""
    approval = error.approval if isinstance(error, ApprovalRequiredError) else None
    return approval if isinstance(approval, ApprovalInfo) else None


def error_from_record(record: ErrorRecord) -> HSMError:
    """Return the error that a record stands for; an unknown code becomes `HSMError`."""
    cls = error_classes().get(record.code, HSMError)
    error = cls.from_wire(record.message, record.facts)
    if isinstance(error, ApprovalRequiredError):
        error.approval = record.approval
    return error

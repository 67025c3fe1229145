# SPDX-License-Identifier: MIT
"""What an approval begins with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from hsm_core.errors import InputSizeError, InvalidInputError
from hsm_core.identities import identity
from hsm_core.model import Approval, ApprovalState, Parameters

__all__ = ["ApprovalRequest", "is_approval_id", "new_approval"]

_APPROVAL_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MOST_SECONDS: Final = 366 * 24 * 3600
_MOST_PEOPLE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """
    What somebody wants to be approved.

    Attributes:
        approval_id: A new random UUID, in lower-case canonical form.
        seconds: For how long it may be granted and used.

    The others are those of `Approval`.
    """

    approval_id: str
    kind: str
    digest: str
    requester: str
    quorum: int
    seconds: int
    key_id: str = ""
    parameters: Parameters = field(default_factory=dict)
    rule: str = ""
    policy: str = ""


def is_approval_id(text: str) -> bool:
    """Return whether *text* is a UUID in lower-case canonical form (RFC 9562)."""
    return _APPROVAL_ID.fullmatch(text) is not None


def new_approval(request: ApprovalRequest, now: int) -> Approval:
    """
    Return the pending approval that a request begins with.

    Raises:
        InvalidInputError: A field of the request can't be one.
    """
    _check_request(request)
    return Approval(
        approval_id=request.approval_id,
        generation=1,
        state=ApprovalState.PENDING,
        kind=request.kind,
        digest=request.digest,
        requester=request.requester,
        quorum=request.quorum,
        created_at=now,
        expires_at=now + request.seconds * 1_000_000,
        key_id=request.key_id,
        parameters=request.parameters,
        rule=request.rule,
        policy=request.policy,
    )


def _check_request(request: ApprovalRequest) -> None:
    if not is_approval_id(request.approval_id):
        raise InvalidInputError(
            "approval_id must be a UUID in lower-case canonical form.",
            field="approval_id",
        )
    if not _DIGEST.fullmatch(request.digest):
        raise InvalidInputError("digest must be 64 hex digits.", field="digest")
    if not identity(request.requester):
        raise InvalidInputError("requester must not be empty.", field="requester")
    if not 1 <= request.quorum <= _MOST_PEOPLE:
        raise InputSizeError(
            "quorum",
            actual=request.quorum,
            minimum=1,
            maximum=_MOST_PEOPLE,
            unit="people",
        )
    if not 1 <= request.seconds <= _MOST_SECONDS:
        raise InputSizeError(
            "seconds",
            actual=request.seconds,
            minimum=1,
            maximum=_MOST_SECONDS,
            unit="seconds",
        )

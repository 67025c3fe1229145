# SPDX-License-Identifier: MIT
"""Approval requests: the initial state of an approval."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hsm_core.errors import InputSizeError, InvalidInputError
from hsm_core.identities import identity
from hsm_core.model import Approval, ApprovalDemand, ApprovalState

_APPROVAL_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MOST_SECONDS: Final = 366 * 24 * 3600
_MOST_PEOPLE: Final = 100
_MOST_USES: Final = 1_000_000

MOST_DEMANDS: Final = 16
"""Maximum number of demands of one approval; its record has no space for more."""


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
    demands: tuple[ApprovalDemand, ...]
    seconds: int
    salt: bytes = b""
    shown_sha256: str = ""
    sealed: bytes = b""
    key_id: str = ""
    credential_id: str = ""
    certificate_sha256: str = ""
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
        demands=request.demands,
        created_at=now,
        expires_at=now + request.seconds * 1_000_000,
        salt=request.salt,
        shown_sha256=request.shown_sha256,
        sealed=request.sealed,
        uses_left=min(demand.uses for demand in request.demands),
        key_id=request.key_id,
        credential_id=request.credential_id,
        certificate_sha256=request.certificate_sha256,
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
    _check_number("demands", len(request.demands), 1, MOST_DEMANDS, "demands")
    _check_number("seconds", request.seconds, 1, _MOST_SECONDS, "seconds")
    for demand in request.demands:
        # Records that a program has built were checked by nobody.
        _check_number("quorum", demand.quorum, 1, _MOST_PEOPLE, "people")
        _check_number("uses", demand.uses, 1, _MOST_USES, "uses")
        _check_number("seconds", demand.seconds, 1, _MOST_SECONDS, "seconds")


def _check_number(
    field: str, actual: int, minimum: int, maximum: int, unit: str
) -> None:
    if not minimum <= actual <= maximum:
        raise InputSizeError(
            field, actual=actual, minimum=minimum, maximum=maximum, unit=unit
        )

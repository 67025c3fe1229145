# SPDX-License-Identifier: MIT
"""
The stored form of an approval, ``{"approval":{…},"mac":"…"}``.

It is authenticated before a word of it is believed. Stores, which hold no key to do
that with, take their index facts from it and believe none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import made_by_newer, newer_format
from hsm_core.errors import ApprovalTamperedError, Fact, MalformedError
from hsm_core.model import Approval, ApprovalState
from hsm_core.protocols import ApprovalEntry

MAX_RECORD_BYTES: Final = 64 * 1024
"""Maximum size of a stored approval, in bytes."""

_FORMAT: Final = 1
_NAME: Final = b"approval"
_ENCODER: Final = msgspec.json.Encoder()

# For a field name that is no UTF-8 msgspec raises UnicodeDecodeError.
_UNREADABLE: Final = (MalformedError, msgspec.DecodeError, UnicodeDecodeError)


class _Stored(Approval, frozen=True, kw_only=True):
    format: int


_DECODER: Final = msgspec.json.Decoder(_Stored)


def encode_approval(approval: Approval, mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of an approval."""
    facts = msgspec.structs.asdict(approval)
    payload = _ENCODER.encode(_Stored(format=_FORMAT, **facts))
    return encoding.join(_NAME, payload, mac_of(payload))


def decode_approval(
    approval_id: str, stored: bytes, mac_of: Callable[[bytes], bytes]
) -> Approval:
    """
    Authenticate a stored form and read it.

    Raises:
        ApprovalTamperedError: Its framing or MAC is wrong, it is another's, or a newer
            release has written it.
    """
    payload = None
    try:
        payload = encoding.check(_NAME, stored, mac_of)
        if payload is not None:
            approval = _read(approval_id, payload)
            if approval is not None:
                return approval
    except _UNREADABLE:
        pass
    newer = newer_format(payload or b"", _FORMAT)
    what = f"Approval {approval_id}"
    problem = f"{what} was tampered with."
    if newer:
        problem = made_by_newer(what, newer, _FORMAT)
    facts: dict[str, Fact] = {"format": newer} if newer else {}
    raise ApprovalTamperedError(problem, approval_id=approval_id, **facts) from None


def _read(approval_id: str, payload: bytes) -> Approval | None:
    found = _DECODER.decode(payload)
    if found.format != _FORMAT or found.approval_id != approval_id:
        return None
    facts = msgspec.structs.asdict(found)
    del facts["format"]
    return Approval(**facts)


def entry_of(approval: Approval) -> ApprovalEntry:
    """Return the index facts of an approval."""
    return ApprovalEntry(
        approval_id=approval.approval_id,
        generation=approval.generation,
        state=approval.state,
        requester=approval.requester,
        digest=approval.digest,
        created_at=approval.created_at,
        closed_at=approval.closed_at,
    )


def read_entry(approval_id: str, stored: bytes) -> ApprovalEntry:
    """
    Return index facts of a stored form, without believing it.

    What can't be read as this approval's is listed as one that is pending, so that
    searches for open requests report it.
    """
    try:
        approval = _read(approval_id, encoding.split(_NAME, stored)[0])
    except _UNREADABLE:
        approval = None
    if approval is not None:
        return entry_of(approval)
    return ApprovalEntry(
        approval_id=approval_id,
        generation=0,
        state=ApprovalState.PENDING,
        requester="",
        digest="",
        created_at=0,
    )


def instants_of(approval: Approval) -> list[int]:
    """Return the instants at which something happened to an approval."""
    decided = [decision.at for decision in approval.decisions]
    closed = [approval.closed_at] if approval.closed_at else []
    return [approval.created_at, *decided, *closed]


def latest_instant(approval: Approval) -> int:
    """Return the latest instant at which something happened to an approval."""
    return max(instants_of(approval))

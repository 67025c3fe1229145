# SPDX-License-Identifier: MIT
"""
Audit record: an event, its stored line and its leaf hash.

A line is ``{"event":{…},"mac":"<64 hex>"}``. An event has one canonical form: a line
that does not encode to the same bytes again is rejected on reading.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from hsm_core.errors import InputSizeError, InvalidInputError
from hsm_core.model import AuditEvent, Parameters, Phase
from hsm_core.protocols import AuditDraft

FORMAT: Final = 1
FRAME: Final = b"event"
GENESIS: Final = "0" * 64
"""``prev`` of the first record."""

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 7493, section 2.2)."""

MAX_LINE_BYTES: Final = 1024 * 1024
"""Longest line, without its newline."""

MAX_SET_DIGEST: Final = 128

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(AuditEvent)
_LOG_ID: Final = re.compile(r"[0-9a-f]{32}")
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_UNWRITABLE: Final = (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError)


def is_log_id(text: str) -> bool:
    """Return whether this is 32 lower-case hex digits."""
    return _LOG_ID.fullmatch(text) is not None


def leaf_hash(line: bytes) -> str:
    """
    Return the leaf hash of a line without its newline, hex.

    Standard:
        RFC 6962, section 2.1: SHA-256(0x00 ‖ line).
    """
    return hashlib.sha256(b"\0" + line).hexdigest()


def encode_event(event: AuditEvent) -> bytes:
    """
    Return the stored form of an event: JSON in the order of its fields.

    Raises:
        InvalidInputError: A text holds what UTF-8 can't.
        InputSizeError: The record would be longer than a line may be.
    """
    try:
        payload = _ENCODER.encode(event)
    except _UNWRITABLE as error:
        raise InvalidInputError("The event has no valid record form.") from error
    if len(payload) > MAX_LINE_BYTES - 128:
        raise InputSizeError(
            "audit event", actual=len(payload), maximum=MAX_LINE_BYTES - 128
        )
    return payload


def decode_event(payload: bytes) -> AuditEvent | None:
    """Return the event, or None if these are not the bytes of exactly one event."""
    try:
        event = _DECODER.decode(payload)
        canonical = _ENCODER.encode(event) == payload
    except _UNREADABLE:
        return None
    return event if canonical and _holds_safe_integers(event) else None


def check_draft(draft: AuditDraft) -> None:
    """
    Reject a draft whose record no reader would accept.

    Raises:
        InvalidInputError: An intent has no operation id, a number is not a safe
            integer, a parameter has no legal type, or the set digest is too long.
    """
    if draft.phase is Phase.INTENT and not draft.operation_id:
        raise InvalidInputError(
            "An intent record needs an operation id.", field="audit"
        )
    digest = draft.set_digest
    if digest and not (digest.isascii() and len(digest) <= MAX_SET_DIGEST):
        raise InvalidInputError("The set digest is too long.", field="audit")
    if not (
        0 <= draft.version <= MAX_INTEGER
        and 0 <= draft.generation <= MAX_INTEGER
        and (not draft.parameters or _are_legal(draft.parameters))
    ):
        raise InvalidInputError("The event has no valid record form.", field="audit")


def _holds_safe_integers(event: AuditEvent) -> bool:
    return (
        0 <= event.time <= MAX_INTEGER
        and 0 <= event.seq <= MAX_INTEGER
        and 0 <= event.version <= MAX_INTEGER
        and 0 <= event.generation <= MAX_INTEGER
        and (not event.parameters or _are_legal(event.parameters))
    )


def _are_legal(parameters: Parameters) -> bool:
    return all(map(_is_legal, parameters.values()))


def _is_legal(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str)

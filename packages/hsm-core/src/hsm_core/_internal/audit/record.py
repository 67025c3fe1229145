# SPDX-License-Identifier: MIT
"""Record format 1: event, stored line, keys, leaf hash, and reasons of rejection."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import hkdf_sha256, length_prefixed, mac_function
from hsm_core.errors import (
    AuditTamperedError,
    InputSizeError,
    InvalidInputError,
    MalformedError,
)
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


EPOCH: Final = 0
"""The only key epoch of format 1: the key never changes within an audit log."""

_RECORD_LABEL: Final = b"FerroHSM audit record 1"
_MARK_LABEL: Final = b"FerroHSM audit head mark 1"
_BASELINE_LABEL: Final = b"FerroHSM audit baseline 1"
_CHECK_LABEL: Final = b"FerroHSM audit key check 1"


def record_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over the bytes of an event, for one trail."""
    return _mac_function(hmac_key, log_id, _RECORD_LABEL)


def mark_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over a slot of the head mark, for one trail."""
    return _mac_function(hmac_key, log_id, _MARK_LABEL)


def baseline_mac(hmac_key: bytes, log_id: str) -> hmac.HMAC:
    """Return the MAC over a baseline, to be updated with its bytes."""
    mac = hmac.new(_key(hmac_key, log_id, _BASELINE_LABEL), digestmod="sha256")
    mac.update(_BASELINE_LABEL + b"\0")
    return mac


def key_check_value(hmac_key: bytes) -> bytes:
    """
    Return 32 bytes by which the HMAC key is recognised.

    They are the same for every audit log of one key, so that an edited log id is not
    mistaken for a wrong key.
    """
    return hkdf_sha256(hmac_key, salt=b"", info=length_prefixed(_CHECK_LABEL))


def _mac_function(
    hmac_key: bytes, log_id: str, label: bytes
) -> Callable[[bytes], bytes]:
    return mac_function(_key(hmac_key, log_id, label), label + b"\0")


def _key(hmac_key: bytes, log_id: str, label: bytes) -> bytes:
    return hkdf_sha256(
        hmac_key,
        salt=bytes.fromhex(log_id),
        info=length_prefixed(label, EPOCH.to_bytes(8, "big")),
    )


class Reason(StrEnum):
    """Fault of the first bad record, or of the audit log as a whole."""

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
    Reason.FRAMING: "its framing is invalid",
    Reason.MAC: "its MAC is wrong",
    Reason.FORMAT: "its format is supported only by a newer release",
    Reason.EVENT: "its event is not in the canonical form of format 1",
    Reason.LOG_ID: "it belongs to another audit log",
    Reason.EPOCH: "its key epoch is not this log's",
    Reason.SEQUENCE: "its sequence number is out of order",
    Reason.CHAIN: "its hash does not match the previous record",
    Reason.SEGMENT: "the segments before and after it do not connect",
    Reason.MARK: "it differs from the record that the head mark names",
    Reason.TORN: "its line is cut off where no crash can have cut it",
    Reason.SHORTER: "it is missing, and the head mark names it",
    Reason.AFTER_CLEAN: "it was added after the log was closed cleanly",
    Reason.AFTER_MARK: "it lies past the end that the head mark names",
    Reason.DATABASE: "the database is damaged from here on, or has unknown tables",
    Reason.PRUNED: "it is missing, and no pruning record accounts for it",
    Reason.BASELINE: "the baseline kept from the pruned records before it was altered",
    Reason.HEAD_MISSING: "the head mark is missing",
    Reason.HEAD_DAMAGED: "the head mark was altered",
}


def tampered(reason: Reason, seq: int) -> AuditTamperedError:
    """Return the error that names the first bad record and the reason."""
    return AuditTamperedError(
        f"The audit log is damaged at record {seq}: {_SENTENCES[reason]}.",
        seq=seq,
        reason=reason.value,
    )


def damaged_ledger(error: AuditTamperedError) -> str:
    """Return the message for a damaged retention ledger."""
    seq, reason = error.facts.get("seq", 0), error.facts.get("reason")
    why = f": {_SENTENCES[Reason.FORMAT]}" if reason == Reason.FORMAT else ""
    return f"The retention ledger is damaged at record {seq}{why}."


def event_of(line: bytes, seq: int) -> AuditEvent:
    """
    Return the event of a stored line.

    Raises:
        AuditTamperedError: It is no event, or not number *seq*.
    """
    try:
        event = decode_event(encoding.split(FRAME, line)[0])
    except MalformedError:
        event = None
    if event is None or event.seq != seq:
        raise tampered(Reason.EVENT, seq)
    return event

# SPDX-License-Identifier: MIT
"""Record format 1: event, stored line, keys, leaf hash, and reasons of rejection."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import (
    hkdf_sha256,
    length_prefixed,
    mac_function,
    newer_format,
)
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
_RECORD_START: Final = b'{"event":{"format":'
_RECORD_END: Final = re.compile(rb',"mac":"[0-9a-f]{64}"\}')
_HEAD: Final = re.compile(
    rb'\{"%b":\{"format":[0-9]+,"log_id":"[0-9a-f]*","seq":[0-9]+,"prev":"[0-9a-f]*",'
    rb'"epoch":[0-9]+,"time":([0-9]{1,16}),"phase":"([a-z]+)",'
    rb'"kind":"([^"\\]*)","code":"([^"\\]*)"' % FRAME
)
"""Start of a line, unless it holds escapes or is malformed."""

_LOG_ID: Final = re.compile(r"[0-9a-f]{32}")
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_UNWRITABLE: Final = (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError)

EPOCH: Final = 0
"""The only key epoch of format 1: the key never changes within an audit log."""

_RECORD_LABEL: Final = b"FerroHSM audit record 1"
_MARK_LABEL: Final = b"FerroHSM audit head mark 1"
_BASELINE_LABEL: Final = b"FerroHSM audit baseline 1"
_CHECK_LABEL: Final = b"FerroHSM audit key check 1"


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


def record_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over the bytes of an event, for one log."""
    return _mac_function(hmac_key, log_id, _RECORD_LABEL)


def mark_mac_function(hmac_key: bytes, log_id: str) -> Callable[[bytes], bytes]:
    """Return the MAC over a slot of the head mark, for one log."""
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


class RecordCodec:
    """
    Record format 1 of one audit log: encodes drafts, and authenticates stored lines.

    Args:
        log_id: 32 hex digits; None accepts the id in the first record.

        hmac_key: Key of the audit log; None leaves the MACs unchecked.

    Attributes:
        log_id: Id of the audit log; empty until the first record was decoded.
    """

    __slots__ = ("_hmac_key", "_mac_of", "log_id")

    def __init__(self, log_id: str | None, hmac_key: bytes | None) -> None:
        self.log_id = ""
        self._hmac_key = hmac_key
        self._mac_of: Callable[[bytes], bytes] | None = None
        if log_id is not None:
            self._adopt(log_id)

    def _adopt(self, log_id: str) -> None:
        self.log_id = log_id
        if self._hmac_key is not None:
            self._mac_of = record_mac_function(self._hmac_key, log_id)

    def encode(
        self, draft: AuditDraft, *, node: str, seq: int, prev: str, time: int
    ) -> bytes:
        """
        Return the line of a new record, without newline.

        Args:
            draft: Content of the record.

            node: Name of the node that writes it.

            seq: Sequence number.

            prev: Leaf hash of the previous record.

            time: Microseconds since 1970-01-01T00:00:00Z.

        Raises:
            InvalidInputError: The draft has no valid record form.
        """
        check_draft(draft)
        payload = encode_event(self._event(draft, node, seq, prev, time))
        if self._mac_of is None:
            raise ValueError("records can't be written without the key")
        return encoding.join(FRAME, payload, self._mac_of(payload))

    def _event(
        self, draft: AuditDraft, node: str, seq: int, prev: str, time: int
    ) -> AuditEvent:
        return AuditEvent(
            format=FORMAT,
            log_id=self.log_id,
            seq=seq,
            prev=prev,
            epoch=EPOCH,
            time=time,
            phase=draft.phase,
            kind=draft.kind,
            code=draft.code,
            node=node,
            request_id=draft.request_id,
            operation_id=draft.operation_id,
            key_id=draft.key_id,
            version=draft.version,
            generation=draft.generation,
            document_before=draft.document_before,
            document_after=draft.document_after,
            set_digest=draft.set_digest,
            caller=draft.caller,
            key=draft.key,
            parameters=draft.parameters,
            rule=draft.rule,
            policy=draft.policy,
            demands=draft.demands,
            approval_id=draft.approval_id,
            approval_signatures=draft.approval_signatures,
            digest=draft.digest,
            detail=draft.detail,
        )

    def decode(self, line: bytes, seq: int) -> AuditEvent:
        """
        Authenticate a line, given without newline, wherever it belongs in the log.

        Args:
            line: The stored line.

            seq: Sequence number to report if it is rejected.

        Raises:
            AuditTamperedError: It is no record of this audit log.
        """
        try:
            payload, mac = encoding.split(FRAME, line)
        except MalformedError:
            raise tampered(Reason.FRAMING, seq) from None
        if not self.log_id:
            self._adopt_from(payload, seq)
        mac_of = self._mac_of
        if mac_of is not None and not hmac.compare_digest(mac, mac_of(payload)):
            raise tampered(Reason.MAC, seq)
        event = decode_event(payload)
        if event is None or event.format != FORMAT:
            raise _unreadable(payload, seq)
        if event.log_id != self.log_id:
            raise tampered(Reason.LOG_ID, seq)
        if event.epoch != EPOCH:
            raise tampered(Reason.EPOCH, seq)
        return event

    def _adopt_from(self, payload: bytes, seq: int) -> None:
        event = decode_event(payload)
        if event is None or not is_log_id(event.log_id):
            raise _unreadable(payload, seq)
        self._adopt(event.log_id)

    def is_record(self, line: bytes) -> bool:
        """Return whether this is a record of this audit log, at any position."""
        try:
            self.decode(line, 0)
        except AuditTamperedError:
            return False
        return True

    def has_record(self, data: bytes) -> bool:
        """Return whether a whole record lies anywhere in these bytes."""
        # A newline that was changed joins two records, so lines alone are not enough;
        # and no text inside an event can hold the start of another, its quotes being
        # escaped.
        before = 0
        for found in _RECORD_END.finditer(data):
            start = data.rfind(_RECORD_START, before, found.start())
            if start >= 0 and self.is_record(data[start : found.end()]):
                return True
            before = found.end()
        return False


def _unreadable(payload: bytes, seq: int) -> AuditTamperedError:
    is_newer = newer_format(payload, FORMAT)
    return tampered(Reason.FORMAT if is_newer else Reason.EVENT, seq)


def claimed_event(line: bytes) -> AuditEvent | None:
    """Return the event of a line, unauthenticated; None if it is no event."""
    try:
        return decode_event(encoding.split(FRAME, line)[0])
    except MalformedError:
        return None


def claimed_seq(line: bytes) -> int | None:
    """Return a line's sequence number, unauthenticated; None if it is no event."""
    event = claimed_event(line)
    return None if event is None else event.seq


def is_chain(lines: Sequence[bytes], leaf: str) -> bool:
    """Return whether lines, without newline, lead to the one of this leaf hash."""
    for line in reversed(lines):
        event = claimed_event(line)
        if event is None or leaf_hash(line) != leaf:
            return False
        leaf = event.prev
    return True


def may_tell_of_prune(line: bytes) -> bool:
    """Return whether a line may be the record of a prune, without decoding it."""
    return b'"type":"prune"' in line


class RecordHead(NamedTuple):
    """First members of a stored record, found without decoding all of it."""

    time: int
    phase: bytes
    kind: bytes
    code: bytes


def head_of(line: bytes) -> RecordHead | None:
    """Return a line's first members; None if they hold escapes or are malformed."""
    found = _HEAD.match(line)
    return None if found is None else RecordHead(int(found[1]), *found.group(2, 3, 4))


def member(name: str, text: str) -> bytes:
    """Return the bytes that every record with this text holds; empty if unknown."""
    try:
        return b'"%b":%b' % (name.encode(), msgspec.json.encode(text)) if text else b""
    except UnicodeEncodeError:
        return b""


def event_of(line: bytes, seq: int) -> AuditEvent:
    """
    Return the event of a stored line.

    Raises:
        AuditTamperedError: It is no event, or not number *seq*.
    """
    event = claimed_event(line)
    if event is None or event.seq != seq:
        raise tampered(Reason.EVENT, seq)
    return event

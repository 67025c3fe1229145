# SPDX-License-Identifier: MIT
"""Record format 2: entries, their members, MAC and leaf hash."""

from __future__ import annotations

import hmac
import re
from binascii import hexlify
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from hsm_core._internal.audit import facts as facts_lines
from hsm_core._internal.audit.facts import (
    LIFETIME,
    MAX_LINE_BYTES,
    Facts,
    FactsBook,
    Record,
    entry_of,
    facts_line_of,
    named_by,
    numbers_of,
)
from hsm_core._internal.audit.keys import (
    SALT_BYTES,
    record_mac_function,
    salts_function,
)
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.uses import Uses, is_use
from hsm_core._internal.lib.encoding import StoredForm, newer_format
from hsm_core.errors import AuditTamperedError, InputSizeError, InvalidInputError
from hsm_core.model import (
    ApprovalDemand,
    AuditDetail,
    AuditEvent,
    LogBegunDetail,
    Parameters,
    Phase,
)
from hsm_core.protocols import AuditDraft, UseDraft

FORMAT: Final = 2
GENESIS: Final = "0" * 64
"""``prev`` of the first record."""

BEGUN: Final = "system.log-begun"
CLOSED: Final = "system.log-closed"
MEMBERS: Final = 137
"""Where the members of an entry begin."""

CLOSED_KIND: Final = b'"kind":"%b"' % CLOSED.encode()

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 7493, section 2.2)."""

MAX_SET_DIGEST: Final = 128

START: Final = b'{"format":2,"seq":"'
"""First bytes of an entry."""

SEQ: Final = slice(19, 35)
PREV: Final = slice(45, 109)
TIME: Final = slice(119, 135)
MAC_BYTES: Final = 74
"""Length of ``,"mac":"``, 64 hex digits and ``"}``."""

_BEFORE_MAC: Final = b',"mac":"'
_AFTER_MAC: Final = b'"}'
_HEX: Final = b"0123456789abcdef"
_ENTRY: Final = re.compile(
    rb'\{"format":2,"seq":"[0-9a-f]{16}","prev":"[0-9a-f]{64}","time":"[0-9]{16}",'
    rb'.+,"mac":"[0-9a-f]{64}"\}'
)
_RECORD_END: Final = re.compile(rb',"mac":"[0-9a-f]{64}"\}')
_HEAD: Final = re.compile(
    rb'.{119}([0-9]{16})","kind":"([^"\\]*)"(?:,"phase":"([a-z]+)")?'
    rb'(?:,"code":"([^"\\]*)")?,"(?!(?:phase|code)")'
)
"""Start of an entry, unless it holds escapes or is malformed."""

_LOG_ID: Final = re.compile(r"[0-9a-f]{32}")
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_UNWRITABLE: Final = (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError)


class Entry(StoredForm, frozen=True, kw_only=True):
    """Stored members of an entry, in their order; as in `AuditEvent`."""

    format: int
    seq: str
    prev: str
    time: str
    kind: str
    phase: Phase = Phase.SINGLE
    code: str = "ok"
    request_id: str = ""
    facts: str = ""
    numbers: tuple[int, ...] = ()
    revision: int = 0
    bind: str = ""
    operation_id: str = ""
    intent_log: str = ""
    key_id: str = ""
    version: int = 0
    generation: int = 0
    document_before: str = ""
    document_after: str = ""
    set_digest: str = ""
    demands: tuple[ApprovalDemand, ...] = ()
    approval_id: str = ""
    approval_signatures: tuple[str, ...] = ()
    digest: str = ""
    detail: AuditDetail | None = None
    mac: str = ""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Entry)
_encode: Final = _ENCODER.encode


_NEW_HASH: Final = sha256()


def _sha256(data: bytes) -> str:
    """Return SHA-256, hex; copying a hash is faster than looking the algorithm up."""
    own = _NEW_HASH.copy()
    own.update(data)
    return own.hexdigest()


def is_log_id(text: str) -> bool:
    """Return whether this is 32 lower-case hex digits."""
    return _LOG_ID.fullmatch(text) is not None


def leaf_hash(record: bytes) -> str:
    """
    Return the leaf hash of a record's entry, hex.

    Standard:
        RFC 6962, section 2.1: SHA-256(0x00 ‖ entry).
    """
    return _sha256(b"\0" + entry_of(record))


def decode_entry(entry: bytes) -> Entry | None:
    """Return an entry's members, or None if these are not the bytes of exactly one."""
    if not is_framed(entry):
        return None
    try:
        found = _DECODER.decode(entry)
        canonical = _ENCODER.encode(found) == entry
    except _UNREADABLE:
        return None
    return found if canonical and _holds_safe_integers(found) else None


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
        and 0 <= draft.revision <= MAX_INTEGER
        and (not draft.parameters or _are_legal(draft.parameters))
    ):
        raise InvalidInputError("The event has no valid record form.", field="audit")


def _holds_safe_integers(entry: Entry) -> bool:
    return (
        int(entry.time) <= MAX_INTEGER
        and 0 <= entry.version <= MAX_INTEGER
        and 0 <= entry.generation <= MAX_INTEGER
        and 0 <= entry.revision <= MAX_INTEGER
        and all(map(_is_legal, entry.numbers))
    )


def _are_legal(parameters: Parameters) -> bool:
    return all(map(_is_legal, parameters.values()))


def _is_legal(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str)


class RecordCodec:
    """
    Record format 2 of one audit log: encodes drafts, and authenticates entries.

    Args:
        log_id: 32 hex digits; None accepts the id in the first record.

        hmac_key: Key of the audit log; None leaves the MACs unchecked.

        random: Source of salts; only writers need one.

    Attributes:
        log_id: Id of the audit log; empty until the first record was decoded.
    """

    __slots__ = (
        "_book",
        "_hmac_key",
        "_mac_of",
        "_salts",
        "_salts_from",
        "log_id",
    )

    def __init__(
        self,
        log_id: str | None,
        hmac_key: bytes | None,
        random: Callable[[int], bytes] | None = None,
    ) -> None:
        self.log_id = ""
        self._hmac_key = hmac_key
        self._book = None if random is None else FactsBook(random)
        self._mac_of: Callable[[bytes], bytes] | None = None
        self._salts_from: Callable[[int], bytes] = lambda _: b""
        self._salts = 0, b""
        if log_id is not None:
            self._adopt(log_id)

    def _adopt(self, log_id: str) -> None:
        self.log_id = log_id
        if self._hmac_key is not None:
            self._mac_of = record_mac_function(self._hmac_key, log_id)
            self._salts_from = salts_function(self._hmac_key, log_id)

    def encode(
        self, draft: AuditDraft, seq: int, prev: str, time: int
    ) -> tuple[Record, str]:
        """
        Return a new record, and the leaf hash of its entry.

        Args:
            draft: Content of the record.

            seq: Sequence number.

            prev: Leaf hash of the previous record.

            time: Microseconds since 1970-01-01T00:00:00Z.

        Raises:
            InvalidInputError: The draft has no valid record form.
            InputSizeError: A line would be too long.
        """
        text = self._facts().of_draft(draft, time)
        check_draft(draft)
        has_place = draft.phase is not Phase.SINGLE
        entry = Entry(
            format=FORMAT,
            seq=f"{seq:016x}",
            prev=prev,
            time=str(time).zfill(16),
            kind=draft.kind,
            phase=draft.phase,
            code=draft.code,
            request_id=draft.request_id,
            facts="" if text is None else text.digest,
            numbers=numbers_of(draft.parameters),
            revision=draft.revision,
            bind=self._binding(seq, draft.bound),
            operation_id=draft.operation_id,
            intent_log=draft.intent_log,
            key_id=draft.key_id if has_place else "",
            version=draft.version if has_place else 0,
            generation=draft.generation if has_place else 0,
            document_before=draft.document_before,
            document_after=draft.document_after,
            set_digest=draft.set_digest,
            demands=draft.demands,
            approval_id=draft.approval_id,
            approval_signatures=draft.approval_signatures,
            digest=draft.digest,
            detail=draft.detail,
        )
        return self._sealed(b"" if text is None else text.line, entry)

    def encode_use(
        self, draft: UseDraft, seq: int, prev: str, time: int
    ) -> tuple[Record, str]:
        """Return the record of a use; see `encode`."""
        text = draft.facts.encoded
        if (
            text is None
            or text.book is not self._book
            or not 0 <= time - text.made_at < LIFETIME
        ):
            text = self._facts().of_facts(draft.facts, time)
        entry = Entry(
            format=FORMAT,
            seq=f"{seq:016x}",
            prev=prev,
            time=str(time).zfill(16),
            kind=text.kind,
            code=draft.code,
            request_id=draft.request_id,
            facts=text.digest,
            numbers=draft.numbers,
            revision=draft.revision,
            bind=self._binding(seq, draft.bound),
            digest=draft.digest,
            detail=draft.detail,
        )
        return self._sealed(text.line, entry)

    def _facts(self) -> FactsBook:
        if self._book is None:
            raise ValueError("records can't be written without key and salts")
        return self._book

    def _binding(self, seq: int, bound: bytes) -> str:
        """Return ``bind`` of an entry."""
        if not bound:
            return ""
        first, salts = self._salts
        at = (seq - first) * SALT_BYTES
        if not 0 <= at < len(salts):
            at, salts = 0, self._salts_from(seq)
            self._salts = seq, salts
        return _sha256(b"\4" + salts[at : at + SALT_BYTES] + bound)

    def _sealed(self, facts: bytes, members: Entry) -> tuple[Record, str]:
        """Return a record, given its entry without MAC, and the leaf hash."""
        assert self._mac_of is not None  # noqa: S101 (for the type checker)
        try:
            body = _encode(members)[:-1]
        except _UNWRITABLE as error:
            raise InvalidInputError("The event has no valid record form.") from error
        entry = body + _BEFORE_MAC + hexlify(self._mac_of(body)) + _AFTER_MAC
        if len(entry) > MAX_LINE_BYTES:
            raise InputSizeError(
                "audit event", actual=len(entry), maximum=MAX_LINE_BYTES
            )
        return (facts, entry + b"\n"), _sha256(b"\0" + entry)

    def authenticate(self, entry: bytes, seq: int) -> None:
        """
        Check the frame and the MAC of an entry, wherever it belongs in the log.

        Args:
            entry: The stored line, without newline.

            seq: Sequence number to report if it is rejected.

        Raises:
            AuditTamperedError: It is no entry of this audit log.
        """
        mac_of = self._mac_of
        if mac_of is None:
            if not is_framed(entry):
                raise _unframed(entry, seq)
            if not self.log_id:
                self._adopt_from(entry, seq)
            if self._mac_of is not None:
                self.authenticate(entry, seq)
            return
        if not entry.startswith(START):
            raise _unframed(entry, seq)
        end = entry[-MAC_BYTES:]
        mac = _BEFORE_MAC + hexlify(mac_of(entry[:-MAC_BYTES])) + _AFTER_MAC
        if not hmac.compare_digest(end, mac):
            raise (
                tampered(Reason.MAC, seq) if is_framed(entry) else _unframed(entry, seq)
            )

    def are_authentic(self, uses: Uses) -> bool:
        """Return whether all uses have a right MAC; without a key, the form of one."""
        mac_of, macs = self._mac_of, b"".join(uses.macs)
        if mac_of is None:
            return not macs.translate(None, _HEX)
        right = b"".join([mac_of(entry[1:-MAC_BYTES]) for entry in uses.entries])
        return hmac.compare_digest(macs, right.hex().encode())

    def _adopt_from(self, entry: bytes, seq: int) -> None:
        found = decode_entry(entry)
        detail = None if found is None else found.detail
        if isinstance(detail, LogBegunDetail) and is_log_id(detail.log_id):
            self._adopt(detail.log_id)
        elif self._hmac_key is not None:
            raise tampered(Reason.LOG_ID, seq)

    def is_record(self, line: bytes) -> bool:
        """Return whether this is an entry of this audit log, at any position."""
        try:
            self.authenticate(line, 0)
        except AuditTamperedError:
            return False
        return decode_entry(line) is not None

    def has_record(self, data: bytes) -> bool:
        """Return whether a whole entry lies anywhere in these bytes."""
        # A newline that was changed joins two lines, so lines alone are not enough;
        # and no text inside an entry can hold the start of another, its quotes being
        # escaped.
        before = 0
        for found in _RECORD_END.finditer(data):
            start = data.rfind(START, before, found.start())
            if start >= 0 and self.is_record(data[start : found.end()]):
                return True
            before = found.end()
        return False


def is_framed(entry: bytes) -> bool:
    """Return whether bytes have the head and the end of an entry."""
    return b"\n" not in entry and _ENTRY.fullmatch(entry) is not None


def _unframed(entry: bytes, seq: int) -> AuditTamperedError:
    is_newer = newer_format(entry, FORMAT)
    return tampered(Reason.FORMAT if is_newer else Reason.FRAMING, seq)


def is_log_close(entry: bytes) -> bool:
    """Return whether an entry ends its log for good."""
    return entry.startswith(CLOSED_KIND, MEMBERS)


def changes_end(entry: bytes) -> bool:
    """Return whether an entry is more to the end of its log than the newest one."""
    return b',"phase":"' in entry or b',"set_digest":"' in entry or is_log_close(entry)


def check_members(entry: bytes, seq: int) -> None:
    """
    Check the form of an authentic entry.

    Raises:
        AuditTamperedError: It is not that of format 2.
    """
    if not is_use(entry) and decode_entry(entry) is None:
        raise tampered(Reason.EVENT, seq)


def claimed_entry(line: bytes) -> Entry | None:
    """Return the members of a line, unauthenticated; None if it is no entry."""
    return decode_entry(line) if is_framed(line) else None


def claimed_seq(line: bytes) -> int | None:
    """Return a line's sequence number, unauthenticated; None if it is no entry."""
    return int(line[SEQ], 16) if is_framed(line) else None


def time_of(record: bytes) -> int:
    """Return the time of a stored record, unauthenticated."""
    entry = entry_of(record)
    return int(entry[TIME]) if is_framed(entry) else 0


def is_chain(lines: Sequence[bytes], leaf: str) -> bool:
    """Return whether lines, without newline, lead to the entry of this leaf hash."""
    for line in reversed(lines):
        if line.startswith(facts_lines.START):
            continue
        if not is_framed(line) or leaf_hash(line) != leaf:
            return False
        leaf = line[PREV].decode()
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


def head_of(record: bytes) -> RecordHead | None:
    """Return a record's first members; None if they hold escapes or are malformed."""
    found = _HEAD.match(record, record.rfind(b"\n") + 1)
    if found is None:
        return None
    time, kind, phase, code = found.groups()
    return RecordHead(int(time), phase or b"single", kind, code or b"ok")


def member(name: str, text: str) -> bytes:
    """Return the bytes that every record with this text holds; empty if unknown."""
    try:
        return b'"%b":%b' % (name.encode(), msgspec.json.encode(text)) if text else b""
    except UnicodeEncodeError:
        return b""


def event_of(record: bytes, seq: int) -> AuditEvent:
    """
    Return the event of a record.

    Raises:
        AuditTamperedError: It is no record, or not number *seq*.
    """
    entry = decode_entry(entry_of(record))
    if entry is None or int(entry.seq, 16) != seq:
        raise tampered(Reason.EVENT, seq)
    return event_from(record, entry, seq)


def event_from(record: bytes, entry: Entry, seq: int) -> AuditEvent:
    """
    Return the event of a record, given its entry's members.

    Args:
        record: Facts line and entry.

        entry: The entry's members.

        seq: Sequence number to report if it is bad.

    Raises:
        AuditTamperedError: Its facts line is another than it names, or does not fit.
    """
    facts = _facts_of(record, entry, seq)
    parameters = facts.with_numbers(entry.numbers)
    if parameters is None:
        raise tampered(Reason.FACTS, seq)
    has_place = entry.phase is not Phase.SINGLE
    return AuditEvent(
        format=entry.format,
        seq=int(entry.seq, 16),
        prev=entry.prev,
        time=int(entry.time),
        kind=entry.kind,
        phase=entry.phase,
        code=entry.code,
        request_id=entry.request_id,
        facts=entry.facts,
        bind=entry.bind,
        revision=entry.revision,
        operation_id=entry.operation_id,
        intent_log=entry.intent_log,
        key_id=entry.key_id if has_place else facts.key_id,
        version=entry.version if has_place else facts.version,
        generation=entry.generation if has_place else facts.generation,
        document_before=entry.document_before,
        document_after=entry.document_after,
        set_digest=entry.set_digest,
        caller=facts.caller,
        key=facts.key,
        parameters=parameters,
        rule=facts.rule,
        policy=facts.policy,
        demands=entry.demands,
        approval_id=entry.approval_id,
        approval_signatures=entry.approval_signatures,
        digest=entry.digest,
        detail=entry.detail,
    )


_NO_FACTS: Final = Facts(None, None, "", 0, 0, {}, "", "")


def _facts_of(record: bytes, entry: Entry, seq: int) -> Facts:
    if not entry.facts:
        return _NO_FACTS
    check_facts(record, seq)
    found = facts_lines.parse(facts_line_of(record))
    if found is None:
        raise tampered(Reason.FACTS, seq)
    return found


def check_facts(record: bytes, seq: int) -> None:
    """
    Check that the facts line of a record is the one that its entry names.

    Raises:
        AuditTamperedError: It is not.
    """
    line = facts_line_of(record)
    named = named_by(entry_of(record))
    if line[facts_lines.HASH] != named or (line and facts_lines.parse(line) is None):
        raise tampered(Reason.FACTS, seq)

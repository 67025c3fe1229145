# SPDX-License-Identifier: MIT
"""
Facts lines: caller, key, rule and parameters that many records share.

Entries name a facts line by its hash. Each part of it is committed to with a salt of
its own, so that it can be disclosed alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.lib.encoding import StoredForm
from hsm_core.errors import InputSizeError, InvalidInputError
from hsm_core.model import AuditedCaller, AuditedKey, Phase
from hsm_core.model.records import ParameterValue
from hsm_core.protocols import AuditDraft, AuditFacts

START: Final = b'{"facts":"'
"""First bytes of a facts line; no entry begins with them."""

HASH: Final = slice(len(START), len(START) + 64)
SPAN: Final = 65_536
"""Maximum number of entries, from the next one on, that may refer to a facts line."""

MAX_LINE_BYTES: Final = 65_535
"""Longest line, without its newline."""

LIFETIME: Final = 3600 * 1_000_000
"""Time for which a facts line may be reused, in microseconds."""

_KEPT: Final = 1024
_LABELS: Final = (b"who", b"from", b"key", b"rule", b"parameters")
_SALT_BYTES: Final = 16
_NOTHING: Final = b"{}"
_MEMBER: Final = b',"facts":"'
_CERTIFICATE: Final = {
    "certificate_subject": "caller_certificate_subject",
    "certificate_names": "caller_certificate_names",
}
"""Members of *who* and the parameters that they stand for."""

Record: TypeAlias = tuple[bytes, bytes]
"""Record to be written: its facts line, or nothing, and its entry, with newlines."""

Template: TypeAlias = Mapping[str, str | list[str] | None]
"""Parameters; None stands for an integer, which the entry has."""

_UNWRITABLE: Final = (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError)
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError)


class _Who(StoredForm, frozen=True, kw_only=True):
    principal: str
    roles: tuple[str, ...] = ()
    credential_id: str = ""
    certificate_sha256: str = ""
    certificate_subject: str = ""
    certificate_names: tuple[str, ...] = ()


class _From(StoredForm, frozen=True, kw_only=True):
    source_address: str = ""
    interface: str = ""
    interface_claimed: str = ""


class _Key(StoredForm, frozen=True, kw_only=True):
    key_id: str = ""
    version: int = 0
    generation: int = 0
    algorithm: str = ""
    usages: tuple[str, ...] = ()
    name: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    state: str = ""


class _Rule(StoredForm, frozen=True, kw_only=True):
    rule: str = ""
    policy: str = ""


class _Line(StoredForm, frozen=True, kw_only=True):
    facts: str
    parts: tuple[
        tuple[str, str, msgspec.Raw],
        tuple[str, str, msgspec.Raw],
        tuple[str, str, msgspec.Raw],
        tuple[str, str, msgspec.Raw],
        tuple[str, str, msgspec.Raw],
    ]


_ENCODER: Final = msgspec.json.Encoder()
_LINES: Final = msgspec.json.Decoder(_Line)
_WHOS: Final = msgspec.json.Decoder(_Who)
_FROMS: Final = msgspec.json.Decoder(_From)
_KEYS: Final = msgspec.json.Decoder(_Key)
_RULES: Final = msgspec.json.Decoder(_Rule)
_PARAMETERS: Final = msgspec.json.Decoder(dict[str, str | list[str] | None])


class Facts(NamedTuple):
    """Content of a facts line; members as in `AuditFacts`."""

    caller: AuditedCaller | None
    key: AuditedKey | None
    key_id: str
    version: int
    generation: int
    parameters: Template
    rule: str
    policy: str

    def with_numbers(
        self, numbers: tuple[int, ...]
    ) -> dict[str, ParameterValue] | None:
        """Return the parameters with their integers; None if these do not fit."""
        rest = iter(numbers)
        try:
            found = {
                name: next(rest) if value is None else value
                for name, value in self.parameters.items()
            }
        except StopIteration:
            return None
        return found if next(rest, None) is None else None


class FactsText(NamedTuple):
    """
    Facts line of a writer.

    Attributes:
        line: With its newline.
        digest: By which an entry names it.
        kind: Kind of the uses that share it; empty for drafts of other kinds.
        made_at: Time when its salts were drawn, microseconds since 1970.
        book: Writer that it belongs to.
    """

    line: bytes
    digest: str
    made_at: int
    book: object
    kind: str = ""


class FactsBook:
    """
    Facts lines of one writer, each with new salts after an hour.

    Args:
        random: Returns that many random bytes.
    """

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._texts: dict[tuple[bytes, ...], FactsText] = {}

    def of_draft(self, draft: AuditDraft, now: int) -> FactsText | None:
        """
        Return the facts line of a draft, None if it has no facts.

        Raises:
            InvalidInputError: A text can't be encoded.
            InputSizeError: The line would be too long.
        """
        shows_key = draft.phase is Phase.SINGLE
        parts = _parts_of(draft, holes_of(draft.parameters), shows_key=shows_key)
        if parts == (_NOTHING,) * len(_LABELS):
            return None
        known = self._texts.get(parts)
        if known is None or not self.is_fresh(known, now):
            self._texts.pop(parts, None)
            known = self._texts[parts] = self._new(parts, now)
            if len(self._texts) > _KEPT:
                del self._texts[next(iter(self._texts))]
        return known

    def of_facts(self, facts: AuditFacts, now: int) -> FactsText:
        """
        Return the facts line of shared facts.

        Raises:
            InvalidInputError: A text can't be encoded.
            InputSizeError: The line would be too long.
        """
        known: FactsText | None = facts.encoded
        if known is None or not self.is_fresh(known, now):
            parts = _parts_of(facts, facts.parameters, shows_key=True)
            text = self._new(parts, now)
            known = facts.encoded = text._replace(kind=facts.kind)
        return known

    def is_fresh(self, text: FactsText, now: int) -> bool:
        """Return whether a facts line is of this writer, and may be used again."""
        # A clock that was set back makes it no younger.
        return text.book is self and 0 <= now - text.made_at < LIFETIME

    def _new(self, parts: tuple[bytes, ...], now: int) -> FactsText:
        salts = [self._random(_SALT_BYTES) for _ in parts]
        digest = _digest(parts, salts)
        shown = b",".join(
            b'["%b","%b",%b]' % (label, salt.hex().encode(), part)
            for label, salt, part in zip(_LABELS, salts, parts, strict=True)
        )
        line = b'%b%b","parts":[%b]}\n' % (START, digest.encode(), shown)
        if len(line) > MAX_LINE_BYTES:
            raise InputSizeError(
                "audit event", actual=len(line), maximum=MAX_LINE_BYTES
            )
        return FactsText(line, digest, now, self)


def holes_of(parameters: Mapping[str, ParameterValue]) -> Template:
    """Return parameters with None for each integer."""
    return {
        name: None if isinstance(value, int) else value
        for name, value in parameters.items()
    }


def numbers_of(parameters: Mapping[str, ParameterValue]) -> tuple[int, ...]:
    """Return the integers among parameters, in their order."""
    return tuple(value for value in parameters.values() if isinstance(value, int))


def _parts_of(
    source: AuditDraft | AuditFacts, parameters: Template, *, shows_key: bool
) -> tuple[bytes, ...]:
    caller, rest = source.caller, dict(parameters)
    try:
        return (
            _NOTHING if caller is None else _who(caller, rest),
            _NOTHING if caller is None else _ENCODER.encode(_from(caller)),
            _ENCODER.encode(_key(source, shows_key=shows_key)),
            _ENCODER.encode(_Rule(rule=source.rule, policy=source.policy)),
            _ENCODER.encode(rest),
        )
    except _UNWRITABLE as error:
        raise _unwritable() from error


def _unwritable() -> InvalidInputError:
    return InvalidInputError("The event has no valid record form.")


def _who(caller: AuditedCaller, parameters: dict[str, Any]) -> bytes:
    """Return the part of a caller; takes what it shows out of the parameters."""
    subject, names = _CERTIFICATE.values()
    return _ENCODER.encode(
        _Who(
            principal=caller.principal,
            roles=caller.roles,
            credential_id=caller.credential_id,
            certificate_sha256=caller.certificate_sha256,
            certificate_subject=parameters.pop(subject, ""),
            certificate_names=tuple(parameters.pop(names, ())),
        )
    )


def _from(caller: AuditedCaller) -> _From:
    return _From(
        source_address=caller.source_address,
        interface=caller.interface,
        interface_claimed=caller.interface_claimed,
    )


def _key(source: AuditDraft | AuditFacts, *, shows_key: bool) -> _Key:
    key = source.key
    place: dict[str, Any] = {}
    if shows_key:
        place = {
            "key_id": source.key_id,
            "version": source.version,
            "generation": source.generation,
        }
    if key is None:
        return _Key(**place)
    return _Key(
        **place,
        algorithm=key.algorithm,
        usages=key.usages,
        name=key.name,
        owner=key.owner,
        tags=key.tags,
        state=key.state,
    )


def _digest(parts: tuple[bytes, ...], salts: list[bytes]) -> str:
    whole = hashlib.sha256(b"\3")
    for label, salt, part in zip(_LABELS, salts, parts, strict=True):
        head = len(label).to_bytes(8, "big") + label
        whole.update(hashlib.sha256(b"\2" + head + salt + part).digest())
    return whole.hexdigest()


def named_by(entry: bytes) -> bytes:
    """Return the hash of the facts line that an entry names; empty for none."""
    # No text inside of an entry holds this: its quotes are escaped.
    at = entry.find(_MEMBER)
    return b"" if at < 0 else entry[at + len(_MEMBER) : at + len(_MEMBER) + 64]


@lru_cache(maxsize=256)
def parse(line: bytes) -> Facts | None:
    """Return the content of a facts line without newline; None if it is invalid."""
    try:
        found = _LINES.decode(line)
        parts = tuple(bytes(part) for _, _, part in found.parts)
        salts = [bytes.fromhex(salt) for _, salt, _ in found.parts]
        is_canonical = _ENCODER.encode(found) == line and all(
            (label, salt) == (part[0].encode(), bytes.fromhex(part[1]))
            and (len(salt), salt.hex()) == (_SALT_BYTES, part[1])
            for label, salt, part in zip(_LABELS, salts, found.parts, strict=True)
        )
        if not is_canonical or _digest(parts, salts) != found.facts:
            return None
        return _content(parts)
    except _UNREADABLE:
        return None


def _content(parts: tuple[bytes, ...]) -> Facts | None:
    who = None if parts[0] == _NOTHING else _WHOS.decode(parts[0])
    source, key, rule = (
        _FROMS.decode(parts[1]),
        _KEYS.decode(parts[2]),
        _RULES.decode(parts[3]),
    )
    template = _PARAMETERS.decode(parts[4])
    forms = (source, key, rule, template)
    if tuple(map(_ENCODER.encode, forms)) != parts[1:]:
        return None
    if who is not None and _ENCODER.encode(who) != parts[0]:
        return None
    certificate: dict[str, Any] = {}
    if who is not None:
        values = {name: getattr(who, name) for name in _CERTIFICATE}
        certificate = {
            _CERTIFICATE[name]: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value
        }
    return Facts(
        caller=None if who is None else _caller(who, source),
        key=_audited(key) if key.algorithm else None,
        key_id=key.key_id,
        version=key.version,
        generation=key.generation,
        parameters=certificate | template,
        rule=rule.rule,
        policy=rule.policy,
    )


def _caller(who: _Who, source: _From) -> AuditedCaller:
    return AuditedCaller(
        principal=who.principal,
        roles=who.roles,
        credential_id=who.credential_id,
        certificate_sha256=who.certificate_sha256,
        source_address=source.source_address,
        interface=source.interface,
        interface_claimed=source.interface_claimed,
    )


def _audited(key: _Key) -> AuditedKey:
    return AuditedKey(
        algorithm=key.algorithm,
        usages=key.usages,
        name=key.name,
        owner=key.owner,
        tags=key.tags,
        state=key.state,
    )


def entry_of(record: bytes) -> bytes:
    """Return the entry of a record."""
    return record[record.rfind(b"\n") + 1 :]


def facts_line_of(record: bytes) -> bytes:
    """Return the facts line of a record, without newline; empty if it has none."""
    return record[: max(record.find(b"\n"), 0)]


def record_of(stored: bytes) -> Record:
    """Return a stored record as it is to be written again."""
    line = facts_line_of(stored)
    return (line + b"\n" if line else b""), entry_of(stored) + b"\n"


class FactsTrack:
    """
    Facts lines of one segment, in the order of the entries that they stand before.

    Used by writers, which leave out a line that still serves, and by readers, which
    check the rules.

    Args:
        keeps_lines: Whether `joined` is asked; writers need no lines.
    """

    __slots__ = ("_first", "_is_bad", "_keeps_lines", "_lines", "_waiting")

    def __init__(self, *, keeps_lines: bool = True) -> None:
        self._keeps_lines = keeps_lines
        self._lines: dict[bytes, bytes] = {}
        self._first: dict[bytes, int] = {}
        self._waiting = b""
        self._is_bad = False

    @property
    def is_waiting(self) -> bool:
        """Whether the newest line has no entry behind it yet."""
        return bool(self._waiting) or self._is_bad

    def trimmed(self, record: Record, seq: int) -> bytes:
        """Return the bytes to be written, without a facts line that is there."""
        line, entry = record
        if not line or seq - self._first.get(line[HASH], -SPAN) < SPAN:
            return entry
        self.note([(seq, line)])
        return line + entry

    def due(self, records: Sequence[Record], first_seq: int) -> list[tuple[int, bytes]]:
        """
        Return the facts lines that records need, each with the number of its record.

        Nothing is noted; `note` does that once they are written.

        Args:
            records: The next ones.

            first_seq: Sequence number of the first one.

        Returns:
            Without newlines.
        """
        found: dict[bytes, tuple[int, bytes]] = {}
        for seq, (line, _) in enumerate(records, first_seq):
            digest = line[HASH]
            if line and digest not in found and not self._serves(digest, seq):
                found[digest] = seq, line[:-1]
        return list(found.values())

    def note(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Note facts lines that were written, each before the entry of this number."""
        for seq, line in lines:
            self._first[line[HASH]] = seq
            self._forget(seq)

    def copy(self, seq: int) -> FactsTrack:
        """Return a writer's track of the lines before entries below *seq*."""
        other = FactsTrack()
        other._first = self._first
        other.cut(seq)
        return other

    def cut(self, seq: int) -> None:
        """Forget the lines that stand before entries from *seq* on."""
        self._first = {d: first for d, first in self._first.items() if first < seq}

    def take(self, line: bytes, seq: int) -> None:
        """Take a stored facts line, without newline, that stands before entry *seq*."""
        digest = line[HASH]
        if self.is_waiting or self._serves(digest, seq) or parse(line) is None:
            self._is_bad = True
            return
        self._first[digest] = seq
        if self._keeps_lines:
            self._lines[digest] = line
        self._waiting = digest
        self._forget(seq)

    def take_earlier(self, line: bytes, seq: int) -> None:
        """Take a facts line whose entry *seq* is not read."""
        self.take(line, seq)
        self._waiting = b""

    def check(self, entry: bytes, seq: int) -> None:
        """
        Check the facts line that an entry names, and the one before it.

        Raises:
            AuditTamperedError: One is missing or violates a rule.
        """
        digest = named_by(entry)
        if (
            self._is_bad
            or (digest and not self._serves(digest, seq))
            or (self._waiting and self._waiting != digest)
        ):
            raise tampered(Reason.FACTS, seq)
        self._waiting = b""

    def serve(self, digests: Iterable[bytes], seq: int) -> bool:
        """Return whether lines serve entries from here to *seq*, and none waits."""
        return not self.is_waiting and all(self._serves(d, seq) for d in digests)

    def first_of(self, digest: bytes) -> int:
        """Return the entry that the facts line of a checked entry stands before."""
        return self._first[digest]

    def joined(self, entry: bytes) -> bytes:
        """Return the record of a checked entry."""
        line = self._lines.get(named_by(entry))
        return entry if line is None else b"%b\n%b" % (line, entry)

    def rewind(self, seq: int) -> None:
        """Forget the lines that stand before entries from *seq* on: they come again."""
        self.cut(seq)
        self._waiting, self._is_bad = b"", False

    def _forget(self, seq: int) -> None:
        """Forget lines that serve no more, now and then."""
        if len(self._first) > SPAN + SPAN // 4:
            self.cut_before(seq - SPAN + 1)

    def cut_before(self, seq: int) -> None:
        """Forget the lines that stand before entries below *seq*."""
        self._first = {d: first for d, first in self._first.items() if first >= seq}
        self._lines = {d: line for d, line in self._lines.items() if d in self._first}

    def _serves(self, digest: bytes, seq: int) -> bool:
        return seq - self._first.get(digest, -SPAN) < SPAN


class FactsCache:
    """
    Facts lines that readers of a log have met, up to a number.

    Args:
        find: Returns the line, without newline, that an entry names by its hash and
            seq; empty if there is none.
    """

    def __init__(self, find: Callable[[bytes, int], bytes]) -> None:
        self._find = find
        self._lines: dict[bytes, bytes] = {}

    def add(self, line: bytes) -> None:
        """Keep a line that was read."""
        while len(self._lines) >= _KEPT:
            self._lines.pop(next(iter(self._lines)), None)
        self._lines[line[HASH]] = line

    def joined(self, entry: bytes, seq: int) -> bytes:
        """
        Return the record of an entry; the entry alone if its facts line is missing.

        Raises:
            OSError: The line can't be read.
        """
        digest = named_by(entry)
        if not digest:
            return entry
        line = self._lines.get(digest)
        if line is None:
            line = self._find(digest, seq)
            if not line:
                return entry
            self.add(line)
        return b"%b\n%b" % (line, entry)

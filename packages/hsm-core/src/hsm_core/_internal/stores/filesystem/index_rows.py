# SPDX-License-Identifier: MIT
"""
Encoding of a saved index: a snapshot of all entries, and a journal of changes.

None of it is trusted. A checksum tells what a crash or a bad disk has damaged; then the
documents are read instead.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry

_MAGIC: Final = b"FHIX\x02"
_DIGEST_BYTES: Final = 32
_HEAD_BYTES: Final = 8


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    key_id: str
    created_at: int
    name: str
    algorithm: str
    state: str
    tags: tuple[str, ...]
    generation: int
    operations: tuple[str, ...]
    digest: str
    owner: str
    usages: tuple[str, ...]


class Boot(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """First step of a journal: since which start of the machine it is written."""

    boot_id: str


class Begun(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A key is about to be changed; unless more follows, it must be read again."""

    key_id: KeyId


class Put(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A key has this entry now."""

    row: _Row


class Gone(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A key has no entry any more."""

    key_id: KeyId


Step: TypeAlias = Boot | Begun | Put | Gone

_ENCODER: Final = msgspec.msgpack.Encoder()
_ROWS: Final = msgspec.msgpack.Decoder(list[_Row])
_STEP: Final = msgspec.msgpack.Decoder(Step)


class _Reader:
    """Makes entries of rows; texts and tags that are equal lie in memory once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._tags: dict[tuple[str, ...], frozenset[str]] = {}

    def entry(self, row: _Row) -> IndexEntry:
        tags = self._tags.get(row.tags)
        if tags is None:
            tags = self._tags[row.tags] = frozenset(row.tags)
        usages = self._tags.get(row.usages)
        if usages is None:
            usages = self._tags[row.usages] = frozenset(row.usages)
        return IndexEntry(
            key_id=KeyId(row.key_id),
            created_at=row.created_at,
            name=row.name,
            algorithm=self._texts.setdefault(row.algorithm, row.algorithm),
            state=self._texts.setdefault(row.state, row.state),
            tags=tags,
            generation=row.generation,
            operations=row.operations,
            digest=row.digest,
            owner=self._texts.setdefault(row.owner, row.owner),
            usages=usages,
        )


def put(entry: IndexEntry) -> Put:
    """Return the step that gives a key this entry."""
    return Put(_row_of(entry))


def entry_of(step: Put) -> IndexEntry:
    """Return the entry that a step gives to a key."""
    return _Reader().entry(step.row)


def _row_of(entry: IndexEntry) -> _Row:
    return _Row(
        entry.key_id,
        entry.created_at,
        entry.name,
        entry.algorithm,
        entry.state,
        tuple(sorted(entry.tags)),
        entry.generation,
        entry.operations,
        entry.digest,
        entry.owner,
        tuple(sorted(entry.usages)),
    )


def encode_snapshot(entries: Iterable[IndexEntry]) -> bytes:
    """Return the bytes of a snapshot; entries come back in their order."""
    payload = _ENCODER.encode([_row_of(entry) for entry in entries])
    return b"".join((_MAGIC, hashlib.sha256(payload).digest(), payload))


def decode_snapshot(stored: bytes) -> list[IndexEntry] | None:
    """Return the entries of a snapshot; None if it is damaged."""
    start = len(_MAGIC) + _DIGEST_BYTES
    payload = memoryview(stored)[start:]
    if not stored.startswith(_MAGIC) or len(stored) < start:
        return None
    if hashlib.sha256(payload).digest() != stored[len(_MAGIC) : start]:
        return None
    try:
        rows = _ROWS.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return list(map(_Reader().entry, rows))


def frame(step: Step) -> bytes:
    """Return the bytes of a step: length, checksum, payload."""
    payload = _ENCODER.encode(step)
    head = len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big")
    return head + payload


def steps_of(stored: bytes) -> Iterator[Step | None]:
    """Return the steps of a journal in order, and None at the end if more is torn."""
    position = 0
    while position < len(stored):
        begin = position + _HEAD_BYTES
        head = stored[position:begin]
        end = begin + int.from_bytes(head[:4], "big")
        payload = stored[begin:end]
        if end > len(stored) or zlib.crc32(payload) != int.from_bytes(head[4:], "big"):
            yield None
            return
        try:
            yield _STEP.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield None
            return
        position = end

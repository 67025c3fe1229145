# SPDX-License-Identifier: MIT
"""
Key documents: the commit point of each key, and its stored form.

A document holds a key's metadata, the state of every version, the digest of every
sealed blob, and recent operations. It is stored as ``{"key":{…},"mac":"…"}`` and
authenticated before any field is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from hsm_core._internal.lib import envelope
from hsm_core._internal.lib.stored_form import (
    StoredForm,
    made_by_newer,
    newer_format,
)
from hsm_core.errors import (
    Fact,
    InputSizeError,
    KeyTamperedError,
    MalformedError,
)
from hsm_core.model import KeyId, KeyOrigin, KeyState
from hsm_core.protocols import IndexEntry

DOCUMENT_FORMAT: Final = 1
_NAME: Final = b"key"
_KEPT_OPERATIONS: Final = 32
_KEPT_MICROSECONDS: Final = 24 * 3600 * 1_000_000
_MOST_OPERATIONS: Final = 256
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""Longest stored form, well above the size of a key with the longest history."""


class VersionDocument(StoredForm, frozen=True, kw_only=True):
    """
    One version of a key.

    Attributes:
        material_id: Random UUID; shared by versions made by rollback.
        blob_sha256: Digest of the sealed blob, hex; empty once destroyed.
        public_der: SubjectPublicKeyInfo; empty for symmetric keys.
        came_from: State before purge_scheduled, the only one to go back to. A version
            that was active is retired on the way, and goes back to active.
        activated_at: When a staged version became active; 0 for one that never was
            staged, which is active from *created_at* on.
        retired_at: When it was retired; 0 if it never was, or was by a program that
            did not write this down (see *state_changed_at* then).
        purge_at: When the purge of this version alone is due; 0 where the whole key is
            to be destroyed (see *destroy_at* of the key).
        compromised_at: Since when its material is compromised, as far as it was told.
        revoked_at: When it was revoked; 0 as of *retired_at*.
        retain_until: Until when it must not be purged, whatever the retention policy
            says; 0 if it was not extended.
    """

    version: int
    material_id: str
    state: KeyState
    created_at: int
    state_changed_at: int
    blob_sha256: str = ""
    public_der: bytes = b""
    rolled_back_from: int = 0
    reason: str = ""
    came_from: KeyState | None = None
    activated_at: int = 0
    retired_at: int = 0
    purge_at: int = 0
    compromised_at: int = 0
    revoked_at: int = 0
    retain_until: int = 0

    @property
    def active_since(self) -> int:
        """When it became active, if it did; suspensions don't count."""
        return self.activated_at or self.created_at


class RotationDocument(StoredForm, frozen=True, kw_only=True):
    """When a key is rotated by the HSM itself; 0 is no limit."""

    max_age_days: int = 0
    max_uses: int = 0


class OperationRecord(StoredForm, frozen=True, kw_only=True):
    """
    Operation that changed the key; answers repeated requests.

    Attributes:
        digest: Keyed digest of the whole operation, hex.
        generation: The generation it made.
        version: The version that its answer is about.
    """

    id: str
    digest: str
    kind: str
    generation: int
    version: int
    at: int


class Tombstone(StoredForm, frozen=True, kw_only=True):
    """Destroyed material, which must never be opened again."""

    material_id: str
    destroyed_at: int


class KeyDocument(StoredForm, frozen=True, kw_only=True):
    """
    Complete state of one key.

    Attributes:
        draft: For a composite, the draft and revision that its material follows.
        destroy_at: When the key is to be destroyed; 0 if it is not to be. Until then
            every version that it had is purge_scheduled, and knows where it came from.
        destroy_asked_at: When that was asked for.
        rotation: When the HSM rotates it by itself.
        hold: Why nothing of it may be destroyed, or empty.
    """

    format: int
    kek_id: str
    store_id: str
    key_id: KeyId
    algorithm: str
    usages: tuple[str, ...]
    created_at: int
    updated_at: int
    generation: int
    current: int
    versions: tuple[VersionDocument, ...]
    name: str = ""
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    operations: tuple[OperationRecord, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    origin: KeyOrigin = KeyOrigin.GENERATED
    exportable: bool = False
    draft: str = ""
    destroy_at: int = 0
    destroy_asked_at: int = 0
    rotation: RotationDocument | None = None
    hold: str = ""

    def version(self, number: int) -> VersionDocument | None:
        """Return a version by its number."""
        if 1 <= number <= len(self.versions):
            return self.versions[number - 1]
        return None

    @property
    def current_version(self) -> VersionDocument:
        """Version that new operations use, while it is active."""
        return self.versions[self.current - 1]

    @property
    def is_destroyed(self) -> bool:
        """Whether no material is left."""
        return all(v.state is KeyState.DESTROYED for v in self.versions)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(KeyDocument)
# For a field name that is no UTF-8 msgspec raises UnicodeDecodeError.
_UNREADABLE: Final = (MalformedError, msgspec.DecodeError, UnicodeDecodeError)


def encode_document(document: KeyDocument, mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of a document."""
    payload = _ENCODER.encode(document)
    return envelope.join(_NAME, payload, mac_of(payload))


def document_digest(stored: bytes) -> str:
    """Return the digest of a stored form, as the trail keeps it: SHA-256, hex."""
    return hashlib.sha256(stored).hexdigest()


def decode_document(
    key_id: KeyId, store_id: str, stored: bytes, mac_of: Callable[[bytes], bytes]
) -> KeyDocument:
    """
    Authenticate a stored form and read it.

    Raises:
        KeyTamperedError: Its framing, MAC, store or key is not what it should be, or a
            newer release has written it.
    """
    payload = None
    try:
        payload = envelope.check(_NAME, stored, mac_of)
        if payload is not None:
            document = _DECODER.decode(payload)
            is_this = document.key_id == key_id and document.store_id == store_id
            if is_this and document.format == DOCUMENT_FORMAT:
                return document
    except _UNREADABLE:
        pass
    newer = newer_format(payload or b"", DOCUMENT_FORMAT)
    what = f"The document of key {key_id}"
    problem = f"{what} was tampered with."
    if newer:
        problem = made_by_newer(what, newer, DOCUMENT_FORMAT)
    facts: dict[str, Fact] = {"format": newer} if newer else {}
    raise KeyTamperedError(problem, key_id=key_id, **facts) from None


def peek(key_id: KeyId, stored: bytes) -> KeyDocument | None:
    """
    Decode a stored form without authentication; None if it is not this key's.

    For stores, which have no key to check the MAC.
    """
    try:
        document = _DECODER.decode(envelope.split(_NAME, stored)[0])
        known = 1 <= document.current <= len(document.versions)
        if known and document.key_id == key_id:
            return document
    except _UNREADABLE:
        pass
    return None


def read_index(key_id: KeyId, stored: bytes) -> IndexEntry:
    """
    Return index facts of a stored form, without authentication.

    An unreadable form gets a placeholder entry, so that the key is still listed.
    """
    document = peek(key_id, stored)
    digest = document_digest(stored)
    if document is not None:
        return index_of(document, digest)
    return IndexEntry(
        key_id=key_id,
        created_at=0,
        name="",
        algorithm="",
        state="",
        tags=frozenset(),
        generation=0,
        digest=digest,
    )


def index_of(document: KeyDocument, digest: str) -> IndexEntry:
    """Return index facts of a document whose stored form has this digest."""
    return IndexEntry(
        key_id=document.key_id,
        created_at=document.created_at,
        name=document.name,
        algorithm=document.algorithm,
        state=document.current_version.state.value,
        tags=frozenset(document.tags),
        generation=document.generation,
        operations=tuple(record.id for record in document.operations),
        digest=digest,
        owner=document.owner,
        usages=frozenset(document.usages),
    )


def remember(
    kept: tuple[OperationRecord, ...], new: OperationRecord
) -> tuple[OperationRecord, ...]:
    """
    Add an operation to those a document remembers.

    The last 32 stay, and those younger than 24 hours, but never more than 256.
    """
    oldest = new.at - _KEPT_MICROSECONDS
    recent = len(kept) - (_KEPT_OPERATIONS - 1)
    stay = [r for n, r in enumerate(kept) if n >= recent or r.at >= oldest]
    return (*stay[-(_MOST_OPERATIONS - 1) :], new)


def check_document_size(stored: bytes) -> None:
    """
    Check that a stored form can be read again.

    Raises:
        InputSizeError: It is longer than `MAX_DOCUMENT_BYTES`.
    """
    if len(stored) > MAX_DOCUMENT_BYTES:
        raise InputSizeError("document", actual=len(stored), maximum=MAX_DOCUMENT_BYTES)

# SPDX-License-Identifier: MIT
"""Key document: its stored form, and the public views of it."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import StoredForm, made_by_newer, newer_format
from hsm_core._internal.time.clock import instant
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.errors import Fact, InputSizeError, KeyTamperedError, MalformedError
from hsm_core.model import (
    AuditedCaller,
    AuditedKey,
    Caller,
    Integrity,
    KeyId,
    KeyInfo,
    KeyOrigin,
    KeyState,
    Role,
    RotationRule,
    UseInfo,
    VersionInfo,
)
from hsm_core.protocols import IndexEntry, KeyFacts

DOCUMENT_FORMAT: Final = 1
_NAME: Final = b"key"
_KEPT_OPERATIONS: Final = 32
_KEPT_MICROSECONDS: Final = 24 * 3600 * 1_000_000
_MOST_OPERATIONS: Final = 256
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""Longest stored form, well above the size of a key with the longest history."""

_ENCODER: Final = msgspec.json.Encoder()

# For a field name that is no UTF-8 msgspec raises UnicodeDecodeError.
_UNREADABLE: Final = (MalformedError, msgspec.DecodeError, UnicodeDecodeError)


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
        certificates: Its certificate chain, DER.
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
    certificates: tuple[bytes, ...] = ()

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

    def operation(self, operation_id: str) -> OperationRecord | None:
        """Return the record of an operation that changed the key, if it is kept."""
        found = (record for record in self.operations if record.id == operation_id)
        return next(found, None)

    @property
    def current_version(self) -> VersionDocument:
        """Version that new operations use, while it is active."""
        return self.versions[self.current - 1]

    @property
    def is_destroyed(self) -> bool:
        """Whether no material is left."""
        return all(v.state is KeyState.DESTROYED for v in self.versions)


_DECODER: Final = msgspec.json.Decoder(KeyDocument)


def encode_document(document: KeyDocument, mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of a document."""
    payload = _ENCODER.encode(document)
    return encoding.join(_NAME, payload, mac_of(payload))


def document_digest(stored: bytes) -> str:
    """Return the digest of a stored form, as the audit log keeps it: SHA-256, hex."""
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
        payload = encoding.check(_NAME, stored, mac_of)
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
        document = _DECODER.decode(encoding.split(_NAME, stored)[0])
        known = 1 <= document.current <= len(document.versions)
        if known and document.key_id == key_id:
            return document
    except _UNREADABLE:
        pass
    return None


_INTEGER_LIMIT: Final = 2**63
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_key_id(text: str) -> bool:
    """Return whether *text* is a UUID in lower-case canonical form (RFC 9562)."""
    return _KEY_ID.fullmatch(text) is not None


def read_index(key_id: KeyId, stored: bytes) -> IndexEntry:
    """
    Return index facts of a stored form, without authentication.

    An unreadable form gets a placeholder entry, so that the key is still listed.
    """
    document = peek(key_id, stored)
    digest = document_digest(stored)
    # A number that a database can't hold is none that we write.
    if document is not None and all(
        abs(number) < _INTEGER_LIMIT
        for number in (document.created_at, document.generation)
    ):
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

    The one that made the key stays, for it is never made twice. Of the others the last
    32 stay, and those younger than 24 hours, but never more than 256.
    """
    made = tuple(r for r in kept[:1] if r.generation == 1)
    later = kept[len(made) :]
    oldest = new.at - _KEPT_MICROSECONDS
    recent = len(later) - (_KEPT_OPERATIONS - 1)
    stay = [r for n, r in enumerate(later) if n >= recent or r.at >= oldest]
    return (*made, *stay[-(_MOST_OPERATIONS - 1 - len(made)) :], new)


def made_key_id(operation_id: str) -> KeyId:
    """
    Return the ID of the key that an operation makes, a UUID of version 4.

    Args:
        operation_id: 32 hex digits, random or an HMAC.
    """
    return KeyId(str(uuid.UUID(operation_id, version=4)))


def check_document_size(stored: bytes) -> None:
    """
    Check that a stored form can be read again.

    Raises:
        InputSizeError: It is longer than `MAX_DOCUMENT_BYTES`.
    """
    if len(stored) > MAX_DOCUMENT_BYTES:
        raise InputSizeError("document", actual=len(stored), maximum=MAX_DOCUMENT_BYTES)


def key_info(
    document: KeyDocument,
    integrity: Integrity,
    *,
    version: int | None = None,
    use: UseInfo | None = None,
) -> KeyInfo:
    """Return the public facts of a key, with *version* instead of the current one."""
    number = version or document.current
    return KeyInfo(
        key_id=document.key_id,
        algorithm=Algorithm(document.algorithm),
        usages=tuple(KeyUsage(usage) for usage in document.usages),
        name=document.name,
        owner=document.owner,
        description=document.description,
        tags=document.tags,
        version=number,
        state=document.versions[number - 1].state,
        integrity=integrity,
        generation=document.generation,
        created_at=instant(document.created_at),
        updated_at=instant(document.updated_at),
        origin=document.origin,
        exportable=document.exportable,
        draft=document.draft,
        use=use,
        rotation=_rotation(document),
        destroy_at=_told(document.destroy_at),
        hold=document.hold,
        versions=len(document.versions),
        certificates=len(document.versions[number - 1].certificates),
    )


def _rotation(document: KeyDocument) -> RotationRule | None:
    kept = document.rotation
    if kept is None:
        return None
    return RotationRule(
        max_age_days=kept.max_age_days or None, max_uses=kept.max_uses or None
    )


def _told(microseconds: int) -> datetime | None:
    return instant(microseconds) if microseconds else None


def tampered_info(key_id: KeyId, integrity: Integrity) -> KeyInfo:
    """Return the known facts of a key with an unauthentic document."""
    return KeyInfo(
        key_id=key_id,
        algorithm=None,
        version=0,
        state=None,
        integrity=integrity,
        generation=0,
        created_at=None,
        updated_at=None,
    )


def version_info(
    document: KeyDocument,
    version: VersionDocument,
    integrity: Integrity,
    use: UseInfo | None = None,
) -> VersionInfo:
    """Return the public facts of a version."""
    scheduled = version.state is KeyState.PURGE_SCHEDULED
    return VersionInfo(
        version=version.version,
        state=version.state,
        material_id=version.material_id,
        integrity=integrity,
        created_at=instant(version.created_at),
        state_changed_at=instant(version.state_changed_at),
        rolled_back_from=version.rolled_back_from,
        reason=version.reason,
        use=use,
        activated_at=_told(version.activated_at),
        retired_at=_told(version.retired_at),
        purge_at=_told((version.purge_at or document.destroy_at) * scheduled),
        compromised_at=_told(version.compromised_at),
        revoked_at=_told(version.revoked_at),
        retain_until=_told(version.retain_until),
        certificates=len(version.certificates),
    )


def key_facts(document: KeyDocument) -> KeyFacts:
    """Return the key facts that policy rules can match."""
    return KeyFacts(
        key_id=document.key_id,
        algorithm=document.algorithm,
        state=document.current_version.state,
        name=document.name,
        owner=document.owner,
        tags=frozenset(document.tags),
        usages=frozenset(document.usages),
    )


@lru_cache(maxsize=64)
def _names_of(roles: frozenset[Role]) -> tuple[str, ...]:
    return tuple(sorted(role.value for role in roles))


def audited_caller(caller: Caller) -> AuditedCaller:
    """Return the caller in the form of the audit log."""
    return AuditedCaller(
        principal=caller.principal,
        roles=_names_of(caller.roles),
        credential_id=caller.credential_id,
        certificate_sha256=caller.certificate_sha256,
        source_address=caller.source_address,
        interface=caller.interface,
        interface_claimed=caller.interface_claimed,
    )


def audited_key(document: KeyDocument) -> AuditedKey:
    """Return the key's facts in the form of the audit log."""
    return AuditedKey(
        algorithm=document.algorithm,
        usages=document.usages,
        name=document.name,
        owner=document.owner,
        tags=document.tags,
        state=document.current_version.state.value,
    )

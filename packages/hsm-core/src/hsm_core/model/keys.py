# SPDX-License-Identifier: MIT
"""Metadata of keys and key versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NewType

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model.records import Record

__all__ = [
    "Integrity",
    "KeyFilter",
    "KeyId",
    "KeyInfo",
    "KeyOrigin",
    "KeyState",
    "RotationRule",
    "UseInfo",
    "VersionInfo",
]

KeyId = NewType("KeyId", str)
"""Key ID: a UUID in lowercase canonical form."""


class KeyState(StrEnum):
    """State of a key version; the legal moves are a table of ``lifecycle``."""

    STAGED = "staged"
    ACTIVE = "active"
    RETIRED = "retired"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    PURGE_SCHEDULED = "purge_scheduled"
    DESTROYED = "destroyed"


class Integrity(StrEnum):
    """Whether what is stored is what was stored; derived, never stored itself."""

    OK = "ok"
    TAMPERED = "tampered"
    MISSING = "missing"


class KeyOrigin(StrEnum):
    """Where the material of a key's first version came from."""

    GENERATED = "generated"
    IMPORTED = "imported"
    DERIVED = "derived"


class UseInfo(Record, frozen=True, kw_only=True):
    """
    How much a key's material was used.

    The counts are reserved in blocks before they are needed, so that after a crash
    they may be too high, and never too low.

    Attributes:
        uses: How often it protected something: signed, encrypted, computed a MAC,
            wrapped or derived.
        limit: How often it may, or 0.
        bytes: Bytes that it protected.
        last_used_at: When it was last used for anything; as of the last time that
            counts were stored, after a crash.
        near_limit: Whether four fifths of the limit are used: rotate the key soon.
    """

    uses: int
    limit: int = 0
    bytes: int = 0
    last_used_at: datetime | None = None
    near_limit: bool = False


class RotationRule(Record, frozen=True, kw_only=True):
    """
    When the HSM rotates a key by itself: as soon as one of the two is reached.

    Attributes:
        max_age_days: Days of 86 400 seconds since the current version became active;
            None is no limit.
        max_uses: How often its material has protected something; None is no limit.
    """

    max_age_days: int | None = None
    max_uses: int | None = None


class KeyInfo(Record, frozen=True, kw_only=True):
    """
    What may be known of a key.

    Attributes:
        key_id: Its UUID.
        name: Unique name, or empty.
        version: Number of the current version, from 1.
        state: State of the current version.
        integrity: Whether document and blobs are untouched.
        generation: Counts the changes of this key, from 1.
        created_at: When the key was made, in UTC.
        updated_at: When its document last changed, in UTC.
        origin: Where its first material came from.
        exportable: Whether it may be exported, wrapped; decided when it was made.
        draft: For a composite, the draft and revision that define it.
        use: Use of the current version's material; from `DescribeKey` only.
        rotation: When the HSM rotates it by itself; None if it does not.
        destroy_at: When it is to be destroyed, unless that is cancelled.
        hold: Why nothing of it may be destroyed, or empty.

    Of a key whose document was tampered with nothing but the id is known: algorithm,
    state and instants are then None, version and generation 0.
    """

    key_id: KeyId
    algorithm: Algorithm | None
    usages: tuple[KeyUsage, ...] = ()
    name: str = ""
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    version: int
    state: KeyState | None
    integrity: Integrity
    generation: int
    created_at: datetime | None
    updated_at: datetime | None
    origin: KeyOrigin = KeyOrigin.GENERATED
    exportable: bool = False
    draft: str = ""
    use: UseInfo | None = None
    rotation: RotationRule | None = None
    destroy_at: datetime | None = None
    hold: str = ""


class VersionInfo(Record, frozen=True, kw_only=True):
    """
    What may be known of one version of a key.

    Attributes:
        version: Number, from 1.
        material_id: Versions made by rollback share it with their source.
        rolled_back_from: The version whose material this one has, or 0.
        reason: Why it was revoked or suspended, or empty.
        use: Use of its material.
        activated_at: When it became active, in UTC, if it was staged; one that never
            was is active from *created_at* on.
        retired_at: When it was retired, in UTC.
        purge_at: When it is to be destroyed, in UTC, alone or with the whole key.
        compromised_at: Since when its material is compromised, as far as was told.
        revoked_at: When it was revoked, in UTC.
        retain_until: Until when its material is kept, whatever the retention policy
            says, in UTC.
    """

    version: int
    state: KeyState
    material_id: str
    integrity: Integrity
    created_at: datetime
    state_changed_at: datetime
    rolled_back_from: int = 0
    reason: str = ""
    use: UseInfo | None = None
    activated_at: datetime | None = None
    retired_at: datetime | None = None
    purge_at: datetime | None = None
    compromised_at: datetime | None = None
    revoked_at: datetime | None = None
    retain_until: datetime | None = None


class KeyFilter(Record, frozen=True, kw_only=True):
    """
    Which keys a listing shows: all conditions hold, and all *tags* are present.

    Without a state, destroyed keys are left out.

    Attributes:
        search: Prefix of the key ID, or substring of name, owner or a tag; ASCII
            letters in any case. Empty asks for nothing.
    """

    algorithm: Algorithm | None = None
    state: KeyState | None = None
    tags: tuple[str, ...] = ()
    search: str = ""

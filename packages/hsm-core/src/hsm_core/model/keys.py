# SPDX-License-Identifier: MIT
"""Metadata of keys and key versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, NewType

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
    """Integrity of stored data; computed, never stored."""

    OK = "ok"
    TAMPERED = "tampered"
    MISSING = "missing"


class KeyOrigin(StrEnum):
    """Origin of the key material of the first version."""

    GENERATED = "generated"
    IMPORTED = "imported"
    DERIVED = "derived"


class UseInfo(Record, frozen=True, kw_only=True):
    """
    Use counts of a key material.

    Counts are reserved in blocks in advance, so after a crash they can be too high but
    never too low.

    Attributes:
        uses: Number of protecting uses: sign, encrypt, MAC, wrap or derive.
        limit: Maximum number of protecting uses, or 0.
        bytes: Number of protected bytes.
        last_used_at: Time of the last use; after a crash, as of the last stored counts.
        near_limit: Whether 80 % of the limit is reached: rotate the key soon.
    """

    uses: int
    limit: int = 0
    bytes: int = 0
    last_used_at: datetime | None = None
    near_limit: bool = False


class RotationRule(Record, frozen=True, kw_only=True):
    """
    Automatic rotation: the HSM rotates the key at the first limit reached.

    Attributes:
        max_age_days: Days of 86 400 seconds since the current version became active;
            None means no limit.
        max_uses: Number of protecting uses of the key material; None means no limit.
    """

    max_age_days: int | None = None
    max_uses: int | None = None


class KeyInfo(Record, frozen=True, kw_only=True):
    """
    Metadata of a key.

    Attributes:
        key_id: Its UUID.
        name: Unique name, or empty.
        version: Number of the current version, from 1.
        state: State of the current version.
        integrity: Integrity of document and blobs.
        generation: Change counter of the key, from 1.
        created_at: When the key was made, in UTC.
        updated_at: When its document last changed, in UTC.
        origin: Origin of the first key material.
        exportable: Whether the key can be exported in wrapped form; set at creation.
        draft: For a composite, the draft and revision that define it.
        use: Use of the current version's material; from `DescribeKey` only.
        rotation: Automatic rotation; None if it is off.
        destroy_at: Time of the scheduled destruction, or None.
        hold: Reason of the legal hold, or empty.
        versions: Number of versions; from 1.
        certificates: Number of certificates of the version, see `GetCertificates`.

    If the document was tampered with, only the ID is known: algorithm, state and times
    are None, version, versions and generation 0.
    """

    repr_fields: ClassVar = ("name", "key_id", "algorithm", "version", "state")

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
    versions: int = 0
    certificates: int = 0


class VersionInfo(Record, frozen=True, kw_only=True):
    """
    Metadata of a key version.

    Attributes:
        version: Number, from 1.
        material_id: Versions made by rollback share it with their source.
        rolled_back_from: The version whose material this one has, or 0.
        reason: Reason of the revocation or suspension, or empty.
        use: Use counts of its material.
        activated_at: When it became active, in UTC, if it was staged; one that never
            was is active from *created_at* on.
        retired_at: When it was retired, in UTC.
        purge_at: Time of the scheduled purge or destruction, in UTC.
        compromised_at: Reported time of compromise of its material.
        revoked_at: When it was revoked, in UTC.
        retain_until: Extended end of retention, overriding the retention policy, in
            UTC.
        certificates: Number of its certificates, see `GetCertificates`.
    """

    repr_fields: ClassVar = ("version", "state")

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
    certificates: int = 0


class KeyFilter(Record, frozen=True, kw_only=True):
    """
    Filter of a key listing: all conditions and all *tags* must match.

    Without a state, destroyed keys are excluded.

    Attributes:
        search: Prefix of the key ID, or substring of name, owner or a tag; ASCII
            letters in any case. Empty asks for nothing.
    """

    algorithm: Algorithm | None = None
    state: KeyState | None = None
    tags: tuple[str, ...] = ()
    search: str = ""

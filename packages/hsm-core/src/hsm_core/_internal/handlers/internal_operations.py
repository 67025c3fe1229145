# SPDX-License-Identifier: MIT
"""
Operations that only the HSM itself asks for, on behalf of its schedulers.

They are values like all others, and go through pipeline, policy and trail; but no
caller can send one: they are no members of ``OPERATIONS``, so that no codec reads them,
and no role is granted them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta

from hsm_core.model import KeyInfo, Line, Record
from hsm_core.operations import Effect, KeyReference, Operation

_Versions = Annotated[tuple[int, ...], Meta(min_length=1, max_length=4096)]


class CompleteDestruction(Operation[KeyInfo], frozen=True, kw_only=True):
    """Destroy all material of a key whose waiting time is over; see `DestroyKey`."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference


class SchedulePurge(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Let old material wait for its purge; nothing may use it any more.

    Attributes:
        version: The newest version that has the material.
        versions: All versions that have it.
        purge_at: When it may be purged, microseconds since 1970.
        approval_id: The consent to it.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: int
    versions: _Versions
    purge_at: int
    approval_id: Line = ""


class CancelPurge(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Give material that waits for its purge back the state that it had.

    Attributes:
        reason: Why: what keeps it, or what became of the consent.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: int
    versions: _Versions
    reason: Line


class PurgeVersion(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Destroy old material: its sealed form is removed, and a tombstone stays.

    This is what people are asked to consent to.

    Attributes:
        version: The newest version that has the material.
        versions: All versions that have it; all are destroyed.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: int
    versions: _Versions


class PurgesAllowed(Record, frozen=True, kw_only=True):
    """Nothing but that it was allowed."""


class AllowPurges(Operation[PurgesAllowed], frozen=True, kw_only=True):
    """
    Let purges go on that something unusual keeps back.

    Attributes:
        cause: ``leap``: they are old only by a time that leapt; ``limit``: there are
            more of them than the settings allow at once; ``state``: what was
            remembered of both is lost.
        count: How many purges were waiting when this was noticed.
        since: When that was, microseconds since 1970.
    """

    effect: ClassVar = Effect.VIEW

    cause: Line
    count: int
    since: int


INTERNAL_OPERATIONS: Final[tuple[type[Operation[Any]], ...]] = (
    CompleteDestruction,
    SchedulePurge,
    CancelPurge,
    PurgeVersion,
    AllowPurges,
)
"""
Internal operations; each has a handler and a grant in ``system_callers.SYSTEM_GRANTS``.
"""

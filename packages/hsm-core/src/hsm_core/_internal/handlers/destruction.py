# SPDX-License-Identifier: MIT
"""Scheduled destruction, and internal operations of background jobs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Plan, handles
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.key_creation import KeyMutation
from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.versions import (
    WAY_TO_PURGE,
    check_hold,
    destroy_material,
    living,
    move,
    with_versions,
)
from hsm_core._internal.time.clock import instant, utc_text
from hsm_core.errors import InvalidInputError, KeyStateError
from hsm_core.model import KeyInfo, KeyState, Line, Record
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
        cause: ``leap``: they are old only by a clock jump; ``limit``: there are
            more of them than the settings allow at once; ``state``: what was
            remembered of both is lost.
        count: How many purges were waiting when this was noticed.
        since: When that was, microseconds since 1970.
    """

    effect: ClassVar = Effect.VIEW

    cause: Line
    count: int
    since: int


_S: Final = KeyState
_DAY: Final = 24 * 3600 * 1_000_000


@handles(ops.DestroyKey)
class DestroyKeyHandler(KeyMutation[ops.DestroyKey]):
    """Destroy all material of a key, or say when that shall be."""

    def resolve(
        self, operation: ops.DestroyKey, document: KeyDocument | None, /
    ) -> ops.DestroyKey:
        """Fill the waiting time; a key whose time has come waits no more."""
        if operation.waiting_days is not None:
            return operation
        is_waiting = document is not None and document.destroy_at
        usual = 0 if is_waiting else self._services.settings.destroy_waiting_days
        return msgspec.structs.replace(operation, waiting_days=usual)

    def prepare(self, context: RequestContext[ops.DestroyKey], /) -> None:
        """Refuse a key that is destroyed or waits for it, and too short a time."""
        document, days = context.key, context.operation.waiting_days or 0
        if document.is_destroyed:
            raise KeyStateError("The key is already destroyed.", state="destroyed")
        check_hold(document)
        least = self._services.settings.destroy_waiting_days
        if not document.destroy_at:
            if days < least:
                raise InvalidInputError(
                    f"waiting_days must be at least {least} on this HSM.",
                    field="waiting_days",
                )
            return
        if days or self._services.clock_guard.now() < document.destroy_at:
            raise KeyStateError(
                "Destruction is already scheduled for "
                f"{utc_text(instant(document.destroy_at))}. Cancel it before you "
                "choose another time.",
                state=document.current_version.state.value,
            )

    def plan(self, context: RequestContext[ops.DestroyKey], /) -> Plan:
        """Schedule every version, or destroy it."""
        document, now = context.key, self._services.clock.now()
        days = context.operation.waiting_days or 0
        if not days:
            return Plan(_ended(document, now), document.current)
        asked_at = self._services.clock_guard.now()
        after = msgspec.structs.replace(
            with_versions(
                document, (_scheduled(v, now) for v in document.versions), now
            ),
            destroy_at=asked_at + days * _DAY,
            destroy_asked_at=asked_at,
        )
        return Plan(after, document.current)


@handles(CompleteDestruction)
class CompleteDestructionHandler(KeyMutation[CompleteDestruction]):
    """Destroy all material of a key whose waiting time is over."""

    def prepare(self, context: RequestContext[CompleteDestruction], /) -> None:
        """Refuse a key that nobody wanted destroyed, or whose time has not come."""
        check_hold(context.key)
        due_at = context.key.destroy_at
        if not due_at or self._services.clock_guard.now() < due_at:
            raise KeyStateError(
                "The key's destruction is not due.",
                state=context.key.current_version.state.value,
            )

    def plan(self, context: RequestContext[CompleteDestruction], /) -> Plan:
        """Leave a tombstone per material."""
        document = context.key
        return Plan(_ended(document, self._services.clock.now()), document.current)


@handles(ops.CancelDestroy)
class CancelDestroyHandler(KeyMutation[ops.CancelDestroy]):
    """Give a key back that waits for its destruction."""

    def prepare(self, context: RequestContext[ops.CancelDestroy], /) -> None:
        """Refuse a key that is not to be destroyed, or is destroyed already."""
        if not context.key.destroy_at:
            raise KeyStateError(
                "The key has no scheduled destruction.",
                state=context.key.current_version.state.value,
            )

    def plan(self, context: RequestContext[ops.CancelDestroy], /) -> Plan:
        """Move each version back to the state that it came from."""
        document, now = context.key, self._services.clock.now()
        after = with_versions(
            document, (_given_back(v, now) for v in document.versions), now
        )
        return Plan(_cleared(after), document.current)


def _scheduled(version: VersionDocument, now: int) -> VersionDocument:
    """Move a version to purge_scheduled, from where it comes back as it was."""
    moved = version
    for state in WAY_TO_PURGE[version.state]:
        moved = move(moved, state, now)
    if moved is version:
        return version
    # It was not retired by a rotation, so that no retention window opens.
    return msgspec.structs.replace(
        moved, came_from=version.state, retired_at=version.retired_at
    )


def _given_back(version: VersionDocument, now: int) -> VersionDocument:
    # One that has its own time was scheduled alone, before the key was.
    if version.state is not _S.PURGE_SCHEDULED or version.purge_at:
        return version
    if version.came_from is None:
        raise AssertionError("a version records its origin")
    return move(version, version.came_from, now)


def _ended(document: KeyDocument, now: int) -> KeyDocument:
    """Take all through purge_scheduled to destroyed."""
    return destroy_material(document, living(document), now)


def _cleared(document: KeyDocument) -> KeyDocument:
    return msgspec.structs.replace(document, destroy_at=0, destroy_asked_at=0)

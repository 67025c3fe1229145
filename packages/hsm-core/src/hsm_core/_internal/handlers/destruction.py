# SPDX-License-Identifier: MIT
"""Destruction, legal holds and purges, with the operations of background jobs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    HandlerDependencies,
    Plan,
    Speed,
    answers,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.key_creation import KeyMutation
from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.versions import (
    WAY_TO_PURGE,
    check_hold,
    destroy_material,
    kept,
    living,
    move,
    numbered_version,
    opened_at,
    with_versions,
)
from hsm_core._internal.time.clock import instant, microseconds, utc_text
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
_LONGEST: Final = 100 * 366 * _DAY


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
            after = destroy_material(document, living(document), now)
            return Plan(after, document.current)
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
        document, now = context.key, self._services.clock.now()
        after = destroy_material(document, living(document), now)
        return Plan(after, document.current)


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
        # One that has its own time was scheduled alone, before the key was.
        versions = (v if v.purge_at else _given_back(v, now) for v in document.versions)
        after = msgspec.structs.replace(
            with_versions(document, versions, now), destroy_at=0, destroy_asked_at=0
        )
        return Plan(after, document.current)


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
    """Give a version that waits for its purge the state back that it came from."""
    if version.state is not _S.PURGE_SCHEDULED or version.came_from is None:
        return version
    return move(version, version.came_from, now)


@handles(ops.HoldKey)
class HoldKeyHandler(KeyMutation[ops.HoldKey]):
    """Keep all of a key from being destroyed."""

    def prepare(self, context: RequestContext[ops.HoldKey], /) -> None:
        """Refuse a key that is held already, or has nothing left to be kept."""
        if context.key.is_destroyed:
            raise KeyStateError("The key is already destroyed.", state="destroyed")
        if context.key.hold:
            raise KeyStateError(
                f"The key already has a legal hold ({context.key.hold}).",
                hold=context.key.hold,
            )

    def plan(self, context: RequestContext[ops.HoldKey], /) -> Plan:
        """Note why; what waits for a purge alone gets its state back."""
        document, now = context.key, self._services.clock_guard.now()
        versions = document.versions
        if not document.destroy_at:
            versions = tuple(_given_back(v, now) for v in versions)
        after = with_versions(document, versions, now)
        after = msgspec.structs.replace(after, hold=context.operation.reason)
        return Plan(after, document.current)


@handles(ops.ReleaseKey)
class ReleaseKeyHandler(KeyMutation[ops.ReleaseKey]):
    """End a hold."""

    def prepare(self, context: RequestContext[ops.ReleaseKey], /) -> None:
        """Refuse a key that is not held."""
        if not context.key.hold:
            raise KeyStateError("The key has no legal hold.")

    def plan(self, context: RequestContext[ops.ReleaseKey], /) -> Plan:
        """Forget the hold; the trail knows why."""
        document, now = context.key, self._services.clock_guard.now()
        after = with_versions(document, document.versions, now)
        return Plan(msgspec.structs.replace(after, hold=""), document.current)


@handles(ops.ExtendRetention)
class ExtendRetentionHandler(KeyMutation[ops.ExtendRetention]):
    """Keep the material of a version for longer."""

    def prepare(self, context: RequestContext[ops.ExtendRetention], /) -> None:
        """Refuse what would make it shorter, or keeps nothing."""
        version = numbered_version(context.key, context.operation.version)
        if version.state is _S.DESTROYED:
            raise KeyStateError(
                f"Version {version.version} is already destroyed.", state="destroyed"
            )
        until, now = microseconds(context.operation.until), self._services.clock.now()
        earliest, latest = max(now, version.retain_until), now + _LONGEST
        if not earliest < until <= latest:
            raise InvalidInputError(
                f"until must be after {utc_text(instant(earliest))} and at most "
                f"{utc_text(instant(latest))}.",
                field="until",
            )

    def plan(self, context: RequestContext[ops.ExtendRetention], /) -> Plan:
        """Note it; if it waits for a purge alone, it gets its state back."""
        document, now = context.key, self._services.clock_guard.now()
        wanted = document.versions[context.operation.version - 1]
        until = microseconds(context.operation.until)

        def extended(version: VersionDocument) -> VersionDocument:
            if version.material_id != wanted.material_id:
                return version
            if not document.destroy_at:
                version = _given_back(version, now)
            if version.version != wanted.version:
                return version
            return msgspec.structs.replace(version, retain_until=until)

        versions = map(extended, document.versions)
        return Plan(with_versions(document, versions, now), wanted.version)


@handles(SchedulePurge)
class SchedulePurgeHandler(KeyMutation[SchedulePurge]):
    """Let old material wait for its purge."""

    def prepare(self, context: RequestContext[SchedulePurge], /) -> None:
        """Refuse what must stay."""
        versions = _material(context.key, context.operation)
        _check_purgeable(context.key, versions)
        for version in versions:
            move(version, _S.PURGE_SCHEDULED, now=0)

    def plan(self, context: RequestContext[SchedulePurge], /) -> Plan:
        """Move every version that has it, and note when its window opened."""
        document, now = context.key, self._services.clock_guard.now()
        purge_at = context.operation.purge_at
        chosen = context.operation.versions

        def scheduled(version: VersionDocument) -> VersionDocument:
            if version.version not in chosen:
                return version
            opened = opened_at(version)
            is_revoked = version.state is _S.REVOKED
            return msgspec.structs.replace(
                move(version, _S.PURGE_SCHEDULED, now),
                purge_at=purge_at,
                revoked_at=opened if is_revoked else version.revoked_at,
                retired_at=version.retired_at if is_revoked else opened,
            )

        versions = map(scheduled, document.versions)
        return Plan(with_versions(document, versions, now), context.operation.version)


@handles(CancelPurge)
class CancelPurgeHandler(KeyMutation[CancelPurge]):
    """Give material that waits for its purge its state back."""

    def prepare(self, context: RequestContext[CancelPurge], /) -> None:
        """Refuse what does not wait, or waits with the whole key."""
        _check_scheduled(context.key, _material(context.key, context.operation))

    def plan(self, context: RequestContext[CancelPurge], /) -> Plan:
        """Move every version that has it back."""
        document, now = context.key, self._services.clock_guard.now()
        chosen = context.operation.versions
        versions = (
            _given_back(v, now) if v.version in chosen else v for v in document.versions
        )
        return Plan(with_versions(document, versions, now), context.operation.version)


@handles(PurgeVersion)
class PurgeVersionHandler(KeyMutation[PurgeVersion]):
    """Destroy old material."""

    def prepare(self, context: RequestContext[PurgeVersion], /) -> None:
        """Refuse what must stay, or whose time has not come."""
        document, now = context.key, self._services.clock_guard.now()
        versions = _material(document, context.operation)
        _check_scheduled(document, versions)
        _check_purgeable(document, versions)
        if any(now < max(v.purge_at, v.retain_until) for v in versions):
            raise KeyStateError("The purge is not due yet.")

    def plan(self, context: RequestContext[PurgeVersion], /) -> Plan:
        """Destroy every version that has it, and leave a tombstone."""
        document, now = context.key, self._services.clock_guard.now()
        named = context.operation.version
        material_id = document.versions[named - 1].material_id
        return Plan(destroy_material(document, {material_id}, now), named)


@answers(AllowPurges)
def allow_purges(
    services: HandlerDependencies, context: RequestContext[AllowPurges]
) -> PurgesAllowed:
    """Do nothing: that it is recorded is all."""
    return PurgesAllowed()


@answers(ops.RetentionStatus)
def retention_status(
    services: HandlerDependencies, context: RequestContext[ops.RetentionStatus]
) -> ops.RetentionReport:
    """Return the result of the last sweep."""
    return services.retention_status()


@handles(ops.BeginLedger)
class BeginLedgerHandler(Handler[ops.BeginLedger, ops.LedgerBegun]):
    """Let a new ledger take the place of a lost one."""

    speed = Speed.POOLED

    def prepare(self, context: RequestContext[ops.BeginLedger], /) -> None:
        """Refuse where none is lost, before people are asked."""
        self._services.check_ledger_lost()

    def perform(
        self, context: RequestContext[ops.BeginLedger], /
    ) -> Answer[ops.LedgerBegun]:
        """Have ledger and trail say so."""
        begin, reason = self._services.begin_ledger, context.operation.reason
        return Answer(begin(context.caller, reason))


def _material(
    document: KeyDocument,
    operation: SchedulePurge | CancelPurge | PurgeVersion,
) -> tuple[VersionDocument, ...]:
    """
    Return the versions that an operation names, which must be all of one material.

    Raises:
        KeyStateError: They are not, any more.
    """
    named = document.version(operation.version)
    found = tuple(
        v
        for v in document.versions
        if named is not None and v.material_id == named.material_id
        if v.state is not _S.DESTROYED
    )
    if tuple(v.version for v in found) != operation.versions:
        raise KeyStateError("The versions must be all versions with this key material.")
    return found


def _check_purgeable(
    document: KeyDocument, versions: tuple[VersionDocument, ...]
) -> None:
    check_hold(document)
    reason = kept(document, versions)
    if reason:
        raise KeyStateError(f"The key material can't be purged: {reason}.")


def _check_scheduled(
    document: KeyDocument, versions: tuple[VersionDocument, ...]
) -> None:
    for version in versions:
        if version.state is not _S.PURGE_SCHEDULED or document.destroy_at:
            raise KeyStateError(
                f"Version {version.version} has no scheduled purge.",
                state=version.state.value,
                version=version.version,
            )

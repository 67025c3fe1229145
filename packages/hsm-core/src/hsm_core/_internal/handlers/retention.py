# SPDX-License-Identifier: MIT
"""Retention: holds, extensions, and the steps of a purge."""

from __future__ import annotations

from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers import destruction as internal
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
    check_hold,
    destroy_material,
    kept,
    move,
    opened_at,
    with_versions,
)
from hsm_core._internal.time.clock import microseconds
from hsm_core.errors import InvalidInputError, KeyNotFoundError, KeyStateError
from hsm_core.model import KeyState

_S: Final = KeyState
_LONGEST: Final = 100 * 366 * 86_400 * 1_000_000


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
        version = context.key.version(context.operation.version)
        if version is None:
            raise KeyNotFoundError(
                f"The key has no version {context.operation.version}.", field="version"
            )
        if version.state is _S.DESTROYED:
            raise KeyStateError(
                f"Version {version.version} is already destroyed.", state="destroyed"
            )
        until, now = _until(context.operation), self._services.clock.now()
        if until <= max(now, version.retain_until) or until > now + _LONGEST:
            raise InvalidInputError(
                "until must be in the future, within 100 years, and not before the "
                "present end of retention.",
                field="until",
            )

    def plan(self, context: RequestContext[ops.ExtendRetention], /) -> Plan:
        """Note it; if it waits for a purge alone, it gets its state back."""
        document, now = context.key, self._services.clock_guard.now()
        wanted = document.versions[context.operation.version - 1]
        until = _until(context.operation)

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


@handles(internal.SchedulePurge)
class SchedulePurgeHandler(KeyMutation[internal.SchedulePurge]):
    """Let old material wait for its purge."""

    def prepare(self, context: RequestContext[internal.SchedulePurge], /) -> None:
        """Refuse what must stay."""
        versions = _material(context.key, context.operation)
        _check_purgeable(context.key, versions)
        for version in versions:
            move(version, _S.PURGE_SCHEDULED, now=0)

    def plan(self, context: RequestContext[internal.SchedulePurge], /) -> Plan:
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


@handles(internal.CancelPurge)
class CancelPurgeHandler(KeyMutation[internal.CancelPurge]):
    """Give material that waits for its purge its state back."""

    def prepare(self, context: RequestContext[internal.CancelPurge], /) -> None:
        """Refuse what does not wait, or waits with the whole key."""
        _check_scheduled(context.key, _material(context.key, context.operation))

    def plan(self, context: RequestContext[internal.CancelPurge], /) -> Plan:
        """Move every version that has it back."""
        document, now = context.key, self._services.clock_guard.now()
        chosen = context.operation.versions
        versions = (
            _given_back(v, now) if v.version in chosen else v for v in document.versions
        )
        return Plan(with_versions(document, versions, now), context.operation.version)


@handles(internal.PurgeVersion)
class PurgeVersionHandler(KeyMutation[internal.PurgeVersion]):
    """Destroy old material."""

    def prepare(self, context: RequestContext[internal.PurgeVersion], /) -> None:
        """Refuse what must stay, or whose time has not come."""
        document, now = context.key, self._services.clock_guard.now()
        versions = _material(document, context.operation)
        _check_scheduled(document, versions)
        _check_purgeable(document, versions)
        if any(now < max(v.purge_at, v.retain_until) for v in versions):
            raise KeyStateError("The purge is not due yet.")

    def plan(self, context: RequestContext[internal.PurgeVersion], /) -> Plan:
        """Destroy every version that has it, and leave a tombstone."""
        document, now = context.key, self._services.clock_guard.now()
        named = context.operation.version
        material_id = document.versions[named - 1].material_id
        return Plan(destroy_material(document, {material_id}, now), named)


@answers(internal.AllowPurges)
def allow_purges(
    services: HandlerDependencies, context: RequestContext[internal.AllowPurges]
) -> internal.PurgesAllowed:
    """Do nothing: that it is recorded is all."""
    return internal.PurgesAllowed()


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


def _until(operation: ops.ExtendRetention) -> int:
    return microseconds(operation.until)


def _given_back(version: VersionDocument, now: int) -> VersionDocument:
    if version.state is not _S.PURGE_SCHEDULED or version.came_from is None:
        return version
    return move(version, version.came_from, now)


def _material(
    document: KeyDocument,
    operation: internal.SchedulePurge | internal.CancelPurge | internal.PurgeVersion,
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

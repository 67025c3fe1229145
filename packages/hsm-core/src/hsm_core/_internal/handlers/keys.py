# SPDX-License-Identifier: MIT
"""Operations that change a key that is there."""

from __future__ import annotations

from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import OperationContext, Plan
from hsm_core._internal.handlers.new_versions import KeyMutation
from hsm_core._internal.handlers.sealed import seal_version
from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.versions import (
    append_version,
    check_room,
    move,
    staged_version,
    with_versions,
)
from hsm_core._internal.time.clock import microseconds
from hsm_core.algorithms import Algorithm
from hsm_core.errors import InvalidInputError, KeyNotFoundError, KeyStateError
from hsm_core.model import KeyState

_S: Final = KeyState


class RotateKeyHandler(KeyMutation[ops.RotateKey]):
    """Make a version from fresh material."""

    def prepare(self, subject: OperationContext[ops.RotateKey], /) -> None:
        """Refuse unless the current version is active or revoked, and none staged."""
        _check_current(subject.key, _S.ACTIVE, _S.REVOKED)
        staged = staged_version(subject.key)
        if staged is not None:
            raise KeyStateError(
                f"Version {staged.version} is staged. Activate or revoke it first.",
                state=staged.state.value,
                version=staged.version,
            )
        check_room(subject.key)
        self._services.crypto.require(Algorithm(subject.key.algorithm))

    def plan(self, subject: OperationContext[ops.RotateKey], /) -> Plan:
        """Generate, test, seal; the old version is retired, a revoked one stays so."""
        now = self._services.leaps.now()
        state = _S.STAGED if subject.operation.staged else _S.ACTIVE
        fresh = self._fresh(subject.key, now, state)
        document = append_version(subject.key, lambda _: fresh.version, now)
        number = fresh.version.version
        return Plan(document, number, {number: fresh.blob})


class RollbackHandler(KeyMutation[ops.Rollback]):
    """Make a version from the material of an older one."""

    def prepare(self, subject: OperationContext[ops.Rollback], /) -> None:
        """Refuse unless the current version is active and the source retired."""
        _check_current(subject.key, _S.ACTIVE)
        check_room(subject.key)
        source = _source(subject)
        if source.version == subject.key.current:
            raise KeyStateError(
                f"Version {source.version} is already the current version.",
                version=source.version,
            )
        if source.state is not _S.RETIRED:
            raise KeyStateError(
                f"Version {source.version} is {source.state}; only a retired version "
                "can be rolled back to.",
                state=source.state.value,
                version=source.version,
            )

    def plan(self, subject: OperationContext[ops.Rollback], /) -> Plan:
        """Unseal the old key material and seal it for the new version."""
        now, source = self._services.leaps.now(), _source(subject)
        material = self._services.inventory.materials.open_material(subject.key, source)
        sealed = seal_version(
            self._services.inventory,
            subject.key,
            material,
            public_der=source.public_der,
            material_id=source.material_id,
            rolled_back_from=source.version,
            now=now,
        )
        document = append_version(subject.key, lambda _: sealed.version, now)
        return Plan(document, document.current, {document.current: sealed.blob})


class RevokeKeyHandler(KeyMutation[ops.RevokeKey]):
    """Mark material as compromised."""

    def prepare(self, subject: OperationContext[ops.RevokeKey], /) -> None:
        """Refuse where nothing is left to revoke, and a compromise in the future."""
        since, now = subject.operation.compromised_at, self._services.clock.now()
        if since is not None and not 0 < microseconds(since) <= now:
            raise InvalidInputError(
                "compromised_at must be after 1970 and not in the future.",
                field="compromised_at",
            )
        wanted, number = subject.operation.version, subject.operation.version
        document = subject.key
        if number is not None and document.version(number) is None:
            raise KeyNotFoundError(f"The key has no version {number}.", field="version")
        if wanted is not None:
            _check_revocable(document.versions[wanted - 1])
        elif not any(v.state in _REVOCABLE for v in document.versions):
            raise KeyStateError("The key has no version that can be revoked.")

    def plan(self, subject: OperationContext[ops.RevokeKey], /) -> Plan:
        """Revoke the version, or all, and every version with the same material."""
        operation, document = subject.operation, subject.key
        now = self._services.leaps.now()
        material = {
            v.material_id
            for v in document.versions
            if operation.version in (None, v.version)
        }
        since = operation.compromised_at
        facts = {"compromised_at": microseconds(since)} if since else {}
        versions = [
            msgspec.structs.replace(
                move(v, _S.REVOKED, now, reason=operation.reason), **facts
            )
            if v.material_id in material and v.state in _REVOCABLE
            else v
            for v in document.versions
        ]
        number = operation.version or document.current
        return Plan(with_versions(document, versions, now), number)


_REVOCABLE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.RETIRED, _S.SUSPENDED})


def _check_revocable(version: VersionDocument) -> None:
    # One that waits for its end and was revoked before could move back, but only so.
    if version.state not in _REVOCABLE:
        raise KeyStateError(
            f"Version {version.version} is {version.state} and can't be revoked.",
            state=version.state.value,
            wanted=_S.REVOKED.value,
        )


def _check_current(document: KeyDocument, *wanted: KeyState) -> None:
    state = document.current_version.state
    if state not in wanted:
        raise KeyStateError(
            f"The current version is {state}; it must be {' or '.join(wanted)}.",
            state=state.value,
        )


def _source(subject: OperationContext[ops.Rollback]) -> VersionDocument:
    number = subject.operation.version
    source = subject.key.version(number)
    if source is None:
        raise KeyNotFoundError(f"The key has no version {number}.", field="version")
    return source

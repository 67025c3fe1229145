# SPDX-License-Identifier: MIT
"""Operations that change a key that is there."""

from __future__ import annotations

from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.documents import KeyDocument, Tombstone, VersionDocument
from hsm_core._internal.handlers.base import Plan, Subject
from hsm_core._internal.handlers.new_versions import KeyMutation
from hsm_core._internal.handlers.sealed import seal_version
from hsm_core._internal.handlers.versions import (
    append_version,
    check_room,
    move,
    with_versions,
)
from hsm_core.algorithms import Algorithm
from hsm_core.errors import KeyNotFoundError, KeyStateError
from hsm_core.model import KeyState

__all__ = [
    "DestroyKeyHandler",
    "RevokeKeyHandler",
    "RollbackHandler",
    "RotateKeyHandler",
]

_S: Final = KeyState


class RotateKeyHandler(KeyMutation[ops.RotateKey]):
    """Make a version from fresh material."""

    def prepare(self, subject: Subject[ops.RotateKey], /) -> None:
        """Refuse unless the current version is active or revoked."""
        _check_current(subject.key, _S.ACTIVE, _S.REVOKED)
        check_room(subject.key)
        self._services.crypto.require(Algorithm(subject.key.algorithm))

    def plan(self, subject: Subject[ops.RotateKey], /) -> Plan:
        """Generate, test, seal; the old version is retired, a revoked one stays so."""
        now = self._services.clock.now()
        fresh = self._fresh(subject.key, now)
        document = append_version(subject.key, lambda _: fresh.version, now)
        return Plan(document, document.current, {document.current: fresh.blob})


class RollbackHandler(KeyMutation[ops.Rollback]):
    """Make a version from the material of an older one."""

    def prepare(self, subject: Subject[ops.Rollback], /) -> None:
        """Refuse unless the current version is active and the source retired."""
        _check_current(subject.key, _S.ACTIVE)
        check_room(subject.key)
        source = _source(subject)
        if source.version == subject.key.current:
            raise KeyStateError(
                f"Version {source.version} is the current one already.",
                version=source.version,
            )
        if source.state is not _S.RETIRED:
            raise KeyStateError(
                f"Version {source.version} is {source.state}; only a retired version "
                "can be rolled back to.",
                state=source.state.value,
                version=source.version,
            )

    def plan(self, subject: Subject[ops.Rollback], /) -> Plan:
        """Open the old material and seal it anew, for its new version."""
        now, source = self._services.clock.now(), _source(subject)
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

    def prepare(self, subject: Subject[ops.RevokeKey], /) -> None:
        """Refuse where nothing is left to revoke."""
        wanted, number = subject.operation.version, subject.operation.version
        document = subject.key
        if number is not None and document.version(number) is None:
            raise KeyNotFoundError(f"The key has no version {number}.", field="version")
        if wanted is not None:
            move(document.versions[wanted - 1], _S.REVOKED, now=0)
        elif not any(v.state in _REVOCABLE for v in document.versions):
            raise KeyStateError("No version of this key can be revoked any more.")

    def plan(self, subject: Subject[ops.RevokeKey], /) -> Plan:
        """Revoke the version, or all, and every version with the same material."""
        operation, document = subject.operation, subject.key
        now = self._services.clock.now()
        material = {
            v.material_id
            for v in document.versions
            if operation.version in (None, v.version)
        }
        versions = [
            move(v, _S.REVOKED, now, reason=operation.reason)
            if v.material_id in material and v.state in _REVOCABLE
            else v
            for v in document.versions
        ]
        number = operation.version or document.current
        return Plan(with_versions(document, versions, now), number)


class DestroyKeyHandler(KeyMutation[ops.DestroyKey]):
    """Destroy all material of a key."""

    def prepare(self, subject: Subject[ops.DestroyKey], /) -> None:
        """Refuse a key that is destroyed already."""
        if subject.key.is_destroyed:
            raise KeyStateError("The key is destroyed already.", state="destroyed")

    def plan(self, subject: Subject[ops.DestroyKey], /) -> Plan:
        """Take all through purge_scheduled; leave a tombstone per material."""
        document, now = subject.key, self._services.clock.now()
        versions = [_destroyed(v, now) for v in document.versions]
        buried = {t.material_id for t in document.tombstones}
        fresh = dict.fromkeys(
            v.material_id for v in document.versions if v.material_id not in buried
        )
        after = msgspec.structs.replace(
            with_versions(document, versions, now),
            tombstones=(
                *document.tombstones,
                *(Tombstone(material_id=m, destroyed_at=now) for m in fresh),
            ),
        )
        return Plan(after, document.current)


_REVOCABLE: Final = frozenset({_S.ACTIVE, _S.RETIRED, _S.SUSPENDED})
_WAY_TO_PURGE: Final[dict[KeyState, tuple[KeyState, ...]]] = {
    _S.STAGED: (_S.DESTROYED,),
    _S.ACTIVE: (_S.RETIRED, _S.PURGE_SCHEDULED, _S.DESTROYED),
    _S.RETIRED: (_S.PURGE_SCHEDULED, _S.DESTROYED),
    _S.SUSPENDED: (_S.ACTIVE, _S.RETIRED, _S.PURGE_SCHEDULED, _S.DESTROYED),
    _S.REVOKED: (_S.PURGE_SCHEDULED, _S.DESTROYED),
    _S.PURGE_SCHEDULED: (_S.DESTROYED,),
    _S.DESTROYED: (),
}


def _destroyed(version: VersionDocument, now: int) -> VersionDocument:
    for state in _WAY_TO_PURGE[version.state]:
        version = move(version, state, now)
    return msgspec.structs.replace(version, blob_sha256="")


def _check_current(document: KeyDocument, *wanted: KeyState) -> None:
    state = document.current_version.state
    if state not in wanted:
        raise KeyStateError(
            f"The current version is {state}; it must be "
            f"{' or '.join(wanted)} for this.",
            state=state.value,
        )


def _source(subject: Subject[ops.Rollback]) -> VersionDocument:
    number = subject.operation.version
    source = subject.key.version(number)
    if source is None:
        raise KeyNotFoundError(f"The key has no version {number}.", field="version")
    return source

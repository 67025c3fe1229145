# SPDX-License-Identifier: MIT
"""Changes of an existing key: rotation, rollback, revocation, suspension, metadata."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Plan, handles
from hsm_core._internal.handlers.certificates import check_fit
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.key_creation import (
    KeyMutation,
    check_name,
    seal_version,
)
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    RotationDocument,
    VersionDocument,
)
from hsm_core._internal.keyring.versions import (
    append_version,
    check_living,
    check_room,
    move,
    numbered_version,
    staged_version,
    with_versions,
)
from hsm_core._internal.time.clock import microseconds
from hsm_core.algorithms import Algorithm
from hsm_core.errors import InvalidInputError, KeyStateError
from hsm_core.model import KeyState


@handles(ops.RotateKey)
class RotateKeyHandler(KeyMutation[ops.RotateKey]):
    """Make a version from fresh material."""

    def made_algorithm(self, operation: ops.RotateKey, /) -> Algorithm | None:
        """Return the key's algorithm."""
        return self._algorithm_of(operation)

    def prepare(self, context: RequestContext[ops.RotateKey], /) -> None:
        """Refuse unless the current version is active or revoked, and none staged."""
        _check_current(context.key, KeyState.ACTIVE, KeyState.REVOKED)
        staged = staged_version(context.key)
        if staged is not None:
            raise KeyStateError(
                f"Version {staged.version} is staged. Activate or revoke it first.",
                state=staged.state.value,
                version=staged.version,
            )
        check_room(context.key)
        self._services.crypto.require(Algorithm(context.key.algorithm))

    def plan(self, context: RequestContext[ops.RotateKey], /) -> Plan:
        """Generate, test, seal; the old version is retired, a revoked one stays so."""
        now = self._services.clock_guard.now()
        state = KeyState.STAGED if context.operation.staged else KeyState.ACTIVE
        fresh = self._fresh(context.key, now, state)
        document = append_version(context.key, lambda _: fresh.version, now)
        number = fresh.version.version
        return Plan(document, number, {number: fresh.blob})


@handles(ops.Rollback)
class RollbackHandler(KeyMutation[ops.Rollback]):
    """Make a version from the material of an older one."""

    def prepare(self, context: RequestContext[ops.Rollback], /) -> None:
        """Refuse unless the current version is active and the source retired."""
        _check_current(context.key, KeyState.ACTIVE)
        check_room(context.key)
        source = numbered_version(context.key, context.operation.version)
        if source.version == context.key.current:
            raise KeyStateError(
                f"Version {source.version} is already the current version.",
                version=source.version,
            )
        if source.state is not KeyState.RETIRED:
            raise KeyStateError(
                f"Version {source.version} is {source.state}; only a retired version "
                "can be rolled back to.",
                state=source.state.value,
                version=source.version,
            )
        check_fit(context.key.versions, source.certificates, field="version")

    def plan(self, context: RequestContext[ops.Rollback], /) -> Plan:
        """Unseal the old key material and seal it for the new version."""
        now = self._services.clock_guard.now()
        source = numbered_version(context.key, context.operation.version)
        material = self._services.inventory.materials.open_material(context.key, source)
        sealed = seal_version(
            self._services.inventory,
            context.key,
            material,
            public_der=source.public_der,
            material_id=source.material_id,
            rolled_back_from=source.version,
            now=now,
        )
        # They are for its public key, which the new version has too.
        made = msgspec.structs.replace(sealed.version, certificates=source.certificates)
        document = append_version(context.key, lambda _: made, now)
        return Plan(document, document.current, {document.current: sealed.blob})


@handles(ops.RevokeKey)
class RevokeKeyHandler(KeyMutation[ops.RevokeKey]):
    """Mark material as compromised."""

    def prepare(self, context: RequestContext[ops.RevokeKey], /) -> None:
        """Refuse where nothing is left to revoke, and a compromise in the future."""
        since, now = context.operation.compromised_at, self._services.clock.now()
        if since is not None and not 0 < microseconds(since) <= now:
            raise InvalidInputError(
                "compromised_at must be after 1970 and not in the future.",
                field="compromised_at",
            )
        number, document = context.operation.version, context.key
        if number is not None:
            _check_revocable(numbered_version(document, number))
        elif not any(v.state in _REVOCABLE for v in document.versions):
            raise KeyStateError("The key has no version that can be revoked.")

    def plan(self, context: RequestContext[ops.RevokeKey], /) -> Plan:
        """Revoke the version, or all, and every version with the same material."""
        operation, document = context.operation, context.key
        now = self._services.clock_guard.now()
        material = {
            v.material_id
            for v in document.versions
            if operation.version in (None, v.version)
        }
        since = operation.compromised_at
        facts = {"compromised_at": microseconds(since)} if since else {}
        versions = [
            msgspec.structs.replace(
                move(v, KeyState.REVOKED, now, reason=operation.reason), **facts
            )
            if v.material_id in material and v.state in _REVOCABLE
            else v
            for v in document.versions
        ]
        number = operation.version or document.current
        return Plan(with_versions(document, versions, now), number)


_REVOCABLE: Final = frozenset(
    {KeyState.STAGED, KeyState.ACTIVE, KeyState.RETIRED, KeyState.SUSPENDED}
)


def _check_revocable(version: VersionDocument) -> None:
    # One that waits for its end and was revoked before could move back, but only so.
    if version.state not in _REVOCABLE:
        raise KeyStateError(
            f"Version {version.version} is {version.state} and can't be revoked.",
            state=version.state.value,
            wanted=KeyState.REVOKED.value,
        )


def _check_current(document: KeyDocument, *wanted: KeyState) -> None:
    state = document.current_version.state
    if state not in wanted:
        raise KeyStateError(
            f"The current version is {state}; it must be {' or '.join(wanted)}.",
            state=state.value,
            version=document.current,
        )


_GIVES_WAY: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED, KeyState.REVOKED})
"""States in which a staged version can replace the current version."""


@handles(ops.ActivateKey)
class ActivateKeyHandler(KeyMutation[ops.ActivateKey]):
    """Put a staged version into force."""

    def resolve(
        self, operation: ops.ActivateKey, document: KeyDocument | None, /
    ) -> ops.ActivateKey:
        """Name the version, so that an approval is for this one."""
        staged = staged_version(document) if document else None
        if operation.version is not None or staged is None:
            return operation
        return msgspec.structs.replace(operation, version=staged.version)

    def prepare(self, context: RequestContext[ops.ActivateKey], /) -> None:
        """Refuse a version that is not staged, and while the current one rests."""
        document, version = context.key, _named(context)
        if version.state is not KeyState.STAGED:
            raise KeyStateError(
                f"Version {version.version} is {version.state}; only a staged version "
                "can be activated.",
                state=version.state.value,
                version=version.version,
            )
        current = document.current_version
        if current is not version and current.state not in _GIVES_WAY:
            raise KeyStateError(
                f"The current version is {current.state}. Resume or revoke it first.",
                state=current.state.value,
                version=current.version,
            )

    def plan(self, context: RequestContext[ops.ActivateKey], /) -> Plan:
        """Make it the current one; an active one before it is retired."""
        document, wanted = context.key, _named(context)
        now = self._services.clock_guard.now()

        def moved(version: VersionDocument) -> VersionDocument:
            if version is wanted:
                return move(version, KeyState.ACTIVE, now)
            if version.state is KeyState.ACTIVE:
                return move(version, KeyState.RETIRED, now)
            return version

        number = wanted.version
        versions = map(moved, document.versions)
        return Plan(with_versions(document, versions, now, current=number), number)


@handles(ops.SuspendKey)
class SuspendKeyHandler(KeyMutation[ops.SuspendKey]):
    """Let the current version rest."""

    def prepare(self, context: RequestContext[ops.SuspendKey], /) -> None:
        """Refuse a current version that is not active."""
        _check_current(context.key, KeyState.ACTIVE)

    def plan(self, context: RequestContext[ops.SuspendKey], /) -> Plan:
        """Suspend it."""
        document, now = context.key, self._services.clock_guard.now()
        moved = move(
            document.current_version,
            KeyState.SUSPENDED,
            now,
            reason=context.operation.reason,
        )
        return _current_replaced(document, moved, now)


@handles(ops.ResumeKey)
class ResumeKeyHandler(KeyMutation[ops.ResumeKey]):
    """Reactivate a suspended version."""

    def prepare(self, context: RequestContext[ops.ResumeKey], /) -> None:
        """Refuse a current version that is not suspended."""
        _check_current(context.key, KeyState.SUSPENDED)

    def plan(self, context: RequestContext[ops.ResumeKey], /) -> Plan:
        """Make it active, and forget why it was not."""
        document, now = context.key, self._services.clock_guard.now()
        moved = move(document.current_version, KeyState.ACTIVE, now)
        return _current_replaced(
            document, msgspec.structs.replace(moved, reason=""), now
        )


@handles(ops.SetRotation)
class SetRotationHandler(KeyMutation[ops.SetRotation]):
    """Say when the HSM rotates a key by itself."""

    def prepare(self, context: RequestContext[ops.SetRotation], /) -> None:
        """Refuse a key that is destroyed."""
        check_living(context.key)

    def plan(self, context: RequestContext[ops.SetRotation], /) -> Plan:
        """Store the limits; no limit means no rotation."""
        operation, document = context.operation, context.key
        now = self._services.clock_guard.now()
        wanted = RotationDocument(
            max_age_days=operation.max_age_days or 0,
            max_uses=operation.max_uses or 0,
        )
        after = msgspec.structs.replace(
            with_versions(document, document.versions, now),
            rotation=wanted if wanted != RotationDocument() else None,
        )
        return Plan(after, document.current)


def _named(context: RequestContext[ops.ActivateKey]) -> VersionDocument:
    number = context.operation.version
    if number is None:
        raise KeyStateError("The key has no staged version.")
    return numbered_version(context.key, number)


def _current_replaced(document: KeyDocument, moved: VersionDocument, now: int) -> Plan:
    versions = (moved if v.version == moved.version else v for v in document.versions)
    return Plan(with_versions(document, versions, now), moved.version)


@handles(ops.UpdateKey)
class UpdateKeyHandler(KeyMutation[ops.UpdateKey]):
    """Change name, description, owner and tags."""

    def resolve(
        self, operation: ops.UpdateKey, document: KeyDocument | None, /
    ) -> ops.UpdateKey:
        """Put the tags in order."""
        if operation.tags is None:
            return operation
        return msgspec.structs.replace(
            operation, tags=tuple(sorted(set(operation.tags)))
        )

    def prepare(self, context: RequestContext[ops.UpdateKey], /) -> None:
        """Refuse a destroyed key, a change of nothing, and names that are not free."""
        operation, document = context.operation, context.key
        check_living(document)
        if not _changes(operation):
            raise InvalidInputError(
                "Pass at least one of name, description, owner and tags."
            )
        if operation.name and operation.name != document.name:
            check_name(operation.name)
            self._services.inventory.require_free(operation.name, document.key_id)

    def plan(self, context: RequestContext[ops.UpdateKey], /) -> Plan:
        """Make the next generation, even if nothing differs."""
        document, now = context.key, self._services.clock.now()
        after = with_versions(
            updated(document, context.operation), document.versions, now
        )
        return Plan(after, document.current)


def updated(document: KeyDocument, operation: ops.UpdateKey) -> KeyDocument:
    """Return a document with the facts that an operation wants, else as it is."""
    return msgspec.structs.replace(document, **_changes(operation))


def _changes(operation: ops.UpdateKey) -> dict[str, Any]:
    wanted = {
        "name": operation.name,
        "description": operation.description,
        "owner": operation.owner,
        "tags": operation.tags,
    }
    return {name: value for name, value in wanted.items() if value is not None}

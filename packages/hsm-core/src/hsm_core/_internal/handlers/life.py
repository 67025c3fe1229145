# SPDX-License-Identifier: MIT
"""Handlers of version states: activate, suspend, resume, automatic rotation."""

from __future__ import annotations

from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import OperationContext, Plan
from hsm_core._internal.handlers.new_versions import KeyMutation
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    RotationDocument,
    VersionDocument,
)
from hsm_core._internal.keyring.versions import (
    check_living,
    move,
    staged_version,
    with_versions,
)
from hsm_core.errors import KeyNotFoundError, KeyStateError
from hsm_core.model import KeyState

_S: Final = KeyState
_GIVES_WAY: Final = frozenset({_S.ACTIVE, _S.RETIRED, _S.REVOKED})
"""States in which a staged version can replace the current version."""


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

    def prepare(self, subject: OperationContext[ops.ActivateKey], /) -> None:
        """Refuse a version that is not staged, and while the current one rests."""
        document, version = subject.key, _named(subject)
        if version.state is not _S.STAGED:
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

    def plan(self, subject: OperationContext[ops.ActivateKey], /) -> Plan:
        """Make it the current one; an active one before it is retired."""
        document, wanted = subject.key, _named(subject)
        now = self._services.leaps.now()

        def moved(version: VersionDocument) -> VersionDocument:
            if version is wanted:
                return move(version, _S.ACTIVE, now)
            if version.state is _S.ACTIVE:
                return move(version, _S.RETIRED, now)
            return version

        number = wanted.version
        versions = map(moved, document.versions)
        return Plan(with_versions(document, versions, now, current=number), number)


class SuspendKeyHandler(KeyMutation[ops.SuspendKey]):
    """Let the current version rest."""

    def prepare(self, subject: OperationContext[ops.SuspendKey], /) -> None:
        """Refuse a current version that is not active."""
        _check_current(subject.key, _S.ACTIVE, "suspended")

    def plan(self, subject: OperationContext[ops.SuspendKey], /) -> Plan:
        """Suspend it."""
        document, now = subject.key, self._services.leaps.now()
        moved = move(
            document.current_version,
            _S.SUSPENDED,
            now,
            reason=subject.operation.reason,
        )
        return _current_replaced(document, moved, now)


class ResumeKeyHandler(KeyMutation[ops.ResumeKey]):
    """Reactivate a suspended version."""

    def prepare(self, subject: OperationContext[ops.ResumeKey], /) -> None:
        """Refuse a current version that is not suspended."""
        _check_current(subject.key, _S.SUSPENDED, "resumed")

    def plan(self, subject: OperationContext[ops.ResumeKey], /) -> Plan:
        """Make it active, and forget why it was not."""
        document, now = subject.key, self._services.leaps.now()
        moved = move(document.current_version, _S.ACTIVE, now)
        return _current_replaced(
            document, msgspec.structs.replace(moved, reason=""), now
        )


class SetRotationHandler(KeyMutation[ops.SetRotation]):
    """Say when the HSM rotates a key by itself."""

    def prepare(self, subject: OperationContext[ops.SetRotation], /) -> None:
        """Refuse a key that is destroyed."""
        check_living(subject.key)

    def plan(self, subject: OperationContext[ops.SetRotation], /) -> Plan:
        """Store the limits; no limit means no rotation."""
        operation, document = subject.operation, subject.key
        now = self._services.leaps.now()
        wanted = RotationDocument(
            max_age_days=operation.max_age_days or 0,
            max_uses=operation.max_uses or 0,
        )
        after = msgspec.structs.replace(
            with_versions(document, document.versions, now),
            rotation=wanted if wanted != RotationDocument() else None,
        )
        return Plan(after, document.current)


def _named(subject: OperationContext[ops.ActivateKey]) -> VersionDocument:
    number = subject.operation.version
    if number is None:
        raise KeyStateError("The key has no staged version.")
    version = subject.key.version(number)
    if version is None:
        raise KeyNotFoundError(f"The key has no version {number}.", field="version")
    return version


def _check_current(document: KeyDocument, wanted: KeyState, participle: str) -> None:
    state = document.current_version.state
    if state is not wanted:
        raise KeyStateError(
            f"The current version is {state}; only one that is {wanted} can be "
            f"{participle}.",
            state=state.value,
            version=document.current,
        )


def _current_replaced(document: KeyDocument, moved: VersionDocument, now: int) -> Plan:
    versions = (moved if v.version == moved.version else v for v in document.versions)
    return Plan(with_versions(document, versions, now), moved.version)

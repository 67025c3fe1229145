# SPDX-License-Identifier: MIT
"""Version changes in a key document: transitions, new versions, permitted uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.lifecycle import check_move, permits
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import (
    InputSizeError,
    KeyNotFoundError,
    KeyStateError,
    KeyUsageError,
)
from hsm_core.model import KeyState

_S: Final = KeyState
_SHORT_WALK: Final = 8

MAX_VERSIONS: Final = 4096
"""Maximum number of versions of a key; bounds the size of its document."""


def move(
    version: VersionDocument, wanted: KeyState, now: int, *, reason: str = ""
) -> VersionDocument:
    """
    Return a version in another state.

    A version that returns from purge_scheduled keeps its timestamps.

    Raises:
        KeyStateError: The transition is not allowed.
    """
    before = version.state
    check_move(before, wanted, came_from=version.came_from)
    retired = wanted is _S.RETIRED and before is not _S.PURGE_SCHEDULED
    revoked = wanted is _S.REVOKED and before is not _S.PURGE_SCHEDULED
    activated = wanted is _S.ACTIVE and before is _S.STAGED
    return msgspec.structs.replace(
        version,
        state=wanted,
        state_changed_at=now,
        came_from=before if wanted is _S.PURGE_SCHEDULED else None,
        reason=reason or version.reason,
        activated_at=now if activated else version.activated_at,
        retired_at=now if retired else version.retired_at,
        revoked_at=now if revoked else version.revoked_at,
        purge_at=0,
    )


def with_versions(
    document: KeyDocument,
    versions: Iterable[VersionDocument],
    now: int,
    *,
    current: int | None = None,
) -> KeyDocument:
    """Return the next generation of a document with these versions."""
    return msgspec.structs.replace(
        document,
        versions=tuple(versions),
        current=current or document.current,
        generation=document.generation + 1,
        updated_at=now,
    )


def check_living(document: KeyDocument) -> None:
    """
    Check that a key is not destroyed.

    Raises:
        KeyStateError: It is.
    """
    if document.is_destroyed:
        raise KeyStateError("The key is destroyed.", state=_S.DESTROYED.value)


def staged_version(document: KeyDocument) -> VersionDocument | None:
    """Return the version that waits to be activated; a key has one at most."""
    staged = (v for v in document.versions if v.state is _S.STAGED)
    return next(staged, None)


def check_room(document: KeyDocument) -> None:
    """
    Check that a key may have another version.

    Raises:
        InputSizeError: It has `MAX_VERSIONS` already.
    """
    if len(document.versions) >= MAX_VERSIONS:
        raise InputSizeError(
            "versions",
            actual=len(document.versions) + 1,
            minimum=1,
            maximum=MAX_VERSIONS,
            unit="versions",
        )


def append_version(
    document: KeyDocument,
    build: Callable[[int], VersionDocument],
    now: int,
) -> KeyDocument:
    """
    Add a version as the current one; an active one before it is retired.

    A staged one becomes the current one only where it is the first.
    """
    number = len(document.versions) + 1
    made = build(number)
    if made.state is _S.STAGED and document.versions:
        return with_versions(document, [*document.versions, made], now)
    kept = [
        move(v, KeyState.RETIRED, now)
        if v.version == document.current and v.state is KeyState.ACTIVE
        else v
        for v in document.versions
    ]
    return with_versions(document, [*kept, made], now, current=number)


def check_hold(document: KeyDocument) -> None:
    """
    Check that no legal hold prevents destruction.

    Raises:
        KeyStateError: It is held.
    """
    if document.hold:
        raise KeyStateError(
            f"The key is under legal hold ({document.hold}) and can't be "
            "destroyed. Release the hold first.",
            hold=document.hold,
        )


def check_usage(
    document: KeyDocument, usage: KeyUsage | None, *, field: str = "key_id"
) -> None:
    """
    Check that a key was made for a usage.

    Args:
        document: The key.

        usage: Requested usage.

        field: Field of the operation that names the key.

    Raises:
        KeyUsageError: It was not.
    """
    if usage is not None and usage.value not in document.usages:
        raise KeyUsageError(
            f"{field}: this {document.algorithm} key may not be used to {usage}; "
            f"its usages are {', '.join(document.usages)}.",
            field=field,
            usage=usage.value,
        )


def require_version(
    document: KeyDocument,
    number: int | None,
    kind: str,
    *,
    revoked_allowed: bool = False,
    field: str = "version",
) -> VersionDocument:
    """
    Return the version an operation uses: *number*, or the current one.

    Args:
        document: The key.

        number: None means the current version.

        kind: As `lifecycle.permits` takes it.

        revoked_allowed: Whether the policy allows *kind* for revoked versions.

        field: Field of the operation that names the version.

    Raises:
        KeyNotFoundError: The key has no such version.
        KeyStateError: The version's state does not permit the operation.
    """
    version = document.version(number if number is not None else document.current)
    if version is None:
        raise KeyNotFoundError(f"The key has no version {number}.", field=field)
    if not permits(version.state, kind, revoked_allowed=revoked_allowed):
        raise KeyStateError(
            f"Version {version.version} is {version.state}, which does not permit "
            f"{kind}.",
            state=version.state.value,
            version=version.version,
        )
    return version


def is_short_walk(document: KeyDocument | None, number: int | None) -> bool:
    """Return whether a check that tries versions is sure to end soon."""
    if number is not None:
        return True
    return document is not None and len(document.versions) <= _SHORT_WALK


def usable_versions(
    document: KeyDocument,
    number: int | None,
    kind: str,
    *,
    revoked_allowed: bool,
) -> tuple[VersionDocument, ...]:
    """
    Return the versions that a check tries: *number*, or all that may, newest first.

    Raises:
        KeyNotFoundError: The key has no such version.
        KeyStateError: No version's state permits the operation.
    """
    if number is not None:
        return (
            require_version(document, number, kind, revoked_allowed=revoked_allowed),
        )
    found = tuple(
        version
        for version in reversed(document.versions)
        if permits(version.state, kind, revoked_allowed=revoked_allowed)
    )
    if found:
        return found
    return (require_version(document, None, kind, revoked_allowed=revoked_allowed),)

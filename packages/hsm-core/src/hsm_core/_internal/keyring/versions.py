# SPDX-License-Identifier: MIT
"""Key versions: states, transitions, destruction of material, and retention windows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import KeyDocument, Tombstone, VersionDocument
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import (
    InputSizeError,
    KeyNotFoundError,
    KeyStateError,
    KeyUsageError,
)
from hsm_core.model import KeyState
from hsm_core.retention_policy import RetentionPolicy

_S: Final = KeyState
MOVES: Final[dict[KeyState, frozenset[KeyState]]] = {
    _S.STAGED: frozenset({_S.ACTIVE, _S.REVOKED, _S.PURGE_SCHEDULED, _S.DESTROYED}),
    _S.ACTIVE: frozenset({_S.RETIRED, _S.SUSPENDED, _S.REVOKED}),
    _S.RETIRED: frozenset({_S.REVOKED, _S.PURGE_SCHEDULED}),
    _S.SUSPENDED: frozenset({_S.ACTIVE, _S.REVOKED}),
    _S.REVOKED: frozenset({_S.PURGE_SCHEDULED}),
    _S.PURGE_SCHEDULED: frozenset(
        {_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.RETIRED, _S.REVOKED, _S.DESTROYED}
    ),
    _S.DESTROYED: frozenset(),
}
"""
Allowed transitions of each state (SP 800-57 part 1, section 7).

purge_scheduled returns only to the state it came from, an argument of `check_move`.
When a whole key is scheduled for destruction, active and suspended versions are retired
first, and return to the state before that.
"""

_PROTECT: Final = frozenset(
    {
        "ComputeMac",
        "Encapsulate",
        "Encrypt",
        "GenerateDataKey",
        "RawEncrypt",
        "RawSign",
        "Seal",
        "Sign",
        "derive",
        "wrap",
    }
)
_PROCESS: Final = frozenset(
    {
        "Decapsulate",
        "Decrypt",
        "DecryptPKCS1",
        "ExportKey",
        "Open",
        "RawDecrypt",
        "RawVerify",
        "Rewrap",
        "Verify",
        "VerifyMac",
        "unwrap",
    }
)
_PUBLIC: Final = frozenset({"GetPublicKey"})
PERMITTED: Final[dict[KeyState, frozenset[str]]] = {
    _S.STAGED: _PUBLIC,
    _S.ACTIVE: _PROTECT | _PROCESS | _PUBLIC,
    _S.RETIRED: _PROCESS | _PUBLIC,
    _S.SUSPENDED: _PUBLIC,
    _S.REVOKED: frozenset(),
    _S.PURGE_SCHEDULED: frozenset(),
    _S.DESTROYED: frozenset(),
}
"""
Permitted uses of a version by state (SP 800-57 part 1, section 7): operations on its
key, and usages of a key that an operation on another key names.
"""

REVOKED_BY_POLICY: Final = frozenset({"Verify", "VerifyMac", "GetPublicKey"})
"""The only operations that a policy may allow for a revoked version."""

_SHORT_WALK: Final = 8
MAX_VERSIONS: Final = 4096
"""Maximum number of versions of a key; bounds the size of its document."""

WAY_TO_PURGE: Final[dict[KeyState, tuple[KeyState, ...]]] = {
    _S.STAGED: (_S.PURGE_SCHEDULED,),
    _S.ACTIVE: (_S.RETIRED, _S.PURGE_SCHEDULED),
    _S.RETIRED: (_S.PURGE_SCHEDULED,),
    _S.SUSPENDED: (_S.ACTIVE, _S.RETIRED, _S.PURGE_SCHEDULED),
    _S.REVOKED: (_S.PURGE_SCHEDULED,),
    _S.PURGE_SCHEDULED: (),
    _S.DESTROYED: (),
}
"""Transitions by which a version in each state reaches purge_scheduled."""

DAY: Final = 86_400 * 1_000_000
"""A day, in microseconds."""

_PURGEABLE: Final = frozenset({_S.RETIRED, _S.REVOKED, _S.PURGE_SCHEDULED})


def check_move(
    before: KeyState, after: KeyState, *, came_from: KeyState | None = None
) -> None:
    """
    Check one state transition of a version.

    Args:
        before: Present state.

        after: State wanted.

        came_from: The state before purge_scheduled, the only one to go back to.

    Raises:
        KeyStateError: The transition is not allowed.
    """
    back = before is _S.PURGE_SCHEDULED and after is not _S.DESTROYED
    if after not in MOVES[before] or (back and after is not came_from):
        raise KeyStateError(
            f"A version that is {before} can't become {after}.",
            state=before.value,
            wanted=after.value,
        )


def permits(state: KeyState, kind: str, *, revoked_allowed: bool) -> bool:
    """
    Return whether a version in *state* may serve *kind*.

    Args:
        state: State of the version.

        kind: Name of an operation, or a usage where the key is not its first.

        revoked_allowed: Whether the policy allows *kind* for revoked versions.
    """
    if state is _S.REVOKED:
        return revoked_allowed and kind in REVOKED_BY_POLICY
    return kind in PERMITTED[state]


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


def numbered_version(
    document: KeyDocument, number: int, *, field: str = "version"
) -> VersionDocument:
    """
    Return a version by its number.

    Raises:
        KeyNotFoundError: The key has no such version.
    """
    version = document.version(number)
    if version is None:
        raise KeyNotFoundError(f"The key has no version {number}.", field=field)
    return version


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
    version = (
        document.current_version
        if number is None
        else numbered_version(document, number, field=field)
    )
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


def living(document: KeyDocument) -> set[str]:
    """Return the ids of a key's material that is not destroyed."""
    return {v.material_id for v in document.versions if v.state is not _S.DESTROYED}


def destroy_material(
    document: KeyDocument, material_ids: Collection[str], now: int
) -> KeyDocument:
    """
    Return the next generation of a document, with some of its material destroyed.

    If that includes the current version, the newest remaining version becomes current.
    """
    versions = (
        _destroyed(version, now) if version.material_id in material_ids else version
        for version in document.versions
    )
    known = {stone.material_id for stone in document.tombstones}
    fresh = dict.fromkeys(
        version.material_id
        for version in document.versions
        if version.material_id in material_ids and version.material_id not in known
    )
    after = msgspec.structs.replace(
        with_versions(document, versions, now),
        tombstones=(
            *document.tombstones,
            *(Tombstone(material_id=m, destroyed_at=now) for m in fresh),
        ),
    )
    if not after.is_destroyed:
        return msgspec.structs.replace(after, current=_newest_living(after))
    # Nothing is left that could wait for its end.
    return msgspec.structs.replace(after, destroy_at=0, destroy_asked_at=0)


def _newest_living(document: KeyDocument) -> int:
    if document.current_version.state is not _S.DESTROYED:
        return document.current
    living = (v.version for v in document.versions if v.state is not _S.DESTROYED)
    return max(living)


def _destroyed(version: VersionDocument, now: int) -> VersionDocument:
    if version.state is _S.DESTROYED:
        return version
    way = (*WAY_TO_PURGE[version.state], _S.DESTROYED)
    # A version that was never active has nothing to be retired from.
    for state in way if version.state is not _S.STAGED else (_S.DESTROYED,):
        version = move(version, state, now)
    return msgspec.structs.replace(version, blob_sha256="")


class Window(msgspec.Struct, frozen=True):
    """
    Retention window of a version, and the rule that sets it.

    Attributes:
        rule: ``default``, ``tag:…`` or ``override:…``.
    """

    days: int
    rule: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """
    Material of a key, with every version that uses it.

    Attributes:
        opened_at: When the last of them was retired or revoked, microseconds since
            1970.
        window: The longest of theirs.
        due_at: When the window ends, or what it was extended to.
        kept: Reason to keep it at any age: ``hold``, ``current``,
            ``rollback``, ``in-use`` or ``destruction``; empty if it may.
    """

    document: KeyDocument
    versions: tuple[VersionDocument, ...]
    opened_at: int
    window: Window
    due_at: int
    kept: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the versions, ascending."""
        return tuple(version.version for version in self.versions)

    @property
    def newest(self) -> VersionDocument:
        """The version that names it."""
        return self.versions[-1]

    @property
    def material_id(self) -> str:
        """Id of the material."""
        return self.newest.material_id

    @property
    def is_scheduled(self) -> bool:
        """Whether it waits for its purge."""
        return all(v.state is _S.PURGE_SCHEDULED for v in self.versions)

    def is_due(self, now: int) -> bool:
        """Return whether it may be purged by its age, and by all else."""
        return not self.kept and self.due_at <= now


class PurgeWindows:
    """The windows that concern one key, found once for all of its versions."""

    def __init__(self, policy: RetentionPolicy, document: KeyDocument) -> None:
        overrides = [
            (override.version, Window(override.days, f"override:{override.key_id}"))
            for override in policy.overrides
            if override.key_id in (document.key_id, document.name)
        ]
        tags = [
            Window(policy.tags[tag], f"tag:{tag}")
            for tag in sorted(document.tags)
            if tag in policy.tags
        ]
        self._usual = Window(policy.default_days, "default")
        self._all = [*(w for number, w in overrides if number is None), *tags]
        self._some: dict[int, list[Window]] = {}
        for number, window in overrides:
            if number is not None:
                self._some.setdefault(number, []).append(window)

    def of(self, version: VersionDocument) -> Window:
        found = (*self._some.get(version.version, ()), *self._all)
        return max(found, key=lambda window: window.days, default=self._usual)


def candidates(policy: RetentionPolicy, document: KeyDocument) -> Iterator[Candidate]:
    """Return each material of a key that has not been destroyed, oldest first."""
    windows = PurgeWindows(policy, document)
    groups: dict[str, list[VersionDocument]] = {}
    for version in document.versions:
        if version.state is not _S.DESTROYED:
            groups.setdefault(version.material_id, []).append(version)
    for versions in groups.values():
        yield _candidate(windows, document, tuple(versions))


def candidate_of(
    policy: RetentionPolicy, document: KeyDocument, material_id: str
) -> Candidate | None:
    """Return one material of a key; None if it is destroyed or none of the key's."""
    versions = tuple(
        version
        for version in document.versions
        if version.material_id == material_id and version.state is not _S.DESTROYED
    )
    return (
        _candidate(PurgeWindows(policy, document), document, versions)
        if versions
        else None
    )


def _candidate(
    windows: PurgeWindows, document: KeyDocument, versions: tuple[VersionDocument, ...]
) -> Candidate:
    found = [(windows.of(version), version) for version in versions]
    ends = (max(opened_at(v) + w.days * DAY, v.retain_until) for w, v in found)
    return Candidate(
        document=document,
        versions=versions,
        opened_at=max(map(opened_at, versions)),
        window=max((w for w, _ in found), key=lambda w: w.days),
        due_at=max(ends),
        kept=kept(document, versions),
    )


def kept(document: KeyDocument, versions: tuple[VersionDocument, ...]) -> str:
    """Return why material must stay whatever its age, as in `Candidate.kept`."""
    if document.hold:
        return "hold"
    if document.destroy_at:
        return "destruction"
    numbers = {version.version for version in versions}
    if document.current in numbers:
        # The material of a current version, revoked or not, is the key's last.
        return "current" if len(numbers) == 1 else "rollback"
    if any(version.state not in _PURGEABLE for version in versions):
        return "in-use"
    return ""


def opened_at(version: VersionDocument) -> int:
    """
    Return when the window of a version opened: when it was retired or revoked.

    That it waits for its purge, or did so before, makes no difference.
    """
    state = version.came_from or version.state
    found = version.revoked_at if state is _S.REVOKED else version.retired_at
    return found or version.state_changed_at

# SPDX-License-Identifier: MIT
"""
Purge windows: when old material may be purged, as pure functions.

Versions that share material are purged together: the longest of their windows applies,
and one version that must be kept keeps them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core.model import KeyState
from hsm_core.retention_policy import RetentionPolicy

DAY: Final = 86_400 * 1_000_000
"""A day, in microseconds."""

_S: Final = KeyState
_PURGEABLE: Final = frozenset({_S.RETIRED, _S.REVOKED, _S.PURGE_SCHEDULED})


@dataclass(frozen=True, slots=True)
class Window:
    """
    Retention window of a version, and the rule that sets it.

    Attributes:
        rule: ``default``, ``tag:…`` or ``override:…``.
    """

    days: int
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
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

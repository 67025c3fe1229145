# SPDX-License-Identifier: MIT
"""Keys, versions and their audit records, as pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hsm_core.algorithms import spec
from hsm_core.errors import KeyTamperedError
from hsm_core.model import (
    AuditEntry,
    AuditEvent,
    CountedDetail,
    Integrity,
    KeyInfo,
    KeyState,
    Phase,
    RotationRule,
    UseInfo,
    VersionInfo,
)
from hsm_core.operations import OPERATIONS, DescribeKey, Effect, ListVersions
from hsm_server.ui.actions import KeyWithVersions
from hsm_server.ui.rendering import microseconds, visible
from hsm_server.ui.security import HOME
from hsm_server.ui.view import View

CATEGORIES: Final = {
    0: "Quantum-vulnerable",
    1: "At least as hard to break as AES-128, also with a quantum computer.",
    2: "At least as hard to break as finding a SHA-256 collision.",
    3: "At least as hard to break as AES-192, also with a quantum computer.",
    5: "At least as hard to break as AES-256, also with a quantum computer.",
}
"""Descriptions of NIST's security categories."""

_SHORT_ID: Final = 8

_STATES: Final = {
    KeyState.STAGED: ("staged", "info"),
    KeyState.ACTIVE: ("active", "ok"),
    KeyState.RETIRED: ("retired", "info"),
    KeyState.SUSPENDED: ("suspended", "warn"),
    KeyState.REVOKED: ("revoked", "bad"),
    KeyState.PURGE_SCHEDULED: ("pending destruction", "warn"),
    KeyState.DESTROYED: ("destroyed", "bad"),
}


@dataclass(frozen=True, slots=True)
class Badge:
    """Text and tone: ``ok``, ``warn``, ``bad`` or ``info``."""

    text: str
    tone: str


@dataclass(frozen=True, slots=True)
class Meter:
    """Usage of a limit, in whole percent."""

    used: int
    limit: int
    percent: int
    is_near: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """
    One key of the list.

    Attributes:
        created_at: Microseconds since 1970, or 0 if unknown.
    """

    key_id: str
    title: str
    has_name: bool
    algorithm: str
    state: Badge
    integrity: Badge | None
    version: int
    owner: str
    tags: tuple[str, ...]
    created_at: int
    is_held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """
    A key as its page shows it; instants in microseconds, 0 if none.

    Attributes:
        category: Description of its security category.
        generation: Number of changes; forms send it back to detect newer changes.
        is_known: Whether its document is authentic.
    """

    row: KeyRow
    family: str
    standard: str
    category: str
    usages: tuple[str, ...]
    description: str
    origin: str
    exportable: bool
    draft: str
    generation: int
    updated_at: int
    destroy_at: int
    hold: str
    rotation: str
    uses: int
    used_bytes: int
    last_used_at: int
    meter: Meter | None
    has_public_key: bool
    is_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """
    One version of a key; instants in microseconds, 0 if none.

    Attributes:
        dates: Events and their instants, in order.
    """

    version: int
    state: Badge
    integrity: Badge | None
    is_current: bool
    dates: tuple[tuple[str, int], ...]
    rolled_back_from: int
    reason: str
    uses: int | None


def title_of(key: KeyInfo) -> str:
    """Return a key's name, or the first characters of its ID."""
    return key.name or f"{key.key_id[:_SHORT_ID]}…"


def state_badge(state: KeyState | None) -> Badge:
    """Return the badge of a state; None is the state of an altered key."""
    return Badge(*_STATES[state]) if state is not None else Badge("unknown", "bad")


def _lines(text: str) -> str:
    """Return text of several lines with other invisible characters made visible."""
    return "\n".join(map(visible, text.splitlines()))


def _integrity_badge(integrity: Integrity) -> Badge | None:
    return None if integrity is Integrity.OK else Badge(integrity.value, "bad")


def key_row(key: KeyInfo) -> KeyRow:
    """Return a key as the list shows it."""
    return KeyRow(
        key_id=key.key_id,
        title=title_of(key),
        has_name=bool(key.name),
        algorithm=key.algorithm.value if key.algorithm else "",
        state=state_badge(key.state),
        integrity=_integrity_badge(key.integrity),
        version=key.version,
        owner=visible(key.owner),
        tags=key.tags,
        created_at=microseconds(key.created_at),
        is_held=bool(key.hold),
    )


def key_facts(key: KeyInfo) -> KeyFacts:
    """Return a key as its page shows it."""
    row = spec(key.algorithm) if key.algorithm else None
    use = key.use or UseInfo(uses=0)
    return KeyFacts(
        row=key_row(key),
        family=row.family.value if row else "",
        standard=row.standard if row else "",
        category=CATEGORIES[row.category] if row else "",
        usages=tuple(usage.value for usage in key.usages),
        description=_lines(key.description),
        origin=key.origin.value,
        exportable=key.exportable,
        draft=key.draft,
        generation=key.generation,
        updated_at=microseconds(key.updated_at),
        destroy_at=microseconds(key.destroy_at),
        hold=visible(key.hold),
        rotation=_rotation(key.rotation),
        uses=use.uses,
        used_bytes=use.bytes,
        last_used_at=microseconds(use.last_used_at),
        meter=_meter(use),
        has_public_key=bool(row and row.is_asymmetric),
        is_known=key.algorithm is not None,
    )


def _rotation(rule: RotationRule | None) -> str:
    if rule is None:
        return ""
    limits = []
    if rule.max_age_days is not None:
        limits.append(_counted(rule.max_age_days, "day"))
    if rule.max_uses is not None:
        limits.append(_counted(rule.max_uses, "use"))
    return " or ".join(limits)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _meter(use: UseInfo) -> Meter | None:
    if not use.limit:
        return None
    percent = min(100, 100 * use.uses // use.limit)
    return Meter(use.uses, use.limit, percent, use.near_limit)


def version_rows(key: KeyInfo, versions: Iterable[VersionInfo]) -> Sequence[VersionRow]:
    """Return the versions of a key, newest first."""
    rows = [_version_row(key, version) for version in versions]
    return rows[::-1]


def _version_row(key: KeyInfo, version: VersionInfo) -> VersionRow:
    return VersionRow(
        version=version.version,
        state=state_badge(version.state),
        integrity=_integrity_badge(version.integrity),
        is_current=version.version == key.version,
        dates=tuple(_dates(version)),
        rolled_back_from=version.rolled_back_from,
        reason=visible(version.reason),
        uses=version.use.uses if version.use else None,
    )


def _dates(version: VersionInfo) -> Iterable[tuple[str, int]]:
    told = (
        ("created", version.created_at),
        ("activated", version.activated_at),
        ("retired", version.retired_at),
        ("compromised", version.compromised_at),
        ("revoked", version.revoked_at),
        ("destroyed", _destroyed_at(version)),
        ("retained until", version.retain_until),
        ("scheduled purge", version.purge_at),
    )
    return ((word, microseconds(at)) for word, at in told if at is not None)


def _destroyed_at(version: VersionInfo) -> datetime | None:
    gone = version.state is KeyState.DESTROYED
    return version.state_changed_at if gone else None


_USES: Final = frozenset(
    operation.__name__ for operation in OPERATIONS if operation.effect is Effect.USE
)
"""Names of operations that use a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """An audit record of a key."""

    seq: int
    time: int
    kind: str
    principal: str
    outcome: Badge
    version: int
    detail: str
    approval_id: str
    leaf_hash: str


def event_rows(entries: Iterable[AuditEntry]) -> Sequence[HistoryRow]:
    """
    Return audit records, in the given order.

    An intent is left out if its outcome is among them.
    """
    shown = list(entries)
    ended = {
        entry.event.operation_id
        for entry in shown
        if entry.event.phase is Phase.OUTCOME
    }
    return [
        _event_row(entry)
        for entry in shown
        if entry.event.phase is not Phase.INTENT
        or entry.event.operation_id not in ended
    ]


def _event_row(entry: AuditEntry) -> HistoryRow:
    event = entry.event
    return HistoryRow(
        seq=event.seq,
        time=event.time,
        kind=event.kind,
        principal=visible(event.caller.principal) if event.caller else "",
        outcome=_outcome(event),
        version=event.version,
        detail=_detail(event),
        approval_id=event.approval_id,
        leaf_hash=entry.leaf_hash,
    )


def _outcome(event: AuditEvent) -> Badge:
    if event.phase is Phase.INTENT:
        return Badge("started", "info")
    return Badge(event.code, "ok" if event.code == "ok" else "bad")


def _detail(event: AuditEvent) -> str:
    reason = event.parameters.get("reason", "")
    if isinstance(event.detail, CountedDetail):
        return f"{event.detail.count:,} times"
    return visible(reason) if isinstance(reason, str) else ""


def last_use(rows: Iterable[HistoryRow]) -> HistoryRow | None:
    """Return the newest successful use of the key among these, if any."""
    return next(
        (row for row in rows if row.kind in _USES and row.outcome.text == "ok"), None
    )


KEY: Final = "/keys/{key_id:[0-9a-z][0-9a-z._-]{0,63}}"
"""Path of the pages of one key."""


def path_of(key_id: str) -> str:
    """Return the path of a key's page."""
    return f"{HOME}/keys/{key_id}"


async def find_key(view: View) -> KeyInfo:
    """
    Return the metadata of the key in the path.

    Raises:
        HSMError: It does not exist, or the caller may not see it.
    """
    return await view.execute(DescribeKey(key_id=view.request.match_info["key_id"]))


async def find_key_with_versions(view: View) -> KeyWithVersions:
    """Return the key in the path with its versions; see `find_key`."""
    key = await find_key(view)
    try:
        versions = (await view.execute(ListVersions(key_id=key.key_id))).items
    except KeyTamperedError:
        versions = ()  # The page reports it for the key.
    return KeyWithVersions(key, versions)

# SPDX-License-Identifier: MIT
"""Plain-text views of records: names with values, or cells of a table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from hsm_core.model import AuditEntry, KeyInfo, RotationRule, UseInfo, VersionInfo

KEY_HEADER = (
    "ID",
    "Name",
    "Algorithm",
    "State",
    "Usage",
    "Version",
    "Integrity",
    "Created",
    "Tags",
)
VERSION_HEADER = (
    "Version",
    "State",
    "Integrity",
    "Created",
    "Changed",
    "From",
    "Uses",
    "Bytes",
    "Last used",
    "Activated",
    "Retired",
    "Destroyed at",
    "Compromised",
    "Reason",
)
EVENT_HEADER = ("Seq", "Time", "Kind", "Phase", "Code", "Principal", "Key", "Version")


def instant(when: datetime | None) -> str:
    """Return a time in UTC to the second (RFC 3339), empty if it is None."""
    if when is None:
        return ""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def words(items: Iterable[str]) -> str:
    """Return words separated by commas."""
    return ",".join(items)


def key_pairs(key: KeyInfo) -> list[tuple[str, str]]:
    """Return the metadata of a key as names and values."""
    return [
        ("id", key.key_id),
        ("name", key.name),
        ("algorithm", key.algorithm or "unknown"),
        ("state", key.state or "unknown"),
        ("version", str(key.version)),
        ("usages", words(key.usages)),
        ("integrity", key.integrity),
        ("owner", key.owner),
        ("description", key.description),
        ("tags", words(key.tags)),
        ("created", instant(key.created_at)),
        ("updated", instant(key.updated_at)),
        ("generation", str(key.generation)),
        ("origin", key.origin),
        ("exportable", "yes" if key.exportable else "no"),
        ("draft", key.draft),
        ("rotation", _rotation(key.rotation)),
        ("destroyed at", instant(key.destroy_at)),
        *_use_pairs(key.use),
    ]


def _rotation(rule: RotationRule | None) -> str:
    if rule is None:
        return ""
    limits = {"days": rule.max_age_days, "uses": rule.max_uses}
    return "every " + " or ".join(f"{n} {unit}" for unit, n in limits.items() if n)


def _use_pairs(use: UseInfo | None) -> list[tuple[str, str]]:
    if use is None:
        return []
    return [
        ("uses", uses(use)),
        ("bytes", str(use.bytes)),
        ("last used", instant(use.last_used_at) or "never"),
    ]


def uses(use: UseInfo) -> str:
    """Return the number of uses of a key material, and its limit."""
    if not use.limit:
        return str(use.uses)
    return f"{use.uses} of {use.limit} ({100 * use.uses // use.limit} %)"


def key_row(key: KeyInfo) -> tuple[str, ...]:
    """Return a key as cells below `KEY_HEADER`."""
    return (
        key.key_id,
        key.name,
        key.algorithm or "unknown",
        key.state or "unknown",
        words(key.usages),
        str(key.version),
        key.integrity,
        instant(key.created_at),
        words(key.tags),
    )


def version_row(version: VersionInfo) -> tuple[str, ...]:
    """Return a version as cells below `VERSION_HEADER`."""
    return (
        str(version.version),
        version.state,
        version.integrity,
        instant(version.created_at),
        instant(version.state_changed_at),
        str(version.rolled_back_from or ""),
        uses(version.use) if version.use is not None else "",
        str(version.use.bytes) if version.use is not None else "",
        instant(version.use.last_used_at) if version.use is not None else "",
        instant(version.activated_at),
        instant(version.retired_at),
        instant(version.purge_at),
        instant(version.compromised_at),
        version.reason,
    )


def event_row(entry: AuditEntry) -> tuple[str, ...]:
    """Return an audit record as cells below `EVENT_HEADER`."""
    event = entry.event
    when = datetime.fromtimestamp(event.time / 1_000_000, UTC)
    return (
        str(event.seq),
        instant(when),
        event.kind,
        event.phase,
        event.code,
        event.caller.principal if event.caller is not None else "",
        event.key_id,
        str(event.version or ""),
    )

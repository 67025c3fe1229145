# SPDX-License-Identifier: MIT
"""Keys, versions, audit records and policy decisions, as pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from hsm_core import wire
from hsm_core.algorithms import spec
from hsm_core.errors import AccessDeniedError, KeyTamperedError
from hsm_core.model import (
    AuditEntry,
    AuditEvent,
    CountedDetail,
    KeyInfo,
    KeyState,
    Phase,
    RotationRule,
    UseInfo,
    VersionInfo,
)
from hsm_core.operations import (
    OPERATIONS,
    DescribeKey,
    Effect,
    ExplainPolicy,
    ListVersions,
    PolicyExplanation,
)
from hsm_server.certificates import readable_facts
from hsm_server.ui.actions import KeyWithVersions
from hsm_server.ui.security import HOME
from hsm_server.ui.view import View

KEY: Final = "/keys/{key_id:[0-9a-z][0-9a-z._-]{0,63}}"
"""Path of the pages of one key."""

CATEGORIES: Final = {
    0: "Quantum-vulnerable",
    1: "At least as hard to break as AES-128, also with a quantum computer.",
    2: "At least as hard to break as finding a SHA-256 collision.",
    3: "At least as hard to break as AES-192, also with a quantum computer.",
    5: "At least as hard to break as AES-256, also with a quantum computer.",
}
"""Descriptions of NIST's security categories."""

READERS: Final = frozenset({"Administrator", "Auditor"})
"""Roles that may read the audit log and explain policy decisions."""

_USES: Final = frozenset(
    operation.__name__ for operation in OPERATIONS if operation.effect is Effect.USE
)
"""Names of operations that use a key."""


def key_values(key: KeyInfo) -> dict[str, Any]:
    """Return the values of a key that its pages show besides its metadata."""
    row = spec(key.algorithm) if key.algorithm else None
    use = key.use or UseInfo(uses=0)
    return {
        "key": key,
        "spec": row,
        "category": CATEGORIES[row.category] if row else "",
        "use": use,
        "used_percent": min(100, 100 * use.uses // use.limit) if use.limit else None,
        "rotation": rotation_words(key.rotation),
        "path": path_of(key.key_id),
    }


def rotation_words(rule: RotationRule | None) -> str:
    """Return a rotation rule, such as ``90 days or 1 use``; empty for none."""
    if rule is None:
        return ""
    limits = ((rule.max_age_days, "day"), (rule.max_uses, "use"))
    return " or ".join(
        f"{number:,} {noun}" + ("" if number == 1 else "s")
        for number, noun in limits
        if number is not None
    )


def version_dates(version: VersionInfo) -> Sequence[tuple[str, datetime]]:
    """Return the events of a version and their instants, in order."""
    gone = version.state is KeyState.DESTROYED
    dates = (
        ("created", version.created_at),
        ("activated", version.activated_at),
        ("retired", version.retired_at),
        ("compromised", version.compromised_at),
        ("revoked", version.revoked_at),
        ("destroyed", version.state_changed_at if gone else None),
        ("retained until", version.retain_until),
        ("scheduled purge", version.purge_at),
    )
    return [(word, at) for word, at in dates if at is not None]


def history_entries(entries: Iterable[AuditEntry]) -> Sequence[AuditEntry]:
    """Return audit records, without intents whose outcome is among them."""
    found = list(entries)
    events = [entry.event for entry in found]
    ended = {event.operation_id for event in events if event.phase is Phase.OUTCOME}
    return [
        entry
        for entry in found
        if entry.event.phase is not Phase.INTENT
        or entry.event.operation_id not in ended
    ]


def event_detail(event: AuditEvent) -> str:
    """Return the number of uses or the reason in a record; empty for none."""
    reason = event.parameters.get("reason", "")
    if isinstance(event.detail, CountedDetail):
        return f"uses: {event.detail.count:,}"
    return reason if isinstance(reason, str) else ""


def last_use(events: Iterable[AuditEvent]) -> AuditEvent | None:
    """Return the newest successful use of the key among these, if any."""
    uses = (event for event in events if event.kind in _USES and event.code == "ok")
    return next(uses, None)


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


async def explain(
    view: View, operation: str, principal: str = "", role: str = "", **facts: Any
) -> PolicyExplanation | None:
    """
    Explain the policy decision for an operation.

    Args:
        view: The browser's request.

        operation: Name of the operation.

        principal: Its caller; the signed-in user by default.

        role: Their only role; by default those of the signed-in user.

        facts: Other fields of `ExplainPolicy`.

    Returns:
        None if the signed-in user may not ask. Roles that never may are not tried,
        since each denial is recorded.

    Raises:
        InvalidInputError: The operation or the role is unknown.
    """
    who = view.who
    if not READERS & set(who.roles):
        return None
    if principal in {"", who.principal} and not role:
        shown = readable_facts(view.visitor.certificate)
        facts |= {
            "certificate_sha256": shown.sha256,
            "certificate_subject": shown.subject,
            "certificate_names": list(shown.names),
            "source_address": view.visitor.address,
        }
    tree = {
        "operation": operation,
        "principal": principal or who.principal,
        "roles": [role] if role else list(who.roles),
        **facts,
    }
    try:
        return await view.execute(wire.convert(tree, ExplainPolicy))
    except AccessDeniedError:
        return None

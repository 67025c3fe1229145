# SPDX-License-Identifier: MIT
"""Form fields of the actions on a key, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from hsm_core.model import KeyState
from hsm_server.ui.fields import Field, Option, read_tags, read_utc
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.subjects import KeyWithVersions

Tree: TypeAlias = dict[str, Any]
"""Fields of an operation by name; None means not given."""

CONFIRM: Final = "confirm"
"""Field that confirms an irreversible action with the key's name or ID."""


def staged_fields(_: KeyWithVersions) -> Sequence[Field]:
    """Return the checkbox that stages the new version."""
    return [
        Field(
            name="staged",
            label="Staging",
            kind="box",
            options=(Option("yes", "Stage the new version"),),
            hint="Until you activate it, only its public key is available and the "
            "current version stays current.",
        )
    ]


def source_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the selection of the version to roll back to."""
    options = [
        Option(str(version.version), f"Version {version.version}")
        for version in subject.sources
    ]
    return [
        Field(
            name="version",
            label="Roll back to",
            kind="select",
            options=tuple(options),
            is_required=True,
        )
    ]


def reason_fields(_: KeyWithVersions) -> Sequence[Field]:
    """Return the reason field."""
    return [_reason()]


def _reason() -> Field:
    return Field(
        name="reason",
        label="Reason",
        hint="Stored with the key and in the audit log.",
        longest=256,
    )


def revocation_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the fields of a revocation: version, reason, time of compromise."""
    revocable = [
        version
        for version in reversed(subject.versions)
        if version.state
        not in {KeyState.REVOKED, KeyState.DESTROYED, KeyState.PURGE_SCHEDULED}
    ]
    options = [
        Option("", "All versions"),
        *(Option(str(v.version), f"Version {v.version} only") for v in revocable),
    ]
    return [
        Field(name="version", label="Versions", kind="select", options=tuple(options)),
        _reason(),
        Field(
            name="compromised_at",
            label="Compromised since (UTC)",
            kind="instant",
            hint="Leave empty if unknown.",
        ),
        _confirmation(subject),
    ]


def waiting_period_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the waiting period, if none is running, and the confirmation."""
    waits = subject.key.state is KeyState.PURGE_SCHEDULED
    days = Field(
        name="waiting_days",
        label="Waiting period in days",
        kind="number",
        hint="Until it ends, you can cancel the destruction. Default: the minimum "
        "that this HSM requires, which may be 0.",
    )
    return [*([] if waits else [days]), _confirmation(subject)]


def _confirmation(subject: KeyWithVersions) -> Field:
    what = "name" if subject.key.name else "the first characters of its ID"
    return Field(
        name=CONFIRM,
        label=f"Type {subject.confirmation_text} to confirm",
        hint=f"Irreversible. Type the key's {what}.",
        is_required=True,
        longest=64,
    )


def metadata_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the fields of a key's metadata, with their current values."""
    key = subject.key
    return [
        Field(
            name="name",
            label="Name",
            value=key.name,
            hint="Lowercase letters, digits, dots, hyphens and underscores. Unique.",
            longest=64,
        ),
        Field(
            name="description",
            label="Description",
            kind="area",
            value=key.description,
            longest=1024,
        ),
        Field(
            name="owner", label="Owner", value=key.owner, is_required=True, longest=128
        ),
        Field(
            name="tags",
            label="Tags",
            value=" ".join(key.tags),
            hint="Separated by spaces or commas. Policy rules may depend on them.",
        ),
    ]


def rotation_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the fields of automatic rotation, with their current values."""
    rule = subject.key.rotation
    return [
        Field(
            name="max_age_days",
            label="Maximum age in days",
            kind="number",
            value=str(rule.max_age_days or "") if rule else "",
            hint="Since the activation of the current version. Empty: no limit.",
        ),
        Field(
            name="max_uses",
            label="Maximum number of uses",
            kind="number",
            value=str(rule.max_uses or "") if rule else "",
            hint="Of the current version. Empty: no limit.",
        ),
    ]


def read_metadata(form: Form, subject: KeyWithVersions) -> Tree:
    """Return the metadata that the form changes."""
    key = subject.key
    given: Tree = {
        "name": form.get("name").strip(),
        "description": form.get("description"),
        "owner": form.get("owner").strip(),
        "tags": read_tags(form, "tags"),
    }
    before: Tree = {
        "name": key.name,
        "description": key.description,
        "owner": key.owner,
        "tags": list(key.tags),
    }
    return {name: value for name, value in given.items() if value != before[name]}


def read_revocation(form: Form, _: KeyWithVersions) -> Tree:
    """Return the fields of a revocation."""
    return {
        "version": form.number_or_none("version"),
        "reason": form.get("reason"),
        "compromised_at": read_utc(form, "compromised_at"),
    }

# SPDX-License-Identifier: MIT
"""What the actions on a key ask for, and what is read from the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from hsm_core.model import KeyState
from hsm_server.ui.fields import Field, Option, at_utc, tags_of
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.subjects import Subject

Tree: TypeAlias = dict[str, Any]
"""Fields of an operation by their names; what is None was not given."""

CONFIRM: Final = "confirm"
"""Field in which what is not to be undone is confirmed, by the key's name or id."""


def ask_staged(_: Subject) -> Sequence[Field]:
    """Ask whether a new version is only staged."""
    return [
        Field(
            name="staged",
            label="Stage it",
            kind="box",
            options=(Option("yes", "Stage the new version"),),
            hint="It then shows its public key and serves nothing until it is "
            "activated; the present version stays current.",
        )
    ]


def ask_source(subject: Subject) -> Sequence[Field]:
    """Ask for the version whose material is taken again."""
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


def ask_reason(_: Subject) -> Sequence[Field]:
    """Ask why."""
    return [_reason()]


def _reason() -> Field:
    return Field(
        name="reason",
        label="Reason",
        hint="Kept with the key and in the audit trail.",
        longest=256,
    )


def ask_revocation(subject: Subject) -> Sequence[Field]:
    """Ask what is revoked, why, and since when it is compromised."""
    open_to_it = [
        version
        for version in reversed(subject.versions)
        if version.state
        not in {KeyState.REVOKED, KeyState.DESTROYED, KeyState.PURGE_SCHEDULED}
    ]
    options = [
        Option("", "All versions"),
        *(Option(str(v.version), f"Version {v.version} only") for v in open_to_it),
    ]
    return [
        Field(name="version", label="What", kind="select", options=tuple(options)),
        _reason(),
        Field(
            name="compromised_at",
            label="Compromised since (UTC)",
            kind="instant",
            hint="As far as is known; empty otherwise.",
        ),
        _confirmation(subject),
    ]


def ask_waiting(subject: Subject) -> Sequence[Field]:
    """Ask how long a destruction waits, unless it waits already."""
    waits = subject.key.state is KeyState.PURGE_SCHEDULED
    days = Field(
        name="waiting_days",
        label="Days to wait",
        kind="number",
        hint="Until then it can be given back. Empty waits as long as this HSM asks "
        "for at least, which may be not at all.",
    )
    return [*([] if waits else [days]), _confirmation(subject)]


def _confirmation(subject: Subject) -> Field:
    what = "its name" if subject.key.name else "the beginning of its id"
    return Field(
        name=CONFIRM,
        label=f"Type {subject.called} to confirm",
        hint=f"This can't be undone, so {what} is asked for.",
        is_required=True,
        longest=64,
    )


def ask_facts(subject: Subject) -> Sequence[Field]:
    """Ask for what is said of the key, with what is said now."""
    key = subject.key
    return [
        Field(
            name="name",
            label="Name",
            value=key.name,
            hint="Lower case letters, digits, dots, hyphens and underscores; unique.",
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
            hint="With blanks or commas between; rules of the policy may go by them.",
        ),
    ]


def ask_rotation(subject: Subject) -> Sequence[Field]:
    """Ask when the key is rotated by itself, with what is so now."""
    rule = subject.key.rotation
    return [
        Field(
            name="max_age_days",
            label="After days",
            kind="number",
            value=str(rule.max_age_days or "") if rule else "",
            hint="Since the current version became active; empty is no limit.",
        ),
        Field(
            name="max_uses",
            label="After uses",
            kind="number",
            value=str(rule.max_uses or "") if rule else "",
            hint="Of the current version's material; empty is no limit.",
        ),
    ]


def read_facts(form: Form, subject: Subject) -> Tree:
    """Return what differs from what is said of the key already."""
    key = subject.key
    given: Tree = {
        "name": form.get("name").strip(),
        "description": form.get("description"),
        "owner": form.get("owner").strip(),
        "tags": tags_of(form, "tags"),
    }
    before: Tree = {
        "name": key.name,
        "description": key.description,
        "owner": key.owner,
        "tags": list(key.tags),
    }
    return {name: value for name, value in given.items() if value != before[name]}


def read_revocation(form: Form, _: Subject) -> Tree:
    """Return what is revoked, as it was given."""
    return {
        "version": form.number_or_none("version"),
        "reason": form.get("reason"),
        "compromised_at": at_utc(form, "compromised_at"),
    }

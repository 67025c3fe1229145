# SPDX-License-Identifier: MIT
"""
What may be done to a key, as data: what it is called, asks for, means and becomes.

Which of it is offered to whom is a courtesy; the core decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hsm_core import wire
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyInfo, KeyState, VersionInfo
from hsm_core.operations import (
    ActivateKey,
    CancelDestroy,
    DestroyKey,
    Operation,
    ResumeKey,
    RevokeKey,
    Rollback,
    RotateKey,
    SetRotation,
    SuspendKey,
    UpdateKey,
)
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.fields import Field, Option, at_utc, number, tags_of
from hsm_server.ui.keys.presenters import title_of

__all__ = [
    "ACTIONS",
    "CONFIRM",
    "Action",
    "Subject",
    "done_text",
    "offered",
    "operation_of",
]

CONFIRM: Final = "confirm"
"""Field in which what is not to be undone is confirmed, by the key's name or id."""

_S: Final = KeyState
_LIVE: Final = frozenset(_S) - {_S.DESTROYED}
_IN_USE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED})
_ADMINISTRATOR: Final = frozenset({"Administrator"})
_KEEPERS: Final = frozenset({"Administrator", "Operator"})

Tree: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """The key that something is to be done to, with its versions, oldest first."""

    key: KeyInfo
    versions: Sequence[VersionInfo]

    @property
    def called(self) -> str:
        """What has to be typed to confirm what can't be undone."""
        return self.key.name or self.key.key_id[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """
    One thing that may be done to a key.

    Attributes:
        name: In its path.
        operation: What it becomes.
        title: What it is called.
        verb: What stands on its button.
        meaning: What it does, and whether that can be undone.
        done: What is said when it is done; with the key's title.
        states: States of the current version in which it is offered.
        roles: Who is offered it.
        fields: What it asks for.
        read: The operation's fields but the key, from what was given; those that are
            None are left out.
        is_dangerous: Whether it can't be undone, and has to be confirmed.
    """

    name: str
    operation: type[Operation[KeyInfo]]
    title: str
    verb: str
    meaning: str
    done: str
    states: frozenset[KeyState]
    roles: frozenset[str]
    fields: Callable[[Subject], Sequence[Field]] = lambda _: ()
    read: Callable[[Form, Subject], Tree] = lambda *_: {}
    is_dangerous: bool = False


def offered(subject: Subject, roles: Sequence[str]) -> Sequence[Action]:
    """Return what somebody with these roles may want to do to a key."""
    state = subject.key.state
    return [
        action
        for action in ACTIONS.values()
        if state in action.states
        and action.roles & set(roles)
        and _makes_sense(action, subject)
    ]


def _makes_sense(action: Action, subject: Subject) -> bool:
    staged = any(version.state is _S.STAGED for version in subject.versions)
    if action.name == "activate":
        return staged
    if action.name == "rotate":
        return not staged
    if action.name == "rollback":
        return bool(_sources(subject))
    if action.name == "cancel-destroy":
        return subject.key.destroy_at is not None
    return True


def operation_of(action: Action, subject: Subject, form: Form) -> Operation[KeyInfo]:
    """
    Return the operation that a form asks for.

    Raises:
        InvalidInputError: A field breaks a rule, or what can't be undone was not
            confirmed.
    """
    if action.is_dangerous and form.get(CONFIRM).strip() != subject.called:
        raise InvalidInputError(
            f"Type {subject.called} here; nothing was done.", field=CONFIRM
        )
    given = action.read(form, subject)
    tree = {name: value for name, value in given.items() if value is not None}
    return wire.convert({**tree, "key_id": subject.key.key_id}, action.operation)


def _sources(subject: Subject) -> Sequence[VersionInfo]:
    """Return the versions that can be rolled back to, newest first."""
    return [
        version
        for version in reversed(subject.versions)
        if version.version != subject.key.version and version.state is _S.RETIRED
    ]


def _ask_staged(_: Subject) -> Sequence[Field]:
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


def _ask_source(subject: Subject) -> Sequence[Field]:
    options = [
        Option(str(version.version), f"Version {version.version}")
        for version in _sources(subject)
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


def _ask_reason(_: Subject) -> Sequence[Field]:
    return [_reason()]


def _reason() -> Field:
    return Field(
        name="reason",
        label="Reason",
        hint="Kept with the key and in the audit trail.",
        longest=256,
    )


def _ask_revocation(subject: Subject) -> Sequence[Field]:
    open_to_it = [
        version
        for version in reversed(subject.versions)
        if version.state not in {_S.REVOKED, _S.DESTROYED, _S.PURGE_SCHEDULED}
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


def _ask_waiting(subject: Subject) -> Sequence[Field]:
    waits = subject.key.state is _S.PURGE_SCHEDULED
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


def _ask_facts(subject: Subject) -> Sequence[Field]:
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


def _ask_rotation(subject: Subject) -> Sequence[Field]:
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


def _read_facts(form: Form, subject: Subject) -> Tree:
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


def _read_revocation(form: Form, _: Subject) -> Tree:
    return {
        "version": number(form, "version"),
        "reason": form.get("reason"),
        "compromised_at": at_utc(form, "compromised_at"),
    }


_ROWS: Final = (
    Action(
        name="rotate",
        operation=RotateKey,
        title="Rotate",
        verb="Rotate",
        meaning="Makes a new version from fresh material. What the old one has "
        "protected can still be decrypted and verified.",
        done="{} was rotated.",
        states=_IN_USE,
        roles=_KEEPERS,
        fields=_ask_staged,
        read=lambda form, _: {"staged": "staged" in form},
    ),
    Action(
        name="activate",
        operation=ActivateKey,
        title="Activate",
        verb="Activate",
        meaning="Makes the staged version the current one; an active one before it "
        "is retired.",
        done="{} was activated.",
        states=_IN_USE,
        roles=_KEEPERS,
    ),
    Action(
        name="rollback",
        operation=Rollback,
        title="Roll back",
        verb="Roll back",
        meaning="Makes a new version from the material of an older one.",
        done="{} was rolled back.",
        states=_IN_USE,
        roles=_KEEPERS,
        fields=_ask_source,
        read=lambda form, _: {"version": number(form, "version")},
    ),
    Action(
        name="suspend",
        operation=SuspendKey,
        title="Suspend",
        verb="Suspend",
        meaning="Lets the current version serve nothing but its public key, until it "
        "is resumed.",
        done="{} was suspended.",
        states=frozenset({_S.ACTIVE}),
        roles=_KEEPERS,
        fields=_ask_reason,
        read=lambda form, _: {"reason": form.get("reason")},
    ),
    Action(
        name="resume",
        operation=ResumeKey,
        title="Resume",
        verb="Resume",
        meaning="Lets the suspended version be active again.",
        done="{} is active again.",
        states=frozenset({_S.SUSPENDED}),
        roles=_KEEPERS,
    ),
    Action(
        name="edit",
        operation=UpdateKey,
        title="Edit",
        verb="Save",
        meaning="Changes what is said of the key. Rules of the policy may go by it.",
        done="{} was changed.",
        states=_LIVE,
        roles=_ADMINISTRATOR,
        fields=_ask_facts,
        read=_read_facts,
    ),
    Action(
        name="rotation",
        operation=SetRotation,
        title="Automatic rotation",
        verb="Save",
        meaning="Says when the HSM rotates the key by itself: as soon as one of the "
        "two is reached. With both empty, it never does.",
        done="The rotation of {} was changed.",
        states=_LIVE - {_S.PURGE_SCHEDULED},
        roles=_ADMINISTRATOR,
        fields=_ask_rotation,
        read=lambda form, _: {
            name: number(form, name) for name in ("max_age_days", "max_uses")
        },
    ),
    Action(
        name="cancel-destroy",
        operation=CancelDestroy,
        title="Cancel the destruction",
        verb="Keep the key",
        meaning="Gives the key back, in the state that it was in.",
        done="{} is kept.",
        states=frozenset({_S.PURGE_SCHEDULED}),
        roles=_ADMINISTRATOR,
    ),
    Action(
        name="revoke",
        operation=RevokeKey,
        title="Revoke",
        verb="Revoke for ever",
        meaning="Marks material as compromised, for ever. It serves nothing any more "
        "but its public key.",
        done="{} was revoked.",
        states=_IN_USE,
        roles=_ADMINISTRATOR,
        fields=_ask_revocation,
        read=_read_revocation,
        is_dangerous=True,
    ),
    Action(
        name="destroy",
        operation=DestroyKey,
        title="Destroy",
        verb="Destroy",
        meaning="Destroys all material of the key, at once or after a waiting time. "
        "What only it can decrypt is lost with it.",
        done="{} is destroyed, or will be when its waiting time is over.",
        states=_LIVE,
        roles=_ADMINISTRATOR,
        fields=_ask_waiting,
        read=lambda form, _: {"waiting_days": number(form, "waiting_days")},
        is_dangerous=True,
    ),
)

ACTIONS: Final = {action.name: action for action in _ROWS}
"""Every action by its name, in the order in which they are shown."""


def done_text(action: Action, key: KeyInfo) -> str:
    """Return what is said when an action is done."""
    return action.done.format(title_of(key))

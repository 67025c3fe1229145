# SPDX-License-Identifier: MIT
"""
What may be done to a key, as data: what it is called, asks for, means and becomes.

Which of it is offered to whom is a courtesy; the core decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hsm_core import wire
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyInfo, KeyState
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
from hsm_server.ui.fields import Field
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.action_fields import (
    CONFIRM,
    Tree,
    ask_facts,
    ask_reason,
    ask_revocation,
    ask_rotation,
    ask_source,
    ask_staged,
    ask_waiting,
    read_facts,
    read_revocation,
)
from hsm_server.ui.keys.presenters import title_of
from hsm_server.ui.keys.subjects import Subject

_S: Final = KeyState
_LIVE: Final = frozenset(_S) - {_S.DESTROYED}
_IN_USE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED})
_ADMINISTRATOR: Final = frozenset({"Administrator"})
_KEEPERS: Final = frozenset({"Administrator", "Operator"})


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
        makes_sense: Whether it is offered for this key, which is in such a state.
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
    makes_sense: Callable[[Subject], bool] = lambda _: True
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
        and action.makes_sense(subject)
    ]


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
        makes_sense=lambda subject: not subject.has_staged,
        fields=ask_staged,
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
        makes_sense=lambda subject: subject.has_staged,
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
        makes_sense=lambda subject: bool(subject.sources),
        fields=ask_source,
        read=lambda form, _: {"version": form.number_or_none("version")},
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
        fields=ask_reason,
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
        fields=ask_facts,
        read=read_facts,
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
        fields=ask_rotation,
        read=lambda form, _: {
            name: form.number_or_none(name) for name in ("max_age_days", "max_uses")
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
        makes_sense=lambda subject: subject.key.destroy_at is not None,
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
        fields=ask_revocation,
        read=read_revocation,
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
        fields=ask_waiting,
        read=lambda form, _: {"waiting_days": form.number_or_none("waiting_days")},
        is_dangerous=True,
    ),
)

ACTIONS: Final = {action.name: action for action in _ROWS}
"""Every action by its name, in the order in which they are shown."""


def done_text(action: Action, key: KeyInfo) -> str:
    """Return what is said when an action is done."""
    return action.done.format(title_of(key))

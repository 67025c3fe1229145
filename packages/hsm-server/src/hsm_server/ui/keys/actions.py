# SPDX-License-Identifier: MIT
"""
Actions on a key: title, form and operation of each.

Pages offer only the actions that make sense; the core authorizes each again.
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
    metadata_fields,
    read_metadata,
    read_revocation,
    reason_fields,
    revocation_fields,
    rotation_fields,
    source_fields,
    staged_fields,
    waiting_period_fields,
)
from hsm_server.ui.keys.presenters import title_of
from hsm_server.ui.keys.subjects import KeyWithVersions

_S: Final = KeyState
_LIVE: Final = frozenset(_S) - {_S.DESTROYED}
_IN_USE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED})
_ADMINISTRATOR: Final = frozenset({"Administrator"})
_OPERATORS: Final = frozenset({"Administrator", "Operator"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """
    An action on a key.

    Attributes:
        name: Name in the path.
        operation: Operation that it executes.
        title: Title of its page.
        verb: Label of its button.
        meaning: Its effect, and whether it is reversible.
        done: Message on success, formatted with the key's title.
        states: States of the current version in which it is offered.
        is_applicable: Whether it is offered for a key in one of these states.
        roles: Roles that it is offered to.
        fields: Fields of its form.
        read: Reads the operation's fields, except the key, from the form; None is
            left out.
        is_dangerous: Whether it is irreversible and must be confirmed.
    """

    name: str
    operation: type[Operation[KeyInfo]]
    title: str
    verb: str
    meaning: str
    done: str
    states: frozenset[KeyState]
    roles: frozenset[str]
    is_applicable: Callable[[KeyWithVersions], bool] = lambda _: True
    fields: Callable[[KeyWithVersions], Sequence[Field]] = lambda _: ()
    read: Callable[[Form, KeyWithVersions], Tree] = lambda *_: {}
    is_dangerous: bool = False


def offered_actions(subject: KeyWithVersions, roles: Sequence[str]) -> Sequence[Action]:
    """Return the actions to offer to a caller with these roles."""
    state = subject.key.state
    return [
        action
        for action in ACTIONS.values()
        if state in action.states
        and action.roles & set(roles)
        and action.is_applicable(subject)
    ]


def build_operation(
    action: Action, subject: KeyWithVersions, form: Form
) -> Operation[KeyInfo]:
    """
    Return the operation of a submitted form.

    Raises:
        InvalidInputError: A field is invalid, or the confirmation is missing.
    """
    if action.is_dangerous and form.get(CONFIRM).strip() != subject.confirmation_text:
        raise InvalidInputError(
            f"Type {subject.confirmation_text} to confirm. No change was made.",
            field=CONFIRM,
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
        meaning="Create a new key version and make it current. Older versions can "
        "still decrypt and verify.",
        done="Rotated {}.",
        states=_IN_USE,
        roles=_OPERATORS,
        is_applicable=lambda subject: not subject.has_staged,
        fields=staged_fields,
        read=lambda form, _: {"staged": "staged" in form},
    ),
    Action(
        name="activate",
        operation=ActivateKey,
        title="Activate",
        verb="Activate",
        meaning="Make the staged version current. The version that was active is "
        "retired.",
        done="Activated {}.",
        states=_IN_USE,
        roles=_OPERATORS,
        is_applicable=lambda subject: subject.has_staged,
    ),
    Action(
        name="rollback",
        operation=Rollback,
        title="Roll back",
        verb="Roll back",
        meaning="Create a new version from the key material of an older one.",
        done="Rolled back {}.",
        states=_IN_USE,
        roles=_OPERATORS,
        is_applicable=lambda subject: bool(subject.sources),
        fields=source_fields,
        read=lambda form, _: {"version": form.number_or_none("version")},
    ),
    Action(
        name="suspend",
        operation=SuspendKey,
        title="Suspend",
        verb="Suspend",
        meaning="Suspend the current version: only its public key stays available "
        "until you resume it.",
        done="Suspended {}.",
        states=frozenset({_S.ACTIVE}),
        roles=_OPERATORS,
        fields=reason_fields,
        read=lambda form, _: {"reason": form.get("reason")},
    ),
    Action(
        name="resume",
        operation=ResumeKey,
        title="Resume",
        verb="Resume",
        meaning="Make the suspended version active again.",
        done="Resumed {}.",
        states=frozenset({_S.SUSPENDED}),
        roles=_OPERATORS,
    ),
    Action(
        name="edit",
        operation=UpdateKey,
        title="Edit",
        verb="Save",
        meaning="Edit the key's name, description, owner or tags. Policy rules may "
        "depend on them.",
        done="Updated {}.",
        states=_LIVE,
        roles=_ADMINISTRATOR,
        fields=metadata_fields,
        read=read_metadata,
    ),
    Action(
        name="rotation",
        operation=SetRotation,
        title="Automatic rotation",
        verb="Save",
        meaning="Configure automatic rotation. The HSM rotates the key when it "
        "reaches either limit. Leave both empty to turn it off.",
        done="Updated the automatic rotation of {}.",
        states=_LIVE - {_S.PURGE_SCHEDULED},
        roles=_ADMINISTRATOR,
        fields=rotation_fields,
        read=lambda form, _: {
            name: form.number_or_none(name) for name in ("max_age_days", "max_uses")
        },
    ),
    Action(
        name="cancel-destroy",
        operation=CancelDestroy,
        title="Cancel destruction",
        verb="Cancel destruction",
        meaning="Cancel the scheduled destruction and restore the key's state.",
        done="Cancelled the destruction of {}.",
        states=frozenset({_S.PURGE_SCHEDULED}),
        roles=_ADMINISTRATOR,
        is_applicable=lambda subject: subject.key.destroy_at is not None,
    ),
    Action(
        name="revoke",
        operation=RevokeKey,
        title="Revoke",
        verb="Revoke",
        meaning="Revoke key versions as compromised. Only their public keys stay "
        "available. Irreversible.",
        done="Revoked {}.",
        states=_IN_USE,
        roles=_ADMINISTRATOR,
        fields=revocation_fields,
        read=read_revocation,
        is_dangerous=True,
    ),
    Action(
        name="destroy",
        operation=DestroyKey,
        title="Destroy",
        verb="Destroy",
        meaning="Destroy all key material, now or after a waiting period. Data "
        "encrypted with this key is lost. Irreversible.",
        done="Destroyed {}, or scheduled its destruction.",
        states=_LIVE,
        roles=_ADMINISTRATOR,
        fields=waiting_period_fields,
        read=lambda form, _: {"waiting_days": form.number_or_none("waiting_days")},
        is_dangerous=True,
    ),
)

ACTIONS: Final = {action.name: action for action in _ROWS}
"""Actions by name, in display order."""


def success_message(action: Action, key: KeyInfo) -> str:
    """Return the message on success."""
    return action.done.format(title_of(key))

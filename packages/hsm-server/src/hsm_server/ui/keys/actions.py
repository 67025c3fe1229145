# SPDX-License-Identifier: MIT
"""Actions on a key: rotate, suspend, edit, revoke, destroy and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aiohttp import web

from hsm_core.errors import KeyNotFoundError
from hsm_core.model import KeyState
from hsm_core.operations import (
    ActivateKey,
    CancelDestroy,
    DestroyKey,
    ResumeKey,
    RevokeKey,
    Rollback,
    RotateKey,
    SetRotation,
    SuspendKey,
    UpdateKey,
)
from hsm_server.ui.actions import (
    Action,
    KeyWithVersions,
    RejectedFormError,
    Tree,
    fields_of,
    submit,
)
from hsm_server.ui.forms import Field, Form, Option, read_tags, read_utc
from hsm_server.ui.keys.policy import explain_for_caller
from hsm_server.ui.keys.presenters import (
    KEY,
    find_key_with_versions,
    key_values,
    path_of,
)
from hsm_server.ui.view import Page, View
from hsm_server.vault.access import Who

_S: Final = KeyState
_LIVE: Final = frozenset(_S) - {_S.DESTROYED}
_IN_USE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED})
_ADMINISTRATOR: Final = frozenset({"Administrator"})
_OPERATORS: Final = frozenset({"Administrator", "Operator"})


def _staged_fields(_: KeyWithVersions) -> Sequence[Field]:
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


def _source_fields(subject: KeyWithVersions) -> Sequence[Field]:
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


def _reason_fields(_: KeyWithVersions) -> Sequence[Field]:
    """Return the reason field."""
    return [_reason()]


def _reason() -> Field:
    return Field(
        name="reason",
        label="Reason",
        hint="Stored with the key and in the audit log.",
        longest=256,
    )


def _revocation_fields(subject: KeyWithVersions) -> Sequence[Field]:
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
    ]


def _waiting_period_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the waiting period, if none is running."""
    waits = subject.key.state is KeyState.PURGE_SCHEDULED
    days = Field(
        name="waiting_days",
        label="Waiting period in days",
        kind="number",
        hint="Until it ends, you can cancel the destruction. Default: the minimum "
        "that this HSM requires, which may be 0.",
    )
    return [] if waits else [days]


def _metadata_fields(subject: KeyWithVersions) -> Sequence[Field]:
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


def _rotation_fields(subject: KeyWithVersions) -> Sequence[Field]:
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


def _read_metadata(form: Form, subject: KeyWithVersions) -> Tree:
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


def _read_revocation(form: Form, _: KeyWithVersions) -> Tree:
    """Return the fields of a revocation."""
    return {
        "version": form.number_or_none("version"),
        "reason": form.get("reason"),
        "compromised_at": read_utc(form, "compromised_at"),
    }


_action: Final[Callable[..., Action[KeyWithVersions]]] = partial(
    Action, target=lambda subject: {"key_id": subject.key.key_id}
)


def _in(
    states: frozenset[KeyState],
    roles: frozenset[str],
    also: Callable[[KeyWithVersions], bool] = lambda _: True,
) -> Callable[[KeyWithVersions, Who], bool]:
    """Return the condition of an action: state of the current version, role, other."""
    return lambda subject, who: (
        subject.key.state in states and bool(roles & set(who.roles)) and also(subject)
    )


_ROWS: Final[tuple[Action[KeyWithVersions], ...]] = (
    _action(
        name="rotate",
        operation=RotateKey,
        title="Rotate",
        verb="Rotate",
        meaning="Create a new key version and make it current. Older versions can "
        "still decrypt and verify.",
        done="Key rotated.",
        is_offered=_in(_IN_USE, _OPERATORS, lambda subject: not subject.has_staged),
        fields=_staged_fields,
        read=lambda form, _: {"staged": "staged" in form},
    ),
    _action(
        name="activate",
        operation=ActivateKey,
        title="Activate",
        verb="Activate",
        meaning="Make the staged version current. The version that was active is "
        "retired.",
        done="Version activated.",
        is_offered=_in(_IN_USE, _OPERATORS, lambda subject: subject.has_staged),
    ),
    _action(
        name="rollback",
        operation=Rollback,
        title="Roll back",
        verb="Roll back",
        meaning="Create a new version from the key material of an older one.",
        done="Key rolled back.",
        is_offered=_in(_IN_USE, _OPERATORS, lambda subject: bool(subject.sources)),
        fields=_source_fields,
        read=lambda form, _: {"version": form.number_or_none("version")},
    ),
    _action(
        name="suspend",
        operation=SuspendKey,
        title="Suspend",
        verb="Suspend",
        meaning="Suspend the current version: only its public key stays available "
        "until you resume it.",
        done="Key suspended.",
        is_offered=_in(frozenset({_S.ACTIVE}), _OPERATORS),
        fields=_reason_fields,
        read=lambda form, _: {"reason": form.get("reason")},
    ),
    _action(
        name="resume",
        operation=ResumeKey,
        title="Resume",
        verb="Resume",
        meaning="Make the suspended version active again.",
        done="Key resumed.",
        is_offered=_in(frozenset({_S.SUSPENDED}), _OPERATORS),
    ),
    _action(
        name="edit",
        operation=UpdateKey,
        title="Edit",
        verb="Save",
        meaning="Edit the key's name, description, owner or tags. Policy rules may "
        "depend on them.",
        done="Key updated.",
        is_offered=_in(_LIVE, _ADMINISTRATOR),
        fields=_metadata_fields,
        read=_read_metadata,
    ),
    _action(
        name="rotation",
        operation=SetRotation,
        title="Automatic rotation",
        verb="Save",
        meaning="Configure automatic rotation. The HSM rotates the key when it "
        "reaches either limit. Leave both empty to turn it off.",
        done="Automatic rotation updated.",
        is_offered=_in(_LIVE - {_S.PURGE_SCHEDULED}, _ADMINISTRATOR),
        fields=_rotation_fields,
        read=lambda form, _: {
            name: form.number_or_none(name) for name in ("max_age_days", "max_uses")
        },
    ),
    _action(
        name="cancel-destroy",
        operation=CancelDestroy,
        title="Cancel destruction",
        verb="Cancel destruction",
        meaning="Cancel the scheduled destruction and restore the key's state.",
        done="Destruction cancelled.",
        is_offered=_in(
            frozenset({_S.PURGE_SCHEDULED}),
            _ADMINISTRATOR,
            lambda subject: subject.key.destroy_at is not None,
        ),
    ),
    _action(
        name="revoke",
        operation=RevokeKey,
        title="Revoke",
        verb="Revoke",
        meaning="Revoke key versions as compromised. Only their public keys stay "
        "available. Irreversible.",
        done="Key versions revoked.",
        is_offered=_in(_IN_USE, _ADMINISTRATOR),
        fields=_revocation_fields,
        read=_read_revocation,
        confirmation=lambda subject: subject.confirmation_text,
        tone="danger",
    ),
    _action(
        name="destroy",
        operation=DestroyKey,
        title="Destroy",
        verb="Destroy",
        meaning="Destroy all key material, now or after a waiting period. Data "
        "encrypted with this key is lost. Irreversible.",
        done="Key destroyed, or its destruction scheduled.",
        is_offered=_in(_LIVE, _ADMINISTRATOR),
        fields=_waiting_period_fields,
        read=lambda form, _: {"waiting_days": form.number_or_none("waiting_days")},
        confirmation=lambda subject: subject.confirmation_text,
        tone="danger",
    ),
)

ACTIONS: Final = {action.name: action for action in _ROWS}
"""Actions by name, in display order."""

_PATH: Final = f"{KEY}/{{action:{'|'.join(ACTIONS)}}}"


def offered_actions(
    subject: KeyWithVersions, who: Who
) -> Sequence[Action[KeyWithVersions]]:
    """Return the actions to offer to a user."""
    return [action for action in ACTIONS.values() if action.is_offered(subject, who)]


async def _show(view: View) -> web.StreamResponse:
    """Show an action's form with its effect and the policy decision."""
    return await _form(view, _action_of(view), await _subject(view))


async def _execute(view: View) -> web.StreamResponse:
    """Execute a submitted form, unless the key has changed since."""
    form = await view.form()
    action, subject = _action_of(view), await _subject(view)
    try:
        await submit(view, action, subject, form)
    except RejectedFormError as rejected:
        return await _form(view, action, subject, rejected)
    return view.see_other(path_of(subject.key.key_id), action.done)


def _action_of(view: View) -> Action[KeyWithVersions]:
    return ACTIONS[view.request.match_info["action"]]


async def _subject(view: View) -> KeyWithVersions:
    subject = await find_key_with_versions(view)
    if subject.key.state is None:
        raise KeyNotFoundError(
            "Integrity check failed: the stored data of this key was altered."
        )
    return subject


async def _form(
    view: View,
    action: Action[KeyWithVersions],
    subject: KeyWithVersions,
    rejected: RejectedFormError | None = None,
) -> web.Response:
    return view.render_form(
        "keys/action.html",
        rejected.error if rejected else None,
        action=action,
        **key_values(subject.key),
        fields=fields_of(action, subject, rejected),
        explained=await explain_for_caller(
            view, action.operation.__name__, subject.key.key_id
        ),
        back=path_of(subject.key.key_id),
    )


PAGES: Final = (
    Page("GET", _PATH, _show, "keys.action"),
    Page("POST", _PATH, _execute, "keys.do"),
)

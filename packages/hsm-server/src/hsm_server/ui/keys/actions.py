# SPDX-License-Identifier: MIT
"""Actions on a key: rotate, suspend, edit, revoke, destroy and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aiohttp import web

from hsm_core import operations as ops
from hsm_core.errors import KeyNotFoundError
from hsm_core.model import KeyInfo, KeyState
from hsm_server.ui.actions import (
    Action,
    FormPages,
    KeyWithVersions,
    RejectedFormError,
    fields_of,
)
from hsm_server.ui.forms import Field, Form, Option
from hsm_server.ui.keys.presenters import (
    KEY,
    explain,
    find_key_with_versions,
    key_values,
    path_of,
)
from hsm_server.ui.view import Page, View
from hsm_server.vault.access import Who

_S: Final = KeyState
_LIVE: Final = frozenset(_S) - {_S.DESTROYED}
_IN_USE: Final = frozenset({_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.REVOKED})
_REVOCABLE: Final = _LIVE - {_S.REVOKED, _S.PURGE_SCHEDULED}
_ADMINISTRATOR: Final = frozenset({"Administrator"})
_OPERATORS: Final = frozenset({"Administrator", "Operator"})

_STAGED: Final = Field(
    name="staged",
    label="Staging",
    kind="box",
    options=(Option("yes", "Stage the new version"),),
    hint="Until you activate it, only its public key is available and the "
    "current version stays current.",
)
_REASON: Final = Field(
    name="reason",
    label="Reason",
    hint="Stored with the key and in the audit log.",
    longest=256,
)
_WAITING_DAYS: Final = Field(
    name="waiting_days",
    label="Waiting period in days",
    kind="number",
    hint="Until it ends, you can cancel the destruction. Default: the minimum "
    "that this HSM requires, which may be 0.",
)


def metadata_fields(key: KeyInfo | None = None) -> Sequence[Field]:
    """Return the fields of a key's metadata, with the current values, if any."""
    return [
        Field(
            name="name",
            label="Name",
            value=key.name if key else "",
            hint="Optional. Lowercase letters, digits, dots, hyphens and underscores. "
            "Unique.",
            longest=64,
        ),
        Field(
            name="description",
            label="Description",
            kind="area",
            value=key.description if key else "",
            longest=1024,
        ),
        Field(
            name="owner",
            label="Owner",
            value=key.owner if key else "",
            hint="" if key else "Default: you.",
            is_required=key is not None,
            longest=128,
        ),
        Field(
            name="tags",
            label="Tags",
            kind="tags",
            value=" ".join(key.tags) if key else "",
            hint="Separated by spaces or commas. Policy rules may depend on them.",
        ),
    ]


def _rotation_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the fields of automatic rotation, with their current values."""
    rows = (
        ("max_age_days", "Maximum age in days", "Since the activation of the"),
        ("max_uses", "Maximum number of uses", "Of the"),
    )
    return [
        Field(
            name=name,
            label=label,
            kind="number",
            value=str(getattr(subject.key.rotation, name, None) or ""),
            hint=f"{since} current version. Empty: no limit.",
        )
        for name, label, since in rows
    ]


def _source_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the selection of the version to roll back to."""
    options = tuple(
        Option(str(version.version), f"Version {version.version}")
        for version in subject.sources
    )
    return [
        Field(
            name="version",
            label="Roll back to",
            kind="version",
            options=options,
            is_required=True,
        )
    ]


def _revocation_fields(subject: KeyWithVersions) -> Sequence[Field]:
    """Return the fields of a revocation: version, reason, time of compromise."""
    options = (
        Option("", "All versions"),
        *(
            Option(str(version.version), f"Version {version.version} only")
            for version in reversed(subject.versions)
            if version.state in _REVOCABLE
        ),
    )
    return [
        Field(name="version", label="Versions", kind="version", options=options),
        _REASON,
        Field(
            name="compromised_at",
            label="Compromised since (UTC)",
            kind="instant",
            hint="Leave empty if unknown.",
        ),
    ]


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


ACTIONS: Final[Sequence[Action[KeyWithVersions]]] = (
    _action(
        name="rotate",
        operation=ops.RotateKey,
        verb="Rotate",
        meaning="Create a new key version and make it current. Older versions can "
        "still decrypt and verify.",
        done="Key rotated.",
        is_offered=_in(_IN_USE, _OPERATORS, lambda subject: not subject.has_staged),
        fields=lambda _: [_STAGED],
    ),
    _action(
        name="activate",
        operation=ops.ActivateKey,
        verb="Activate",
        meaning="Make the staged version current. The version that was active is "
        "retired.",
        done="Version activated.",
        is_offered=_in(_IN_USE, _OPERATORS, lambda subject: subject.has_staged),
    ),
    _action(
        name="rollback",
        operation=ops.Rollback,
        verb="Roll back",
        meaning="Create a new version from the key material of an older one.",
        done="Key rolled back.",
        is_offered=_in(_IN_USE, _OPERATORS, lambda subject: bool(subject.sources)),
        fields=_source_fields,
    ),
    _action(
        name="suspend",
        operation=ops.SuspendKey,
        verb="Suspend",
        meaning="Suspend the current version: only its public key stays available "
        "until you resume it.",
        done="Key suspended.",
        is_offered=_in(frozenset({_S.ACTIVE}), _OPERATORS),
        fields=lambda _: [_REASON],
    ),
    _action(
        name="resume",
        operation=ops.ResumeKey,
        verb="Resume",
        meaning="Make the suspended version active again.",
        done="Key resumed.",
        is_offered=_in(frozenset({_S.SUSPENDED}), _OPERATORS),
    ),
    _action(
        name="edit",
        operation=ops.UpdateKey,
        title="Edit",
        verb="Save",
        meaning="Edit the key's name, description, owner or tags. Policy rules may "
        "depend on them.",
        done="Key updated.",
        is_offered=_in(_LIVE, _ADMINISTRATOR),
        fields=lambda subject: metadata_fields(subject.key),
        is_partial=True,
    ),
    _action(
        name="rotation",
        operation=ops.SetRotation,
        title="Automatic rotation",
        verb="Save",
        meaning="Configure automatic rotation. The HSM rotates the key when it "
        "reaches either limit. Leave both empty to turn it off.",
        done="Automatic rotation updated.",
        is_offered=_in(_LIVE - {_S.PURGE_SCHEDULED}, _ADMINISTRATOR),
        fields=_rotation_fields,
    ),
    _action(
        name="cancel-destroy",
        operation=ops.CancelDestroy,
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
        operation=ops.RevokeKey,
        verb="Revoke",
        meaning="Revoke key versions as compromised. Only their public keys stay "
        "available. Irreversible.",
        done="Key versions revoked.",
        is_offered=_in(_IN_USE, _ADMINISTRATOR),
        fields=_revocation_fields,
        confirmation=lambda subject: subject.confirmation_text,
        tone="danger",
    ),
    _action(
        name="destroy",
        operation=ops.DestroyKey,
        verb="Destroy",
        meaning="Destroy all key material, now or after a waiting period. Data "
        "encrypted with this key is lost. Irreversible.",
        done="Key destroyed, or its destruction scheduled.",
        is_offered=_in(_LIVE, _ADMINISTRATOR),
        fields=lambda subject: (
            [] if subject.key.state is _S.PURGE_SCHEDULED else [_WAITING_DAYS]
        ),
        confirmation=lambda subject: subject.confirmation_text,
        tone="danger",
    ),
)
"""Actions in display order."""


def offered_actions(
    subject: KeyWithVersions, who: Who
) -> Sequence[Action[KeyWithVersions]]:
    """Return the actions to offer to a user."""
    return [action for action in ACTIONS if action.is_offered(subject, who)]


async def _subject(view: View, _: Form | None = None) -> KeyWithVersions:
    subject = await find_key_with_versions(view)
    if subject.key.state is None:
        raise KeyNotFoundError(
            "Integrity check failed: the stored data of this key was altered."
        )
    return subject


async def _show_form(
    view: View,
    action: Action[KeyWithVersions],
    subject: KeyWithVersions,
    rejected: RejectedFormError | None = None,
) -> web.Response:
    """Show an action's form with its effect and the policy decision."""
    return view.render_form(
        "keys/action.html",
        rejected.error if rejected else None,
        action=action,
        **key_values(subject.key),
        fields=fields_of(action, subject, rejected),
        explained=await explain(
            view, action.operation.__name__, key_id=subject.key.key_id
        ),
        back=path_of(subject.key.key_id),
    )


def _page(action: Action[KeyWithVersions]) -> Page:
    async def show(view: View) -> web.Response:
        return await _show_form(view, action, await _subject(view))

    return Page("GET", f"{KEY}/{action.name}", show, "keys.action")


_FORMS: Final = FormPages(
    KEY,
    "keys.do",
    find=_subject,
    show=lambda view, subject, rejected: _show_form(
        view, rejected.action, subject, rejected
    ),
    target=lambda subject, _: path_of(subject.key.key_id),
)
PAGES: Final = (*map(_page, ACTIONS), *map(_FORMS.page, ACTIONS))

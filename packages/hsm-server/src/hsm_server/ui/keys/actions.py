# SPDX-License-Identifier: MIT
"""
Actions on keys: create, rotate, revoke, destroy and others.

Pages offer only the actions that make sense; the core authorizes each again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiohttp import web

from hsm_core import wire
from hsm_core.algorithms import parse_algorithm
from hsm_core.errors import (
    HSMError,
    InvalidInputError,
    KeyNotFoundError,
    NameTakenError,
    PreconditionFailedError,
)
from hsm_core.model import KeyInfo, KeyState
from hsm_core.operations import (
    ActivateKey,
    AlgorithmInfo,
    CancelDestroy,
    CreateKey,
    DestroyKey,
    ListAlgorithms,
    Operation,
    ResumeKey,
    RevokeKey,
    Rollback,
    RotateKey,
    SetRotation,
    SuspendKey,
    UpdateKey,
)
from hsm_server.http.problems import status_of
from hsm_server.ui.forms import (
    Field,
    Form,
    Option,
    fill_fields,
    mark_error,
    read_tags,
    read_utc,
)
from hsm_server.ui.keys.algorithms import CATEGORIES, Choice, choice_of, purposes
from hsm_server.ui.keys.policy import explain_for_caller
from hsm_server.ui.keys.presenters import (
    KEY,
    KeyWithVersions,
    find_key_with_versions,
    key_facts,
    path_of,
    title_of,
)
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

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


_ACTION_PATH: Final = f"{KEY}/{{action:{'|'.join(ACTIONS)}}}"


async def show_action(view: View) -> web.StreamResponse:
    """Show an action's form with its effect and the policy decision."""
    action, subject = ACTIONS[view.request.match_info["action"]], await _subject(view)
    return await _form(view, action, subject, action.fields(subject))


async def execute_action(view: View) -> web.StreamResponse:
    """Execute a submitted form, unless the key has changed since."""
    form = await view.form()
    action, subject = ACTIONS[view.request.match_info["action"]], await _subject(view)
    try:
        key = await view.execute(
            build_operation(action, subject, form),
            idempotency_key=form.operation_id,
            expected_generation=form.number_or_none("generation") or 0,
        )
    except PreconditionFailedError as error:
        return render_stale(view, error, path_of(subject.key.key_id))
    except (InvalidInputError, NameTakenError) as error:
        fields = mark_error(fill_fields(action.fields(subject), form), error)
        return await _form(view, action, subject, fields, error)
    return view.see_other(path_of(key.key_id), success_message(action, key))


def render_stale(view: View, error: HSMError, back: str) -> web.Response:
    """Return the page for a form that is older than the key's last change."""
    view.exchange.code = error.code
    return view.render("keys/stale.html", status=status_of(type(error)), back=back)


async def _subject(view: View) -> KeyWithVersions:
    subject = await find_key_with_versions(view)
    if subject.key.state is None:
        raise KeyNotFoundError(
            "Integrity check failed: the stored data of this key was altered."
        )
    return subject


async def _form(
    view: View,
    action: Action,
    subject: KeyWithVersions,
    fields: Sequence[Field],
    error: HSMError | None = None,
) -> web.Response:
    return view.render_form(
        "keys/action.html",
        error,
        action=action,
        key=key_facts(subject.key),
        fields=fields,
        explained=await explain_for_caller(
            view, action.operation.__name__, subject.key.key_id
        ),
        back=path_of(subject.key.key_id),
    )


ACTION_PAGES: Final = (
    Page("GET", _ACTION_PATH, show_action, "keys.action"),
    Page("POST", _ACTION_PATH, execute_action, "keys.do"),
)


_CREATION_PATH: Final = f"{HOME}/keys/new"


def creation_fields(choice: Choice) -> Sequence[Field]:
    """Return the fields of a new key of an algorithm."""
    usages = tuple(
        Option(usage, usage, usage in choice.default_usages) for usage in choice.usages
    )
    return [
        Field(
            name="name",
            label="Name",
            hint="Optional. Lowercase letters, digits, dots, hyphens and underscores. "
            "Unique.",
            longest=64,
        ),
        Field(name="description", label="Description", kind="area", longest=1024),
        Field(
            name="tags",
            label="Tags",
            hint="Separated by spaces or commas. Policy rules may depend on them.",
        ),
        Field(
            name="owner",
            label="Owner",
            hint="Default: you.",
            longest=128,
        ),
        Field(
            name="usages",
            label="Usages",
            kind="boxes",
            options=usages,
            hint="Can't be changed later.",
        ),
        Field(
            name="exportable",
            label="Export",
            kind="box",
            options=(Option("yes", "Allow export, wrapped by another key"),),
            hint="Can't be changed later.",
        ),
        Field(
            name="staged",
            label="Staging",
            kind="box",
            options=(Option("yes", "Stage the first version"),),
            hint="Until you activate it, only its public key is available.",
        ),
    ]


def build_creation(form: Form) -> CreateKey:
    """
    Return the operation of a submitted form.

    Raises:
        InvalidInputError: A field is invalid.
    """
    usages = list(form.all("usages"))
    if not usages:
        # An empty list would select the default usages.
        raise InvalidInputError("Select at least one usage.", field="usages")
    tree: dict[str, Any] = {
        "algorithm": form["algorithm"],
        "name": form.get("name").strip(),
        "description": form.get("description"),
        "owner": form.get("owner").strip(),
        "tags": read_tags(form, "tags"),
        "usages": usages,
        "exportable": "exportable" in form,
        "staged": "staged" in form,
    }
    return wire.convert(tree, CreateKey)


async def show_creation(view: View) -> web.StreamResponse:
    """Show the algorithms, or the form of the chosen one."""
    infos = (await view.execute(ListAlgorithms())).items
    wanted = view.query.get("algorithm", "")
    if not wanted:
        return view.render(
            "keys/choose.html",
            categories=CATEGORIES.items(),
            purposes=purposes(infos),
            path=_CREATION_PATH,
        )
    choice = choice_of(_info(infos, wanted))
    return await _creation_form(view, choice, creation_fields(choice))


async def create(view: View) -> web.StreamResponse:
    """Create the key of a submitted form."""
    form = await view.form()
    try:
        key = await view.execute(
            build_creation(form), idempotency_key=form.operation_id
        )
    except (InvalidInputError, NameTakenError) as error:
        infos = (await view.execute(ListAlgorithms())).items
        choice = choice_of(_info(infos, form["algorithm"]))
        fields = mark_error(fill_fields(creation_fields(choice), form), error)
        return await _creation_form(view, choice, fields, error)
    return view.see_other(path_of(key.key_id), f"Created {title_of(key)}.")


def _info(infos: Sequence[AlgorithmInfo], name: str) -> AlgorithmInfo:
    algorithm = parse_algorithm(name)
    return next(info for info in infos if info.algorithm is algorithm)


async def _creation_form(
    view: View, choice: Choice, fields: Sequence[Field], error: HSMError | None = None
) -> web.Response:
    return view.render_form(
        "keys/create.html",
        error,
        choice=choice,
        fields=fields,
        explained=await explain_for_caller(
            view, CreateKey.__name__, algorithm=choice.algorithm
        ),
        path=_CREATION_PATH,
    )


CREATION_PAGES: Final = (
    Page("GET", "/keys/new", show_creation, "keys.new"),
    Page("POST", "/keys/new", create, "keys.create"),
)

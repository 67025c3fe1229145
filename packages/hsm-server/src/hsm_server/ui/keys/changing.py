# SPDX-License-Identifier: MIT
"""Action pages of a key: one form per action, executed at most once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from hsm_core.errors import (
    HSMError,
    InvalidInputError,
    KeyNotFoundError,
    NameTakenError,
    PreconditionFailedError,
)
from hsm_server.http.problems import status_of
from hsm_server.ui.fields import Field, fill_fields, mark_error
from hsm_server.ui.keys.actions import ACTIONS, Action, build_operation, success_message
from hsm_server.ui.keys.explaining import explain_for_caller
from hsm_server.ui.keys.presenters import key_facts
from hsm_server.ui.keys.subjects import (
    KEY,
    KeyWithVersions,
    find_key_with_versions,
    path_of,
)
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_PATH: Final = f"{KEY}/{{action:{'|'.join(ACTIONS)}}}"


async def ask(view: View) -> web.StreamResponse:
    """Show an action's form with its effect and the policy decision."""
    action, subject = ACTIONS[view.request.match_info["action"]], await _subject(view)
    return await _form(view, action, subject, action.fields(subject))


async def do(view: View) -> web.StreamResponse:
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


PAGES: Final = (
    Page("GET", _PATH, ask, "keys.action"),
    Page("POST", _PATH, do, "keys.do"),
)

# SPDX-License-Identifier: MIT
"""
Test pages of a key, for small inputs.

Inputs and results travel in request and response bodies only and are not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from hsm_core.errors import (
    ApprovalRequiredError,
    DecryptionError,
    HSMError,
    InvalidInputError,
    KeyUsageError,
    VerificationError,
)
from hsm_core.model import KeyInfo
from hsm_core.wire import asked_approval
from hsm_server.http.problems import problem_of, status_of
from hsm_server.ui.fields import Field, fill_fields, mark_error
from hsm_server.ui.keys.outcomes import TrialResult
from hsm_server.ui.keys.payloads import MOST_BYTES
from hsm_server.ui.keys.presenters import key_row
from hsm_server.ui.keys.subjects import KEY, find_key, path_of
from hsm_server.ui.keys.trials import (
    TRIALS,
    Trial,
    build_operation,
    trial_fields,
    trials_for,
)
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_PATH: Final = f"{KEY}/try/{{trial:{'|'.join(TRIALS)}}}"


async def ask(view: View) -> web.StreamResponse:
    """Show the form."""
    key, trial = await _found(view)
    return _page(view, key, trial, trial_fields(trial, key))


async def do(view: View) -> web.StreamResponse:
    """Execute the form and show the result with its inputs."""
    form = await view.form()
    key, trial = await _found(view)
    fields = fill_fields(trial_fields(trial, key), form)
    try:
        result = await view.execute(build_operation(trial, key, form))
    except ApprovalRequiredError as error:
        asked = asked_approval(error)
        approval_id = asked.approval_id if asked else ""
        return _page(view, key, trial, fields, error=error, approval_id=approval_id)
    except (VerificationError, DecryptionError) as error:
        refused = TrialResult(_sentence(error), False)
        return _page(view, key, trial, fields, outcome=refused, error=error)
    except InvalidInputError as error:
        return _page(view, key, trial, mark_error(fields, error), error=error)
    return _page(view, key, trial, fields, outcome=trial.present(result))


async def _found(view: View) -> tuple[KeyInfo, Trial]:
    key = await find_key(view)
    trial = TRIALS[view.request.match_info["trial"]]
    if trial not in trials_for(key):
        raise KeyUsageError(f"This key does not allow the operation: {trial.title}.")
    return key, trial


def _sentence(error: HSMError) -> str:
    return problem_of(error, "").detail


def _page(
    view: View,
    key: KeyInfo,
    trial: Trial,
    fields: Sequence[Field],
    *,
    outcome: TrialResult | None = None,
    error: HSMError | None = None,
    approval_id: str = "",
) -> web.Response:
    if error is not None:
        view.exchange.code = error.code
    return view.render(
        "keys/try.html",
        status=status_of(type(error)) if error else 200,
        key=key_row(key),
        trial=trial,
        trials=trials_for(key),
        fields=fields,
        outcome=outcome,
        error=_sentence(error) if error and outcome is None else "",
        approval_id=approval_id,
        most=MOST_BYTES // 1024,
        back=path_of(key.key_id),
    )


PAGES: Final = (
    Page("GET", _PATH, ask, "keys.try"),
    Page("POST", _PATH, do, "keys.tried"),
)

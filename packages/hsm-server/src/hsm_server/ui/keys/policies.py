# SPDX-License-Identifier: MIT
"""Policy page of a key: explains the decision for any principal."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from hsm_core.algorithms import spec
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyInfo, Role
from hsm_core.operations import OPERATIONS, RotateKey
from hsm_server.ui.keys.explaining import explain_for, explain_for_caller
from hsm_server.ui.keys.presenters import key_facts
from hsm_server.ui.keys.subjects import KEY, find_key, path_of
from hsm_server.ui.keys.trials import trials_for
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_ABOUT_KEYS: Final = tuple(
    operation.__name__
    for operation in OPERATIONS
    if "key_id" in operation.__struct_fields__
    and not operation.other_keys
    and operation.__name__
    not in {"ListApprovals", "ListAuditEvents", "ExplainPolicy", "RecoverKey"}
)


async def show_policy(view: View) -> web.StreamResponse:
    """Explain the policy decision for an operation on a key."""
    key, query = await find_key(view), view.query
    operation = query.get("operation", "") or _usual(key)
    principal = query.get("principal", "") or view.who.principal
    role, wrong, found = query.get("role", ""), "", None
    roles = (role,) if role else view.who.roles
    try:
        if principal == view.who.principal and not role:
            found = await explain_for_caller(view, operation, key.key_id)
        else:
            found = await explain_for(
                view, operation, principal, roles, key_id=key.key_id
            )
    except InvalidInputError as error:
        wrong = str(error)
    return view.render(
        "keys/policy.html",
        status=422 if wrong else 200,
        key=key_facts(key),
        explained=found,
        wrong=wrong,
        given={"operation": operation, "principal": principal, "role": role},
        operations=[(name, name) for name in _ABOUT_KEYS],
        roles=[("", "my roles"), *((role.value, role.value) for role in Role)],
        path=path_of(key.key_id),
    )


def _usual(key: KeyInfo) -> str:
    """Return the usual operation of a key."""
    trials = trials_for(key)
    if not trials or key.algorithm is None:
        return RotateKey.__name__
    return trials[0].operation(spec(key.algorithm)).__name__


PAGES: Final = (Page("GET", f"{KEY}/policy", show_policy, "keys.policy"),)

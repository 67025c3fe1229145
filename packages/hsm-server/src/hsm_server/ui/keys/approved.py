# SPDX-License-Identifier: MIT
"""
Doing what others have agreed to, on the very values that they were shown.

So nothing need be kept, or typed again: the approval holds what was asked for.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, get_origin

import msgspec
from aiohttp import web

from hsm_core import wire
from hsm_core.consent import ShownField, ShownOperation
from hsm_core.errors import (
    ApprovalNotFoundError,
    ConflictError,
    PreconditionFailedError,
    UnsupportedOperationError,
)
from hsm_core.model import ApprovalState, KeyInfo
from hsm_core.operations import (
    ApprovalInfo,
    CreateKey,
    DescribeKey,
    GetApproval,
    Operation,
)
from hsm_server.ui.keys.actions import ACTIONS
from hsm_server.ui.keys.changing import answer_stale
from hsm_server.ui.keys.fields import number
from hsm_server.ui.keys.presenters import microseconds
from hsm_server.ui.keys.subjects import path_of
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

__all__ = ["PAGES", "can_be_done_here", "operation_shown"]

_APPROVAL: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PATH: Final = f"/keys/approved/{{approval_id:{_APPROVAL}}}"
_ALL: Final[tuple[type[Operation[KeyInfo]], ...]] = (
    CreateKey,
    *(action.operation for action in ACTIONS.values()),
)
_KINDS: Final = {kind.__name__: kind for kind in _ALL}


def can_be_done_here(shown: ShownOperation) -> bool:
    """Return whether an operation is one that these pages ask for."""
    return shown.kind in _KINDS


def operation_shown(shown: ShownOperation) -> Operation[KeyInfo]:
    """
    Return the operation that approvers were shown.

    Raises:
        UnsupportedOperationError: It can't be told from what is shown, or is of
            another kind.
    """
    if not can_be_done_here(shown) or any(f.length is not None for f in shown.fields):
        raise UnsupportedOperationError(
            "This can't be repeated from here: send it again from where it was asked."
        )
    kind = _KINDS[shown.kind]
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    tree: dict[str, Any] = {}
    for field in shown.fields:
        name, _, place = field.name.partition(".")
        if place:
            tree[name].append(_value(field, None))
        else:
            tree[name] = _value(field, types.get(name))
    return wire.convert(tree, kind)


def _value(field: ShownField, kind: Any) -> Any:
    if kind is bool:
        return bool(field.number)
    if _is_list(kind):
        return []
    if field.number is not None:
        return field.number
    return field.text if field.data is None else field.data


def _is_list(kind: Any) -> bool:
    """Return whether a field's type is a list, or one that may be missing."""
    parts = (kind, *getattr(kind, "__args__", ()))
    return any(get_origin(_bare(part)) is tuple for part in parts)


def _bare(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind


async def ask(view: View) -> web.StreamResponse:
    """Show what was agreed to, and let the requester do it."""
    approval = await _mine(view)
    operation_shown(approval.operation)
    return view.render(
        "keys/approved.html",
        approval=approval,
        granted=approval.state is ApprovalState.GRANTED,
        state=approval.state.value,
        expires_at=microseconds(approval.expires_at),
        fields=[(field.name, _text(field)) for field in approval.operation.fields],
        generation=await _generation(view, approval),
        approval_page=f"{HOME}/approvals/{approval.approval_id}",
    )


async def do(view: View) -> web.StreamResponse:
    """Do it, unless it is not what the page has shown."""
    form = await view.form()
    approval = await _mine(view)
    if not hmac.compare_digest(form["digest"].encode(), approval.digest.encode()):
        raise ConflictError("This page has shown something else; nothing was done.")
    try:
        key = await view.execute(
            operation_shown(approval.operation),
            idempotency_key=form.operation_id,
            approval_id=approval.approval_id,
            expected_generation=number(form, "generation") or 0,
        )
    except PreconditionFailedError as error:
        return answer_stale(view, error, view.request.path)
    return view.see_other(path_of(key.key_id), "It was done as agreed.")


async def _mine(view: View) -> ApprovalInfo:
    """
    Return the approval that the path names.

    Raises:
        ApprovalNotFoundError: There is none, or somebody else has asked for it.
    """
    asked = GetApproval(approval_id=view.request.match_info["approval_id"])
    approval = await view.execute(asked)
    if approval.operation.requester != view.who.principal:
        raise ApprovalNotFoundError("Only who has asked for it can do it.")
    return approval


async def _generation(view: View, approval: ApprovalInfo) -> int:
    key_id = approval.operation.key_id
    if not key_id:
        return 0
    return (await view.execute(DescribeKey(key_id=key_id))).generation


def _text(field: ShownField) -> str:
    if field.data is not None:
        return field.data.hex()
    if field.number is not None:
        return str(field.number)
    return field.text if field.text is not None else "nothing"


PAGES: Final = (
    Page("GET", _PATH, ask, "keys.approved"),
    Page("POST", _PATH, do, "keys.do-approved"),
)

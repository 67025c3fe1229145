# SPDX-License-Identifier: MIT
"""The pages of approvals: the queue, one request, and what is said to it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from hsm_core import wire
from hsm_core.errors import (
    AccessDeniedError,
    ApprovalNotFoundError,
    ConflictError,
    HSMError,
    InvalidInputError,
)
from hsm_core.model import ApprovalState, KeyInfo
from hsm_core.operations import (
    ApprovalInfo,
    ApprovalPage,
    Approve,
    CancelApproval,
    Deny,
    DescribeKey,
    GetApproval,
    ListApprovals,
    Operation,
)
from hsm_server.problems import status_of
from hsm_server.ui.approvals.presenting import choices, present
from hsm_server.ui.approvals.saying_again import said_again
from hsm_server.ui.forms import Form
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

__all__ = ["PAGES"]

_LIST: Final = f"{HOME}/approvals"
_PER_PAGE: Final = 50
_MOST_DIGITS: Final = 15
_MOST_CALLS: Final = 10
"""A page of approvals may be short though there are more; so often it is gone on."""

_TABS: Final = {
    "open": (ApprovalState.PENDING, ApprovalState.GRANTED, ApprovalState.RESERVED),
    "history": (
        ApprovalState.CONSUMED,
        ApprovalState.DENIED,
        ApprovalState.CANCELLED,
        ApprovalState.EXPIRED,
    ),
}


async def _list(view: View) -> web.Response:
    query = view.query
    tab = query.get("tab", "open")
    if tab not in _TABS:
        raise InvalidInputError("There is no such list.", field="tab")
    filters = {name: query.get(name, "") for name in ("kind", "key_id", "requester")}
    page = await _page(view, tab, filters, query.get("cursor", ""))
    following = {"tab": tab, **filters, "cursor": page.next_cursor}
    return view.render(
        "approvals/list.html",
        tab=tab,
        filters=filters,
        is_filtered=any(filters.values()),
        approvals=[present(approval) for approval in page.items],
        tampered=page.tampered,
        is_first=not query.get("cursor"),
        next=f"{_LIST}?{_encoded(following)}" if page.next_cursor else "",
    )


async def _page(
    view: View, tab: str, filters: Mapping[str, str], cursor: str
) -> ApprovalPage:
    """Return the next page that shows something, if there is one."""
    tampered: tuple[str, ...] = ()
    tree: dict[str, Any] = {
        **filters,
        "states": list(_TABS[tab]),
        "per_page": _PER_PAGE,
        "cursor": cursor,
    }
    for _ in range(_MOST_CALLS - 1):
        page = await view.execute(wire.convert(tree, ListApprovals))
        tampered += page.tampered
        tree["cursor"] = page.next_cursor
        if page.items or not page.next_cursor:
            return msgspec.structs.replace(page, tampered=tampered)
    page = await view.execute(wire.convert(tree, ListApprovals))
    return msgspec.structs.replace(page, tampered=tampered + page.tampered)


def _encoded(fields: Mapping[str, str]) -> str:
    return urlencode({name: value for name, value in fields.items() if value})


async def _show(view: View) -> web.Response:
    return await _shown(view, await _fetch(view))


async def _fetch(view: View) -> ApprovalInfo:
    try:
        wanted = wire.convert({"approval_id": _id(view)}, GetApproval)
    except InvalidInputError:
        raise ApprovalNotFoundError from None
    return await view.execute(wanted)


def _id(view: View) -> str:
    return view.request.match_info["approval_id"]


async def _shown(
    view: View, approval: ApprovalInfo, *, alert: str = "", status: int = 200
) -> web.Response:
    known = said_again(approval.operation) is not None
    offered = choices(approval, view.who.principal, is_known=known)
    return view.render(
        "approvals/show.html",
        status=status,
        approval=present(approval),
        choices=offered,
        key_generation=await _key_generation(view, approval) if offered.execute else 0,
        alert=alert,
    )


async def _key_generation(view: View, approval: ApprovalInfo) -> int:
    """Return the generation of the key that it is about; 0 if that can't be told."""
    if not approval.operation.key_id:
        return 0
    with contextlib.suppress(HSMError):
        asked = DescribeKey(key_id=approval.operation.key_id)
        return (await view.execute(asked)).generation
    return 0


async def _approve(view: View) -> web.Response:
    form = await view.form()
    tree = _seen(view, form) | {"comment": form.get("comment").strip()}
    return await _decide(view, wire.convert(tree, Approve), "You have agreed.")


async def _deny(view: View) -> web.Response:
    form = await view.form()
    tree = _seen(view, form) | {"reason": form.get("reason").strip()}
    if not tree["reason"]:
        raise InvalidInputError("Say why you refuse; others will ask.", field="reason")
    return await _decide(view, wire.convert(tree, Deny), "You have refused.")


async def _cancel(view: View) -> web.Response:
    await view.form()
    operation = wire.convert({"approval_id": _id(view)}, CancelApproval)
    return await _decide(view, operation, "You have given up this request.")


def _seen(view: View, form: Form) -> dict[str, Any]:
    """
    Return which approval is meant, and what was shown of it when it was decided on.

    Raises:
        InvalidInputError: The form does not say what was shown.
    """
    digest, generation = form["digest"], _number(form, "generation")
    if not digest or not generation:
        raise InvalidInputError("The form does not say what was shown.", field="digest")
    return {"approval_id": _id(view), "digest": digest, "generation": generation}


def _number(form: Form, name: str) -> int:
    text = form[name]
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        raise InvalidInputError(f"{name} must be a number.", field=name)
    return int(text)


async def _decide(
    view: View, operation: Operation[ApprovalInfo], flash: str
) -> web.Response:
    """Say something to a request; where it is too late, show how it stands."""
    try:
        await view.execute(operation)
    except (AccessDeniedError, ConflictError) as error:
        return await _refused(view, error)
    return view.see_other(f"{_LIST}/{_id(view)}", flash)


async def _refused(view: View, error: HSMError) -> web.Response:
    view.exchange.code = error.code
    return await _shown(
        view,
        await _fetch(view),
        alert=str(error),
        status=status_of(type(error)),
    )


async def _execute(view: View) -> web.Response:
    """Do what was agreed to, for the person who asked for it."""
    form = await view.form()
    seen = _seen(view, form)
    approval = await _fetch(view)
    operation = said_again(approval.operation)
    if operation is None or present(approval).digest != seen["digest"]:
        raise ConflictError("The console can't say again what was asked for.")
    try:
        result = await view.execute(
            operation,
            idempotency_key=form.operation_id,
            approval_id=approval.approval_id,
            expected_generation=_number(form, "key_generation"),
        )
    except ConflictError as error:
        return await _refused(view, error)
    target = f"{_LIST}/{approval.approval_id}"
    if isinstance(result, KeyInfo):
        target = f"{HOME}/keys/{result.key_id}"
    return view.see_other(target, f"{type(operation).__name__} is done.")


_ONE: Final = "/approvals/{approval_id}"

PAGES: Final = (
    Page("GET", "/approvals", _list, "approvals.list"),
    Page("GET", _ONE, _show, "approvals.show"),
    Page("POST", f"{_ONE}/approve", _approve, "approvals.approve"),
    Page("POST", f"{_ONE}/deny", _deny, "approvals.deny"),
    Page("POST", f"{_ONE}/cancel", _cancel, "approvals.cancel"),
    Page("POST", f"{_ONE}/execute", _execute, "approvals.execute"),
)
"""The pages of this package."""

# SPDX-License-Identifier: MIT
"""Approval pages: list, one request, approve, deny, withdraw, cancel and execute."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
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
    CancelApproval,
    DescribeKey,
    GetApproval,
    ListApprovals,
    Operation,
    Withdraw,
)
from hsm_server.ui.approvals.decisions import (
    APPROVE,
    DENY,
    DecisionForm,
    build_operation,
    read_decided_state,
)
from hsm_server.ui.approvals.presenting import choices, present
from hsm_server.ui.approvals.rebuilding import rebuild_operation
from hsm_server.ui.fields import Field, fill_fields, mark_error
from hsm_server.ui.forms import Form
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_LIST: Final = f"{HOME}/approvals"
_PER_PAGE: Final = 50
_MOST_CALLS: Final = 10
"""Maximum ListApprovals calls per page: filtered pages may be empty and have a next."""

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
        raise InvalidInputError("tab must be open or history.", field="tab")
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
        key_tampered=page.key_tampered,
        is_first=not query.get("cursor"),
        next=f"{_LIST}?{_encoded(following)}" if page.next_cursor else "",
    )


async def _page(
    view: View, tab: str, filters: Mapping[str, str], cursor: str
) -> ApprovalPage:
    """Return the next page with items or altered approvals, if any."""
    tampered: tuple[str, ...] = ()
    key_tampered: tuple[str, ...] = ()
    tree: dict[str, Any] = {
        **filters,
        "states": list(_TABS[tab]),
        "per_page": _PER_PAGE,
        "cursor": cursor,
    }
    page = ApprovalPage(items=())
    for _ in range(_MOST_CALLS):
        page = await view.execute(wire.convert(tree, ListApprovals))
        tampered += page.tampered
        key_tampered += page.key_tampered
        tree["cursor"] = page.next_cursor
        if page.items or not page.next_cursor:
            break
    return msgspec.structs.replace(page, tampered=tampered, key_tampered=key_tampered)


def _encoded(fields: Mapping[str, str]) -> str:
    return urlencode({name: value for name, value in fields.items() if value})


async def _show(view: View) -> web.Response:
    return await _render_request(view, await _fetch(view))


async def _fetch(view: View) -> ApprovalInfo:
    try:
        wanted = wire.convert({"approval_id": _id(view)}, GetApproval)
    except InvalidInputError:
        raise ApprovalNotFoundError from None
    return await view.execute(wanted)


def _id(view: View) -> str:
    return view.request.match_info["approval_id"]


async def _render_request(
    view: View,
    approval: ApprovalInfo,
    *,
    form: Form | None = None,
    error: HSMError | None = None,
) -> web.Response:
    """
    Show a request in its current state.

    Args:
        view: The browser's request.

        approval: The request.

        form: A rejected form, whose values are shown again.

        error: Why it was rejected.
    """
    known = rebuild_operation(approval.operation) is not None
    offered = choices(approval, view.who.principal, is_known=known)
    fields: Sequence[Field] = (APPROVE.field, DENY.field)
    if form is not None and error is not None:
        fields = mark_error(fill_fields(fields, form), error)
    return view.render_form(
        "approvals/show.html",
        error,
        approval=present(approval),
        choices=offered,
        key_generation=await _key_generation(view, approval) if offered.execute else 0,
        fields={field.name: field for field in fields},
    )


async def _key_generation(view: View, approval: ApprovalInfo) -> int:
    """Return the generation of the request's key; 0 if unknown."""
    if not approval.operation.key_id:
        return 0
    with contextlib.suppress(HSMError):
        asked = DescribeKey(key_id=approval.operation.key_id)
        return (await view.execute(asked)).generation
    return 0


async def _approve(view: View) -> web.Response:
    return await _decide(view, APPROVE)


async def _deny(view: View) -> web.Response:
    return await _decide(view, DENY)


async def _decide(view: View, decision: DecisionForm) -> web.Response:
    """Approve or deny; show the request again if the form is rejected."""
    form = await view.form()
    try:
        await view.execute(build_operation(decision, _id(view), form))
    except (AccessDeniedError, ConflictError, InvalidInputError) as error:
        return await _render_request(view, await _fetch(view), form=form, error=error)
    return view.see_other(f"{_LIST}/{_id(view)}", decision.done)


async def _withdraw(view: View) -> web.Response:
    return await _end(view, Withdraw, "Approval withdrawn.")


async def _cancel(view: View) -> web.Response:
    return await _end(view, CancelApproval, "Request cancelled.")


async def _end(
    view: View, kind: type[Operation[ApprovalInfo]], done: str
) -> web.Response:
    await view.form()
    try:
        await view.execute(wire.convert({"approval_id": _id(view)}, kind))
    except (AccessDeniedError, ConflictError) as error:
        return await _render_request(view, await _fetch(view), error=error)
    return view.see_other(f"{_LIST}/{_id(view)}", done)


async def _execute(view: View) -> web.Response:
    """Execute an approved request for its requester."""
    form = await view.form()
    shown = read_decided_state(form, _id(view))
    approval = await _fetch(view)
    operation = rebuild_operation(approval.operation)
    if operation is None or present(approval).digest != shown["digest"]:
        raise ConflictError(
            "The console can't execute this request. Send the original again."
        )
    try:
        result = await view.execute(
            operation,
            idempotency_key=form.operation_id,
            approval_id=approval.approval_id,
            expected_generation=form.number("key_generation"),
        )
    except ConflictError as error:
        return await _render_request(view, await _fetch(view), error=error)
    target = f"{_LIST}/{approval.approval_id}"
    if isinstance(result, KeyInfo):
        target = f"{HOME}/keys/{result.key_id}"
    return view.see_other(target, f"{type(operation).__name__} executed.")


_ONE: Final = "/approvals/{approval_id}"

PAGES: Final = (
    Page("GET", "/approvals", _list, "approvals.list"),
    Page("GET", _ONE, _show, "approvals.show"),
    Page("POST", f"{_ONE}/approve", _approve, "approvals.approve"),
    Page("POST", f"{_ONE}/deny", _deny, "approvals.deny"),
    Page("POST", f"{_ONE}/withdraw", _withdraw, "approvals.withdraw"),
    Page("POST", f"{_ONE}/cancel", _cancel, "approvals.cancel"),
    Page("POST", f"{_ONE}/execute", _execute, "approvals.execute"),
)
"""The pages of this package."""

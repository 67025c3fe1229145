# SPDX-License-Identifier: MIT
"""Approval pages: requests, decisions and execution."""

from __future__ import annotations

import base64
import contextlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from hsm_core import wire
from hsm_core.consent import (
    ShownContext,
    ShownField,
    ShownOperation,
    changes,
    check_shown,
    headline,
    shown_sha256,
)
from hsm_core.errors import (
    ApprovalNotFoundError,
    ConflictError,
    HSMError,
    InvalidInputError,
)
from hsm_core.identities import same_person
from hsm_core.model import OPEN_APPROVALS, ApprovalDemand, ApprovalState, KeyInfo
from hsm_core.operations import (
    OPERATIONS,
    ApprovalInfo,
    ApprovalPage,
    Approve,
    BeginLedger,
    CancelApproval,
    Deny,
    DescribeKey,
    GetApproval,
    ListApprovals,
    Operation,
    RecoverKey,
    RecoverStore,
    Withdraw,
    result_type,
)
from hsm_server.ui.actions import Action, FormPages, RejectedFormError, Tree, fields_of
from hsm_server.ui.forms import Field, Form
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View
from hsm_server.vault.access import Who

_KNOWN: Final[dict[str, type[Operation[Any]]]] = {
    cls.__name__: cls
    for cls in OPERATIONS
    if result_type(cls) is KeyInfo or cls in {BeginLedger, RecoverKey, RecoverStore}
}
"""Operations whose result holds no secret and no data to download."""


def rebuild_operation(shown: ShownOperation) -> Operation[Any] | None:
    """
    Return the operation of an approval request.

    Returns:
        None if a field is hidden, or if its result can't be shown on a page.
    """
    kind = _KNOWN.get(shown.kind)
    if kind is None or any(field.length is not None for field in shown.fields):
        return None
    given = {field.name: field for field in shown.fields}
    tree: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name in given:
            tree[field.name] = _value(
                given, field.name, msgspec.inspect.type_info(field.type)
            )
            del given[field.name]
    if given:
        # A part of a record, or a field that this version does not know.
        return None
    try:
        return wire.convert(tree, kind)
    except InvalidInputError:
        return None


def _value(given: dict[str, ShownField], name: str, info: msgspec.inspect.Type) -> Any:
    """Return a field's value; items of a list are removed from *given*."""
    field = given[name]
    if _is(info, msgspec.inspect.BoolType):
        return bool(field.number)
    if _is(info, msgspec.inspect.VarTupleType):
        items = [given.pop(f"{name}.{n}", None) for n in range(field.number or 0)]
        return [_scalar(item) for item in items if item is not None]
    return _scalar(field)


def _scalar(field: ShownField) -> Any:
    forms = (field.text, field.number, field.data)
    return next((form for form in forms if form is not None), None)


def _is(info: msgspec.inspect.Type, wanted: type[msgspec.inspect.Type]) -> bool:
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _is(inner, wanted)
        case msgspec.inspect.UnionType(types=types):
            return any(_is(kind, wanted) for kind in types)
        case _:
            return isinstance(info, wanted)


_BADGES: Final = {
    ApprovalState.PENDING: "warn",
    ApprovalState.GRANTED: "ok",
    ApprovalState.RESERVED: "info",
    ApprovalState.CONSUMED: "",
    ApprovalState.DENIED: "bad",
    ApprovalState.CANCELLED: "",
    ApprovalState.EXPIRED: "",
}

_HEX_BYTES: Final = 32
"""Bytes up to this length are shown as hex, longer ones as base64."""

_MEANINGS: Final = {
    cls.__name__: (cls.__doc__ or "").strip().partition("\n")[0] for cls in OPERATIONS
}
_NOUNS: Final = {
    "CreateKey": "creation",
    "DestroyKey": "destruction",
    "ExportKey": "export",
    "ImportKey": "import",
    "PurgeVersion": "purge",
    "RevokeKey": "revocation",
    "Rollback": "rollback",
    "RotateKey": "rotation",
    "UpdateKey": "change",
}
"""Nouns of frequent operations; others are called request."""

_OPEN: Final = frozenset({ApprovalState.PENDING, ApprovalState.GRANTED})


@dataclass(frozen=True, slots=True)
class FieldRow:
    """
    One field of an operation.

    Attributes:
        name: Name of the operation's field.
        form: Type: text, number, a number of bytes, or nothing.
        value: The whole value, in each useful form; empty for nothing.
        is_hidden: Whether *value* is a hash of a value that is not shown.
    """

    name: str
    form: str
    value: tuple[str, ...]
    is_hidden: bool = False


def present(approval: ApprovalInfo) -> dict[str, Any]:
    """Return an approval request as its page shows it, with its digest."""
    shown = approval.operation
    digest, problem = _checked_digest(approval)
    return {
        "info": approval,
        "digest": digest,
        "problem": problem,
        "badge": _BADGES[approval.state],
        "noun": _NOUNS.get(shown.kind, "request"),
        "meaning": _MEANINGS.get(shown.kind, "Unknown operation."),
        "headline": headline(shown, datetime.now(UTC)),
        "changes": list(changes(shown)),
        "about": [(name, text) for name, text in _about(shown.context) if text],
        "fields": list(_field_rows(shown)),
        "demands": list(map(demand_words, approval.demands)),
    }


def _subject(shown: ShownOperation) -> str:
    """Return the name of the key, or of the key to create."""
    named = (f.text or "" for f in shown.fields if f.name == "name")
    return shown.key_name or shown.key_id or next(named, "")


def _about(context: ShownContext | None) -> list[tuple[str, str]]:
    if context is None:
        return []
    certificate = context.requester_certificate, context.requester_certificate_sha256
    used = context.last_used_at or ("never" if context.versions else "")
    return [
        ("Requester's roles", ", ".join(context.requester_roles)),
        ("Requester's address", context.requester_address),
        ("Requester's certificate", ", SHA-256 ".join(filter(None, certificate))),
        ("Key's owner", context.owner),
        ("Key's tags", ", ".join(context.tags)),
        ("Key last used", used),
    ]


def _field_rows(shown: ShownOperation) -> Iterator[FieldRow]:
    """
    Yield a row for each field; a list is introduced by its number of items.

    The name of a key follows its ID.
    """
    fields = shown.fields
    known = {"key_id": shown.key_name}
    if shown.context is not None:
        known |= {field.name: field.text or "" for field in shown.context.names}
    names = {field.name.rpartition(".")[0] for field in fields}
    for field in fields:
        row = field_row(field)
        if field.text is not None and known.get(field.name):
            name = f"key {known[field.name]}"
            row = FieldRow(row.name, row.form, (*row.value, name))
        if field.number is not None and field.name in names:
            yield FieldRow(row.name, "list", (f"{field.number} items",))
        else:
            yield row


def _checked_digest(approval: ApprovalInfo) -> tuple[str, str]:
    """Return the digest of the fields shown, or an empty one and the problem."""
    try:
        check_shown(approval.operation)
        digest = shown_sha256(approval.salt, approval.operation)
    except HSMError as error:
        return "", f"The request can't be shown completely. {error}"
    if not hmac.compare_digest(digest, approval.digest):
        return "", "Integrity check failed: the digest differs from the HSM's."
    return digest, ""


def field_row(field: ShownField) -> FieldRow:
    """Return the row of a field."""
    name = field.name
    if field.text is not None:
        return FieldRow(name, "text", (field.text,))
    if field.number is not None:
        return FieldRow(name, "number", (str(field.number),))
    if field.data is not None:
        return FieldRow(name, f"{len(field.data)} bytes", tuple(_bytes(field.data)))
    if field.length is not None:
        value = f"salted SHA-256 {field.sha256}"
        return FieldRow(name, f"{field.length} bytes", (value,), is_hidden=True)
    return FieldRow(name, "nothing", ())


def _bytes(data: bytes) -> Iterator[str]:
    """Yield bytes as hex or base64, and as text if they are plain text."""
    if len(data) <= _HEX_BYTES:
        yield f"hex {data.hex()}"
    else:
        yield f"base64 {base64.b64encode(data).decode()}"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if text and text.isprintable():
        yield f"text {text}"


def demand_words(demand: ApprovalDemand) -> str:
    """Return a rule's requirement as a sentence."""
    who = "person" if demand.quorum == 1 else "people"
    parts = [
        f"{demand.quorum} of {' or '.join(demand.roles)}"
        if demand.roles
        else f"{demand.quorum} other {who}",
        *(f"1 of {role}" for role in demand.distinct_roles),
        "signed with their own key" if demand.signed else "",
        f"for up to {demand.uses} operations" if demand.uses > 1 else "",
    ]
    return f"{demand.rule}: {', '.join(part for part in parts if part)}"


def decision_of(approval: ApprovalInfo, principal: str) -> str:
    """Return a person's earlier decision: approved, denied or empty."""
    return next(
        (
            "approved" if decision.granted else "denied"
            for decision in approval.decisions
            if not decision.withdrawn and same_person(decision.principal, principal)
        ),
        "",
    )


def _is_own(approval: ApprovalInfo, who: Who) -> bool:
    return same_person(approval.operation.requester, who.principal)


def _may_decide(approval: ApprovalInfo, who: Who) -> bool:
    is_open = approval.state in _OPEN and not _is_own(approval, who)
    return is_open and not decision_of(approval, who.principal)


def _text_field(name: str, hint: str, *, is_required: bool = False) -> Sequence[Field]:
    label = name.capitalize()
    return [
        Field(name=name, label=label, hint=hint, is_required=is_required, longest=256)
    ]


def _read_shown(form: Form, _: ApprovalInfo) -> Tree:
    """Return digest and generation of the request that the form was shown with."""
    digest, generation = form["digest"], form.number("generation")
    if not digest or not generation:
        raise InvalidInputError(
            "The form has no digest or generation. Reload the page.", field="digest"
        )
    return {"digest": digest, "generation": generation}


class _Execution(Action[ApprovalInfo]):
    """Execution of an approved request, under its approval."""

    def build(self, form: Form, subject: ApprovalInfo) -> Operation[Any]:
        """
        Return the approved operation.

        Raises:
            ConflictError: The console can't rebuild it, or the form shows another.
        """
        operation = rebuild_operation(subject.operation)
        if operation is None or _checked_digest(subject)[0] != form["digest"]:
            raise ConflictError(
                "The console can't execute this request. Send the original again."
            )
        return operation


_action: Final[Callable[..., Action[ApprovalInfo]]] = partial(
    Action,
    target=lambda approval: {"approval_id": approval.approval_id},
    is_idempotent=False,
    has_generation=False,
)
_ROWS: Final[tuple[Action[ApprovalInfo], ...]] = (
    _action(
        name="withdraw",
        operation=Withdraw,
        verb="Withdraw approval",
        done="Approval withdrawn.",
        is_offered=lambda approval, who: (
            approval.state in _OPEN
            and decision_of(approval, who.principal) == "approved"
        ),
        tone="",
    ),
    _action(
        name="approve",
        operation=Approve,
        verb="Approve",
        done="Request approved.",
        is_offered=lambda approval, who: (
            approval.state is ApprovalState.PENDING and _may_decide(approval, who)
        ),
        fields=lambda _: _text_field("comment", "Optional. Recorded in the audit log."),
        read=_read_shown,
    ),
    _action(
        name="deny",
        operation=Deny,
        verb="Deny",
        done="Request denied.",
        is_offered=_may_decide,
        fields=lambda _: _text_field(
            "reason",
            "Recorded in the audit log. One denial closes the request.",
            is_required=True,
        ),
        read=_read_shown,
        tone="danger",
    ),
    _Execution(
        name="execute",
        operation=Operation,
        verb="Execute",
        done="Request executed.",
        is_offered=lambda approval, who: (
            _is_own(approval, who)
            and approval.state is ApprovalState.GRANTED
            and rebuild_operation(approval.operation) is not None
        ),
        approval_id=lambda approval: approval.approval_id,
    ),
    _action(
        name="cancel",
        operation=CancelApproval,
        verb="Cancel request",
        done="Request cancelled.",
        is_offered=lambda approval, who: (
            _is_own(approval, who) and approval.state in _OPEN
        ),
        tone="",
    ),
)

ACTIONS: Final = {action.name: action for action in _ROWS}
"""Actions on a request by name."""

_LIST: Final = f"{HOME}/approvals"
_PER_PAGE: Final = 50
_MOST_CALLS: Final = 10
"""Maximum ListApprovals calls per page: filtered pages may be empty and have a next."""

_TABS: Final = {
    "open": OPEN_APPROVALS,
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
        approvals=[
            (approval, _BADGES[approval.state], _subject(approval.operation))
            for approval in page.items
        ],
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
    return await _show_request(view, await _find(view))


async def _find(view: View, _: Form | None = None) -> ApprovalInfo:
    tree = {"approval_id": view.request.match_info["approval_id"]}
    try:
        wanted = wire.convert(tree, GetApproval)
    except InvalidInputError:
        raise ApprovalNotFoundError from None
    return await view.execute(wanted)


async def _show_request(
    view: View, approval: ApprovalInfo, rejected: RejectedFormError | None = None
) -> web.Response:
    """Show a request, or its rejected form."""
    offered = {
        name: fields_of(action, approval, rejected)
        for name, action in ACTIONS.items()
        if action.is_offered(approval, view.who)
    }
    return view.render_form(
        "approvals/show.html",
        rejected.error if rejected else None,
        **present(approval),
        is_own=_is_own(approval, view.who),
        decision=decision_of(approval, view.who.principal),
        actions=ACTIONS,
        offered=offered,
        key_generation=(
            await _key_generation(view, approval) if "execute" in offered else 0
        ),
    )


async def _key_generation(view: View, approval: ApprovalInfo) -> int:
    """Return the generation of the request's key; 0 if unknown."""
    if not approval.operation.key_id:
        return 0
    with contextlib.suppress(HSMError):
        asked = DescribeKey(key_id=approval.operation.key_id)
        return (await view.execute(asked)).generation
    return 0


def _target(approval: ApprovalInfo, result: object) -> str:
    if isinstance(result, KeyInfo):
        return f"{HOME}/keys/{result.key_id}"
    return f"{_LIST}/{approval.approval_id}"


_ONE: Final = "/approvals/{approval_id}"
_FORMS: Final = FormPages(_ONE, "approvals.{}", _find, _show_request, _target)

PAGES: Final = (
    Page("GET", "/approvals", _list, "approvals.list"),
    Page("GET", _ONE, _show, "approvals.show"),
    *map(_FORMS.page, ACTIONS.values()),
)
"""The pages of this module."""

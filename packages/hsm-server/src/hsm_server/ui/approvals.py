# SPDX-License-Identifier: MIT
"""Approval pages: requests, decisions and execution."""

from __future__ import annotations

import base64
import contextlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from hsm_core import wire
from hsm_core.consent import (
    ShownChange,
    ShownContext,
    ShownField,
    ShownOperation,
    changes,
    check_shown,
    headline,
    shown_sha256,
)
from hsm_core.errors import (
    AccessDeniedError,
    ApprovalNotFoundError,
    ConflictError,
    HSMError,
    InvalidInputError,
)
from hsm_core.identities import same_person
from hsm_core.model import ApprovalDemand, ApprovalState, KeyInfo
from hsm_core.operations import (
    OPERATIONS,
    ApprovalInfo,
    ApprovalPage,
    Approve,
    BeginLedger,
    CancelApproval,
    DecisionInfo,
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
from hsm_server.ui.forms import Field, Form, fill_fields, mark_error
from hsm_server.ui.rendering import microseconds, visible
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

Tree: TypeAlias = dict[str, Any]

_LONGEST: Final = 256


@dataclass(frozen=True, slots=True)
class DecisionForm:
    """
    A form that approves or denies a request.

    Attributes:
        operation: Operation that it executes.
        field: Its comment or reason.
        done: Message on success.
        missing: Message where a required text is missing.
    """

    operation: type[Operation[ApprovalInfo]]
    field: Field
    done: str
    missing: str = ""


APPROVE: Final = DecisionForm(
    Approve,
    Field(
        name="comment",
        label="Comment",
        hint="Optional. Recorded in the audit log.",
        longest=_LONGEST,
    ),
    "Request approved.",
)

DENY: Final = DecisionForm(
    Deny,
    Field(
        name="reason",
        label="Reason",
        hint="Recorded in the audit log. One denial closes the request.",
        is_required=True,
        longest=_LONGEST,
    ),
    "Request denied.",
    missing="Enter a reason for the denial.",
)


def read_decided_state(form: Form, approval_id: str) -> Tree:
    """
    Return the ID, digest and generation of the request that the form was made for.

    Raises:
        InvalidInputError: The digest or the generation is missing.
    """
    digest, generation = form["digest"], form.number("generation")
    if not digest or not generation:
        raise InvalidInputError(
            "The form has no digest or generation. Reload the page.", field="digest"
        )
    return {"approval_id": approval_id, "digest": digest, "generation": generation}


def build_operation(
    decision: DecisionForm, approval_id: str, form: Form
) -> Operation[ApprovalInfo]:
    """
    Return the operation of a submitted form.

    Raises:
        InvalidInputError: A field is missing or invalid.
    """
    field = decision.field
    text = form.get(field.name).strip()
    if field.is_required and not text:
        raise InvalidInputError(decision.missing, field=field.name)
    return wire.convert(
        {**read_decided_state(form, approval_id), field.name: text}, decision.operation
    )


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


BADGES: Final = {
    ApprovalState.PENDING: "warn",
    ApprovalState.GRANTED: "ok",
    ApprovalState.RESERVED: "info",
    ApprovalState.CONSUMED: "",
    ApprovalState.DENIED: "bad",
    ApprovalState.CANCELLED: "",
    ApprovalState.EXPIRED: "",
}
"""Badge of each approval state."""

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


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """One person's decision."""

    principal: str
    granted: bool
    at: int
    comment: str
    roles: str
    signed: bool
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class ShownApproval:
    """
    An approval request, as a page shows it.

    Attributes:
        digest: Computed here from the fields shown; empty if it can't be approved.
        told_digest: The digest that the core reports.
        problem: Why the request can't be approved here, or empty.
        subject: Name of the key, or of the key to create.
        noun: The operation, for buttons: ``destruction``.
        key_version: The version named, or the current one when requested.
        names_version: Whether the operation names a version.
        headline: The request in one sentence: requester, action, facts, reversal.
        changes: Changed fields, before and after.
        about: More facts on requester and key: name and value.
        frees_from: Policy rules that no longer apply to the key afterwards.
        needs_signature: Whether approvers must sign with a key of their own.
        uses_left: Number of operations that it can still be used for.
    """

    approval_id: str
    state: str
    badge: str
    generation: int
    kind: str
    noun: str
    meaning: str
    requester: str
    key_id: str
    key_name: str
    subject: str
    algorithm: str
    key_version: int
    names_version: bool
    headline: tuple[str, str, str, str]
    changes: tuple[ShownChange, ...]
    about: tuple[tuple[str, str], ...]
    frees_from: tuple[str, ...]
    fields: tuple[FieldRow, ...]
    digest: str
    told_digest: str
    problem: str
    demands: tuple[str, ...]
    missing: tuple[str, ...]
    decisions: tuple[DecisionLine, ...]
    needs_signature: bool
    uses_left: int
    created_at: int
    expires_at: int
    closed_at: int
    operation_id: str


@dataclass(frozen=True, slots=True)
class Choices:
    """
    Actions offered to a person; the core checks each again.

    Attributes:
        is_requester: Whether it is the person's own request.
        decision: Their earlier decision: ``approved``, ``denied`` or empty.
    """

    is_requester: bool
    decision: str
    approve: bool
    deny: bool
    withdraw: bool
    cancel: bool
    execute: bool


def present(approval: ApprovalInfo) -> ShownApproval:
    """Return an approval request as a page shows it, with its digest."""
    shown = approval.operation
    context = shown.context or ShownContext()
    digest, problem = _checked_digest(approval)
    first = headline(shown, datetime.now(UTC))
    return ShownApproval(
        approval_id=approval.approval_id,
        state=approval.state.value,
        badge=BADGES[approval.state],
        generation=approval.generation,
        kind=visible(shown.kind),
        noun=_NOUNS.get(shown.kind, "request"),
        meaning=_MEANINGS.get(shown.kind, "Unknown operation."),
        requester=visible(shown.requester),
        key_id=shown.key_id,
        key_name=visible(shown.key_name),
        subject=visible(shown.key_name or shown.key_id or _new_name(shown)),
        algorithm=visible(shown.algorithm),
        key_version=shown.version,
        names_version=any(field.name == "version" for field in shown.fields),
        headline=(
            visible(first.requester),
            visible(first.action),
            visible(first.facts),
            visible(first.undo),
        ),
        changes=tuple(map(_visible_change, changes(shown))),
        about=tuple((name, visible(text)) for name, text in _about(context) if text),
        frees_from=tuple(map(visible, context.frees_from)),
        fields=tuple(_field_rows(shown)),
        digest=digest,
        told_digest=approval.digest,
        problem=problem,
        demands=tuple(map(demand_words, approval.demands)),
        missing=approval.missing,
        decisions=tuple(map(_decision_line, approval.decisions)),
        needs_signature=any(demand.signed for demand in approval.demands),
        uses_left=approval.uses_left,
        created_at=microseconds(approval.created_at),
        expires_at=microseconds(approval.expires_at),
        closed_at=microseconds(approval.closed_at),
        operation_id=approval.operation_id,
    )


def _new_name(shown: ShownOperation) -> str:
    named = (f.text or "" for f in shown.fields if f.name == "name")
    return next(named, "")


def _visible_change(change: ShownChange) -> ShownChange:
    return ShownChange(
        visible(change.name),
        visible(change.before),
        visible(change.after),
        tuple(map(visible, change.removed)),
        tuple(map(visible, change.added)),
    )


def _about(context: ShownContext) -> list[tuple[str, str]]:
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
            name = visible(known[field.name])
            row = FieldRow(row.name, row.form, (*row.value, f"key {name}"))
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
        return (
            "",
            "Integrity check failed: the digest differs from the HSM's.",
        )
    return digest, ""


def _decision_line(decision: DecisionInfo) -> DecisionLine:
    return DecisionLine(
        principal=visible(decision.principal),
        granted=decision.granted,
        at=microseconds(decision.at),
        comment=visible(decision.comment),
        roles=", ".join(decision.roles),
        signed=decision.signed,
        withdrawn=decision.withdrawn,
    )


def field_row(field: ShownField) -> FieldRow:
    """Return the row of a field."""
    name = visible(field.name)
    if field.text is not None:
        return FieldRow(name, "text", (visible(field.text),))
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
    if text and visible(text) == text:
        yield f"text {text}"


def demand_words(demand: ApprovalDemand) -> str:
    """Return a rule's requirement as a sentence."""
    who = "person" if demand.quorum == 1 else "people"
    parts = [
        f"{demand.quorum} of {' or '.join(demand.roles)}"
        if demand.roles
        else f"{demand.quorum} other {who}",
        *(f"1 of {role}" for role in demand.distinct_roles),
        "signed with a key of their own" if demand.signed else "",
        f"for up to {demand.uses} operations" if demand.uses > 1 else "",
    ]
    return f"{visible(demand.rule)}: {', '.join(part for part in parts if part)}"


def choices(approval: ApprovalInfo, principal: str, *, is_known: bool) -> Choices:
    """
    Return the actions to offer a person.

    Args:
        approval: The request.

        principal: The person.

        is_known: Whether the console can rebuild the operation.
    """
    own = same_person(approval.operation.requester, principal)
    earlier = next(
        (
            "approved" if decision.granted else "denied"
            for decision in approval.decisions
            if not decision.withdrawn and same_person(decision.principal, principal)
        ),
        "",
    )
    is_open = approval.state in _OPEN
    decides = is_open and not own and not earlier
    return Choices(
        is_requester=own,
        decision=earlier,
        approve=decides and approval.state is ApprovalState.PENDING,
        deny=decides,
        withdraw=is_open and earlier == "approved",
        cancel=own and is_open,
        execute=own and approval.state is ApprovalState.GRANTED and is_known,
    )


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

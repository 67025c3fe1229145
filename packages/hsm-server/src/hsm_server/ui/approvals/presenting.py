# SPDX-License-Identifier: MIT
"""Approval requests as pages show them: every field, and the digest of the fields."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

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
from hsm_core.errors import HSMError
from hsm_core.identities import same_person
from hsm_core.model import ApprovalDemand, ApprovalState
from hsm_core.operations import OPERATIONS, ApprovalInfo, DecisionInfo
from hsm_server.ui.instants import microseconds
from hsm_server.ui.visible_text import visible

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

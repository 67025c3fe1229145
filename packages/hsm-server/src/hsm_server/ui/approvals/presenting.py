# SPDX-License-Identifier: MIT
"""What is asked for, as a page shows it to those who must agree: all of it."""

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
"""How the state of an approval is marked."""

_HEX_BYTES: Final = 32
"""Up to this length bytes are shown as hex, from there on as base64."""

_MEANINGS: Final = {
    cls.__name__: (cls.__doc__ or "").strip().partition("\n")[0] for cls in OPERATIONS
}
_OPEN: Final = frozenset({ApprovalState.PENDING, ApprovalState.GRANTED})


@dataclass(frozen=True, slots=True)
class FieldRow:
    """
    One field of an operation.

    Attributes:
        name: As the operation has it.
        form: What it is: text, a number, so many bytes, nothing.
        value: All of it, in every form that helps; empty for nothing.
        is_hidden: Whether *value* is a hash that stands for it.
    """

    name: str
    form: str
    value: tuple[str, ...]
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """What one person said."""

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
    An approval, as a page shows it.

    Attributes:
        digest: Computed here, from what is shown; empty if that can't be agreed to.
        told_digest: As the core tells it.
        problem: Why nothing may be agreed to, or empty.
        subject: The key that it is about, or that it would make, by its name.
        key_version: The version that is named, or the one that was current.
        names_version: Whether the operation names it.
        headline: The request in one sentence, in parts: who, what, facts, undoing.
        changes: What changes, before and after.
        about: What else there is to know of requester and key: name and value.
        frees_from: Rules that it would free the key from.
        needs_signature: Whether who agrees must sign with a key of their own.
        uses_left: For how many operations it may still be used.
    """

    approval_id: str
    state: str
    badge: str
    generation: int
    kind: str
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
    What somebody is offered to do; a courtesy, for the core decides.

    Attributes:
        is_requester: Whether it is their own request.
        said: What they said before: ``agreed``, ``refused`` or empty.
    """

    is_requester: bool
    said: str
    approve: bool
    deny: bool
    withdraw: bool
    cancel: bool
    execute: bool


def present(approval: ApprovalInfo) -> ShownApproval:
    """Return an approval as a page shows it, with its digest computed from that."""
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
        meaning=_MEANINGS.get(shown.kind, "The console does not know this operation."),
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
    Give the rows of fields; where items follow, the number before counts them.

    Beside the id of a key stands the key's name.
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
            row = FieldRow(row.name, row.form, (*row.value, f"the key {name}"))
        if field.number is not None and field.name in names:
            yield FieldRow(row.name, "list", (f"{field.number} items",))
        else:
            yield row


def _checked_digest(approval: ApprovalInfo) -> tuple[str, str]:
    """Return the digest of what is shown, computed here; else what is wrong with it."""
    try:
        check_shown(approval.operation)
        digest = shown_sha256(approval.salt, approval.operation)
    except HSMError as error:
        return "", f"It can't be shown without anything left unsaid. {error}"
    if not hmac.compare_digest(digest, approval.digest):
        return "", "What is shown here has not the digest that the HSM tells."
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
    """Return a field: in which form it is, and its value."""
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
    """Give bytes in a form that tells them all, and as text if they are plain text."""
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
    """Return what one rule asks of other people, in words."""
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
    Return what somebody may be offered.

    Args:
        approval: As the core tells it.

        principal: Who looks at it.

        is_known: Whether the console can say again what is asked for.
    """
    own = same_person(approval.operation.requester, principal)
    said = next(
        (
            "agreed" if decision.granted else "refused"
            for decision in approval.decisions
            if not decision.withdrawn and same_person(decision.principal, principal)
        ),
        "",
    )
    is_open = approval.state in _OPEN
    decides = is_open and not own and not said
    return Choices(
        is_requester=own,
        said=said,
        approve=decides and approval.state is ApprovalState.PENDING,
        deny=decides,
        withdraw=is_open and said == "agreed",
        cancel=own and is_open,
        execute=own and approval.state is ApprovalState.GRANTED and is_known,
    )

# SPDX-License-Identifier: MIT
"""Decision forms of an approval request: approve and deny."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hsm_core import wire
from hsm_core.errors import InvalidInputError
from hsm_core.operations import ApprovalInfo, Approve, Deny, Operation
from hsm_server.ui.fields import Field
from hsm_server.ui.forms import Form

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

# SPDX-License-Identifier: MIT
"""What may be said to a request for approval, as data: what it asks for and becomes."""

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
class Saying:
    """
    One thing that may be said to a request.

    Attributes:
        operation: What it becomes.
        field: The words that go with it.
        done: What is said when it was said.
        missing: What is said where the words are missing that it can't do without.
    """

    operation: type[Operation[ApprovalInfo]]
    field: Field
    done: str
    missing: str = ""


AGREE: Final = Saying(
    Approve,
    Field(
        name="comment",
        label="Comment",
        hint="Recorded in the trail; may be empty.",
        longest=_LONGEST,
    ),
    "You have agreed.",
)

REFUSE: Final = Saying(
    Deny,
    Field(
        name="reason",
        label="Reason",
        hint="Recorded in the trail. One refusal ends the request.",
        is_required=True,
        longest=_LONGEST,
    ),
    "You have refused.",
    missing="Say why you refuse; others will ask.",
)


def seen(form: Form, approval_id: str) -> Tree:
    """
    Return which approval is meant, and what was shown of it when it was decided on.

    Raises:
        InvalidInputError: The form does not say what was shown.
    """
    digest, generation = form["digest"], form.number("generation")
    if not digest or not generation:
        raise InvalidInputError("The form does not say what was shown.", field="digest")
    return {"approval_id": approval_id, "digest": digest, "generation": generation}


def operation_of(
    saying: Saying, approval_id: str, form: Form
) -> Operation[ApprovalInfo]:
    """
    Return the operation that a form asks for.

    Raises:
        InvalidInputError: The words are missing or break a rule, or the form does not
            say what was shown.
    """
    field = saying.field
    words = form.get(field.name).strip()
    if field.is_required and not words:
        raise InvalidInputError(saying.missing, field=field.name)
    return wire.convert(
        {**seen(form, approval_id), field.name: words}, saying.operation
    )

# SPDX-License-Identifier: MIT
"""
Actions: forms of the console that execute one operation each.

An action is declared once: its fields, its operation, its confirmation and its message.
Pages offer only the actions that make sense; the core authorizes each again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from hsm_core import wire
from hsm_core.errors import (
    AccessDeniedError,
    ConflictError,
    HSMError,
    InvalidInputError,
)
from hsm_core.model import KeyInfo, KeyState, VersionInfo
from hsm_core.operations import Operation
from hsm_server.ui.forms import Field, Form, fill_fields, mark_error
from hsm_server.ui.view import View
from hsm_server.vault.access import Who

S = TypeVar("S")
Tree: TypeAlias = dict[str, Any]
"""Fields of an operation by name; None means not given."""

CONFIRM: Final = "confirm"
"""Field with the text that confirms an irreversible action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Generic[S]):
    """
    A form that executes one operation on a subject, such as a key.

    Attributes:
        name: Name in the path.
        operation: Operation that it executes.
        title: Title of its page or section.
        verb: Label of its button.
        meaning: Its effect, and whether it is reversible.
        done: Message on success.
        is_offered: Whether a page offers it to a user.
        target: The operation's fields that identify the subject.
        fields: Fields of its form.
        read: Reads the operation's other fields from the form.
        confirmation: Text to type to confirm it, if it is irreversible.
        tone: Tone of its button: ``primary``, ``danger`` or empty.
        is_idempotent: Whether a form that is sent twice is executed once.
        has_generation: Whether the form names the generation of a key, which must be
            the current one.
    """

    name: str
    operation: type[Operation[Any]]
    title: str = ""
    verb: str = ""
    meaning: str = ""
    done: str = ""
    is_offered: Callable[[S, Who], bool] = lambda *_: True
    target: Callable[[S], Tree] = lambda _: {}
    fields: Callable[[S], Sequence[Field]] = lambda _: ()
    read: Callable[[Form, S], Tree] = lambda *_: {}
    confirmation: Callable[[S], str] | None = None
    tone: str = "primary"
    is_idempotent: bool = True
    has_generation: bool = True

    def form_fields(self, subject: S) -> Sequence[Field]:
        """Return the fields of the form, with the confirmation."""
        if self.confirmation is None:
            return self.fields(subject)
        confirmation = Field(
            name=CONFIRM,
            label=f"Type {self.confirmation(subject)} to confirm",
            hint="Irreversible.",
            is_required=True,
            longest=64,
        )
        return [*self.fields(subject), confirmation]

    def operation_for(self, subject: S) -> type[Operation[Any]]:
        """Return the operation that it executes on a subject."""
        return self.operation

    def build(self, form: Form, subject: S) -> Operation[Any]:
        """
        Return the operation of a submitted form.

        Raises:
            InvalidInputError: A field is invalid, or the confirmation is missing.
        """
        if self.confirmation is not None:
            expected = self.confirmation(subject)
            if form.get(CONFIRM).strip() != expected:
                raise InvalidInputError(
                    f"Type {expected} to confirm. No change was made.", field=CONFIRM
                )
        tree = {**self.read(form, subject), **self.target(subject)}
        given = {name: value for name, value in tree.items() if value is not None}
        return wire.convert(given, self.operation_for(subject))


class RejectedFormError(Exception):
    """
    A form was rejected; its page shows it again, with the error at its field.

    Args:
        action: The action.

        fields: Its fields, with the input and the error.

        error: Why it was rejected.
    """

    def __init__(
        self, action: Action[Any], fields: Sequence[Field], error: HSMError
    ) -> None:
        super().__init__(str(error))
        self.action = action
        self.fields = fields
        self.error = error


def fields_of(
    action: Action[S], subject: S, rejected: RejectedFormError | None
) -> Sequence[Field]:
    """Return the fields to show: those of a rejected form of this action, or new."""
    if rejected is not None and rejected.action is action:
        return rejected.fields
    return action.form_fields(subject)


async def submit(
    view: View, action: Action[S], subject: S, form: Form, *, approval_id: str = ""
) -> Any:
    """
    Execute the operation of a submitted form, and return its result.

    Args:
        view: The browser's request.

        action: The action.

        subject: Its subject.

        form: The form.

        approval_id: Approval to execute it under, or empty.

    Raises:
        RejectedFormError: A field is invalid, the key or the request has changed, or
            the user may not do it.
        HSMError: The operation failed for another reason.
    """
    try:
        return await view.execute(
            action.build(form, subject),
            idempotency_key=form.operation_id if action.is_idempotent else None,
            approval_id=approval_id,
            expected_generation=(
                form.number("key_generation") if action.has_generation else 0
            ),
        )
    except (AccessDeniedError, ConflictError, InvalidInputError) as error:
        fields = fill_fields(action.form_fields(subject), form)
        raise RejectedFormError(action, mark_error(fields, error), error) from None


@dataclass(frozen=True, slots=True)
class KeyWithVersions:
    """A key with its versions, oldest first."""

    key: KeyInfo
    versions: Sequence[VersionInfo]

    @property
    def confirmation_text(self) -> str:
        """Text to type to confirm an irreversible action."""
        return self.key.name or self.key.key_id[:8]

    @property
    def has_staged(self) -> bool:
        """Whether a version is staged."""
        return any(version.state is KeyState.STAGED for version in self.versions)

    @property
    def sources(self) -> Sequence[VersionInfo]:
        """Versions to roll back to, newest first."""
        return [
            version
            for version in reversed(self.versions)
            if version.version != self.key.version and version.state is KeyState.RETIRED
        ]

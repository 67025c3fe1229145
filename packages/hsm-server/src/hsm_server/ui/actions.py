# SPDX-License-Identifier: MIT
"""
Actions: forms of the console that execute one operation each.

An action is declared once: its fields, its operation, its confirmation and its message.
Pages offer only the actions that make sense; the core authorizes each again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import (
    AccessDeniedError,
    ConflictError,
    HSMError,
    InvalidInputError,
)
from hsm_core.model import KeyInfo, KeyState, VersionInfo
from hsm_core.operations import Operation
from hsm_server.ui.forms import Field, Form, fill_fields, mark_error, read_fields
from hsm_server.ui.view import Page, View
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
        verb: Label of its button.
        title: Title of its page or section; by default the label.
        meaning: Its effect, and whether it is reversible.
        done: Message on success.
        is_offered: Whether a page offers it to a user.
        target: The operation's fields that identify the subject.
        fields: Fields of its form, named as the operation's.
        read: Reads the operation's other fields from the form.
        is_partial: Whether unchanged fields are not fields of the operation.
        confirmation: Text to type to confirm it, if it is irreversible.
        tone: Tone of its button: ``primary``, ``danger`` or empty.
        is_idempotent: Whether a form that is sent twice is executed once.
        has_generation: Whether the form names the generation of a key, which must be
            the current one.
        approval_id: Approval to execute it under, or empty.
    """

    name: str
    operation: type[Operation[Any]]
    verb: str
    title: str = ""
    meaning: str = ""
    done: str = ""
    is_offered: Callable[[S, Who], bool] = lambda *_: True
    target: Callable[[S], Tree] = lambda _: {}
    fields: Callable[[S], Sequence[Field]] = lambda _: ()
    read: Callable[[Form, S], Tree] = lambda *_: {}
    is_partial: bool = False
    confirmation: Callable[[S], str] | None = None
    tone: str = "primary"
    is_idempotent: bool = True
    has_generation: bool = True
    approval_id: Callable[[S], str] = lambda _: ""

    @property
    def heading(self) -> str:
        """Title of its page or section."""
        return self.title or self.verb

    def own_fields(self, subject: S) -> Sequence[Field]:
        """Return the fields of the form, without the confirmation."""
        return self.fields(subject)

    def form_fields(self, subject: S) -> Sequence[Field]:
        """Return the fields of the form, with the confirmation."""
        if self.confirmation is None:
            return self.own_fields(subject)
        confirmation = Field(
            name=CONFIRM,
            label=f"Type {self.confirmation(subject)} to confirm",
            hint="Irreversible.",
            is_required=True,
            longest=64,
        )
        return [*self.own_fields(subject), confirmation]

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
        fields = self.own_fields(subject)
        tree = read_fields(fields, form)
        if self.is_partial:
            shown = Form({field.name: [field.value] for field in fields}, {})
            before = read_fields(fields, shown)
            tree = {name: v for name, v in tree.items() if v != before[name]}
        tree |= self.read(form, subject) | self.target(subject)
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


async def submit(view: View, action: Action[S], subject: S, form: Form) -> Any:
    """
    Execute the operation of a submitted form, and return its result.

    Raises:
        RejectedFormError: A field is invalid, the key or the request has changed, or
            the user may not do it.
        HSMError: The operation failed for another reason.
    """
    try:
        return await view.execute(
            action.build(form, subject),
            idempotency_key=form.operation_id if action.is_idempotent else None,
            approval_id=action.approval_id(subject),
            expected_generation=(
                form.number("key_generation") if action.has_generation else 0
            ),
        )
    except (AccessDeniedError, ConflictError, InvalidInputError) as error:
        fields = fill_fields(action.form_fields(subject), form)
        raise RejectedFormError(action, mark_error(fields, error), error) from None


@dataclass(frozen=True, slots=True)
class FormPages(Generic[S]):
    """
    Pages that execute the forms of actions on one kind of subject.

    Attributes:
        path: Path of a subject, in aiohttp's syntax.
        name: Name of the pages in log and metrics; ``{}`` is the action's.
        find: Returns the subject of a request, from path and form.
        show: Shows a subject again after a rejected form.
        target: Returns the path to open after an action, from subject and result.
    """

    path: str
    name: str
    find: Callable[[View, Form], Awaitable[S]]
    show: Callable[[View, S, RejectedFormError], Awaitable[web.Response]]
    target: Callable[[S, Any], str]

    def page(self, action: Action[S]) -> Page:
        """Return the page of an action; the last part of its path is the name."""

        async def execute(view: View) -> web.StreamResponse:
            form = await view.form()
            subject = await self.find(view, form)
            try:
                result = await submit(view, action, subject, form)
            except RejectedFormError as rejected:
                return await self.show(view, await self.find(view, form), rejected)
            return view.see_other(self.target(subject, result), action.done)

        path, name = f"{self.path}/{action.name}", self.name.format(action.name)
        return Page("POST", path, execute, name)


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

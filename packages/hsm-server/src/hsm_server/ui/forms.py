# SPDX-License-Identifier: MIT
"""Submitted forms: limited size, strict parsing."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from hsm_core.errors import InvalidInputError, MalformedError
from hsm_server.http.app_keys import SETTINGS
from hsm_server.http.bodies import read_body
from hsm_server.http.problems import RequestRefusedError
from hsm_server.ui.numbers import whole_number
from hsm_server.ui.parts import MULTIPART, read_parts

FORM_TOKEN: Final = "form_token"  # noqa: S105 (the name of a field)
"""Field with the CSRF token."""

OPERATION_ID: Final = "operation_id"
"""Field with the idempotency key, fresh on each page: a double click executes once."""

MOST_BYTES: Final = 256 * 1024
_MOST_FIELDS: Final = 256
_TYPE: Final = "application/x-www-form-urlencoded"


class Form:
    """
    A submitted form.

    Args:
        fields: Names and values, in order.

        files: Names of file fields, and their contents.
    """

    def __init__(
        self,
        fields: Mapping[str, Sequence[str]],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._fields = fields
        self._files = files or {}

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __getitem__(self, name: str) -> str:
        """
        Return a required field.

        Raises:
            InvalidInputError: It is missing or repeated.
        """
        if name not in self._fields:
            raise InvalidInputError(f"{name} is missing.", field=name)
        return self.get(name)

    def get(self, name: str, default: str = "") -> str:
        """
        Return a field, or *default* if missing.

        Raises:
            InvalidInputError: It is repeated.
        """
        given = self._fields.get(name, [default])
        if len(given) > 1:
            raise InvalidInputError(f"{name} must be given once.", field=name)
        return given[0]

    def all(self, name: str) -> Sequence[str]:
        """Return all values of a field, such as selected checkboxes."""
        return self._fields.get(name, ())

    def number(self, name: str) -> int:
        """
        Return a required whole number.

        Raises:
            InvalidInputError: It is missing, repeated or not a number.
        """
        return whole_number(self[name], name)

    def number_or_none(self, name: str) -> int | None:
        """
        Return a whole number, or None if empty.

        Raises:
            InvalidInputError: It is repeated or not a number.
        """
        text = self.get(name).strip()
        return whole_number(text, name) if text else None

    def file(self, name: str) -> bytes:
        """Return the content of a file; empty if none was chosen."""
        return self._files.get(name, b"")

    @property
    def operation_id(self) -> str:
        """Idempotency key of the form."""
        return self[OPERATION_ID]


async def read_form(request: web.Request) -> Form:
    """
    Return the submitted form.

    Raises:
        InvalidInputError: It is too large or malformed.
        RequestRefusedError: It is not a form, or the body timed out.
    """
    if request.content_type not in {_TYPE, MULTIPART}:
        raise RequestRefusedError(
            "unsupported_media_type", f"Content-Type must be {_TYPE}."
        )
    body = await read_body(
        request,
        "form",
        most_bytes=MOST_BYTES,
        seconds=request.app[SETTINGS].limits.body_timeout_seconds,
    )
    if request.content_type == MULTIPART:
        return _with_files(request.headers["Content-Type"], body)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise MalformedError("The form is malformed.") from None
    fields: dict[str, list[str]] = {}
    for name, text in pairs:
        fields.setdefault(name, []).append(_pasted(text))
    return Form(fields)


def _with_files(content_type: str, body: bytes) -> Form:
    fields: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    for part in read_parts(content_type, body):
        if part.is_file and part.name in files:
            raise InvalidInputError("Choose one file per field.", field=part.name)
        if part.is_file:
            files[part.name] = part.data
        else:
            fields.setdefault(part.name, []).append(_pasted(_text(part.data)))
    if len(files) + sum(map(len, fields.values())) > _MOST_FIELDS:
        raise MalformedError("The form is malformed.")
    return Form(fields, files)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedError("The form is malformed.") from None


def _pasted(text: str) -> str:
    """Return text with LF line breaks; browsers send CRLF."""
    return text.replace("\r\n", "\n")


def has_form_token(form: Form, expected: str) -> bool:
    """Return whether a form has the expected CSRF token."""
    given = form.get(FORM_TOKEN).encode("utf-8", "replace")
    return hmac.compare_digest(expected.encode(), given)

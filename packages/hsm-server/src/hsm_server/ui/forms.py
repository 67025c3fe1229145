# SPDX-License-Identifier: MIT
"""What a form has sent: small, read once, and never passed over in part."""

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
"""Field with the token that only our own pages have."""

OPERATION_ID: Final = "operation_id"
"""Field that is another each time a page is made: a double click does a thing once."""

MOST_BYTES: Final = 256 * 1024
_MOST_FIELDS: Final = 256
_TYPE: Final = "application/x-www-form-urlencoded"


class Form:
    """
    The fields of a form.

    Args:
        fields: Names, and what was given for each, in order.

        files: Names of fields for files, and what these hold.
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
        Return a field that a page always sends.

        Raises:
            InvalidInputError: It is missing, or given twice.
        """
        if name not in self._fields:
            raise InvalidInputError(f"The form has no {name}.", field=name)
        return self.get(name)

    def get(self, name: str, default: str = "") -> str:
        """
        Return a field, or *default* where it is missing.

        Raises:
            InvalidInputError: It is given twice.
        """
        given = self._fields.get(name, [default])
        if len(given) > 1:
            raise InvalidInputError(f"The form has {name} twice.", field=name)
        return given[0]

    def all(self, name: str) -> Sequence[str]:
        """Return all that was given for a field, such as boxes that were ticked."""
        return self._fields.get(name, ())

    def number(self, name: str) -> int:
        """
        Return a whole number that a page always sends.

        Raises:
            InvalidInputError: It is missing, given twice, or none.
        """
        return whole_number(self[name], name)

    def number_or_none(self, name: str) -> int | None:
        """
        Return a whole number, or None where nothing was given.

        Raises:
            InvalidInputError: It is given twice, or is none.
        """
        text = self.get(name).strip()
        return whole_number(text, name) if text else None

    def file(self, name: str) -> bytes:
        """Return what a file holds; nothing where none was chosen."""
        return self._files.get(name, b"")

    @property
    def operation_id(self) -> str:
        """What makes a repeated form the same operation: its idempotency key."""
        return self[OPERATION_ID]


async def read_form(request: web.Request) -> Form:
    """
    Return what a form has sent.

    Raises:
        InvalidInputError: It is too large, or can't be read.
        RequestRefusedError: It is no form, or did not arrive in time.
    """
    if request.content_type not in {_TYPE, MULTIPART}:
        raise RequestRefusedError("unsupported_media_type", f"This page takes {_TYPE}.")
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
        raise MalformedError("The form can't be read.") from None
    fields: dict[str, list[str]] = {}
    for name, text in pairs:
        fields.setdefault(name, []).append(_pasted(text))
    return Form(fields)


def _with_files(content_type: str, body: bytes) -> Form:
    fields: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    for part in read_parts(content_type, body):
        if part.is_file and part.name in files:
            raise InvalidInputError("The form has a file twice.", field=part.name)
        if part.is_file:
            files[part.name] = part.data
        else:
            fields.setdefault(part.name, []).append(_pasted(_text(part.data)))
    if len(files) + sum(map(len, fields.values())) > _MOST_FIELDS:
        raise MalformedError("The form can't be read.")
    return Form(fields, files)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedError("The form can't be read.") from None


def _pasted(text: str) -> str:
    """Return a text as it was typed: browsers send line breaks as CRLF."""
    return text.replace("\r\n", "\n")


def has_form_token(form: Form, expected: str) -> bool:
    """Return whether a form carries the token that it must."""
    given = form.get(FORM_TOKEN).encode("utf-8", "replace")
    return hmac.compare_digest(expected.encode(), given)

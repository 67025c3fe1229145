# SPDX-License-Identifier: MIT
"""Forms: fields, limits, strict parsing, and errors beside fields."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from hsm_core.errors import HSMError, InvalidInputError, MalformedError
from hsm_server.http.problems import RequestRefusedError
from hsm_server.http.requests import read_body
from hsm_server.http.state import SETTINGS

_MOST_DIGITS: Final = 15


def whole_number(
    text: str, field: str, problem: str = "Must be a whole number."
) -> int:
    """
    Parse a number of at most 15 decimal digits.

    Args:
        text: Text to parse.

        field: Name of the field.

        problem: Error message.

    Raises:
        InvalidInputError: It is not a number, or has more than 15 digits.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        raise InvalidInputError(problem, field=field)
    return int(text)


MULTIPART: Final = "multipart/form-data"
"""Media type of forms with files."""

_BOUNDARY: Final = re.compile(
    r'multipart/form-data; *boundary="?([0-9A-Za-z\'()+_,./:=?-]{1,70})"?',
    re.IGNORECASE,
)
_DISPOSITION: Final = re.compile(
    rb'content-disposition: *form-data; *name="([^"\r\n]+)"(; *filename="[^"\r\n]*")?',
    re.IGNORECASE,
)
_OTHER: Final = re.compile(rb"content-type: *[^\r\n]*", re.IGNORECASE)
_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """A form field: a file, possibly empty, or text."""

    name: str
    is_file: bool
    data: bytes


def read_parts(content_type: str, body: bytes) -> Iterator[Part]:
    """
    Yield the fields of a form, in order.

    Raises:
        MalformedError: It is malformed.
    """
    boundary = _BOUNDARY.fullmatch(content_type)
    if boundary is None:
        raise MalformedError("The form is malformed.")
    line = b"--" + boundary[1].encode()
    first, last = line + b"\r\n", b"\r\n" + line + b"--"
    inner = body.removesuffix(b"\r\n").removesuffix(last).removeprefix(first)
    if len(body.removesuffix(b"\r\n")) != len(first) + len(inner) + len(last):
        raise MalformedError("The form is malformed.")
    for part in inner.split(b"\r\n" + first):
        yield _part(part)


def _part(part: bytes) -> Part:
    head, end, data = part.partition(_END_OF_HEAD)
    lines = head.split(b"\r\n")
    disposition = _DISPOSITION.fullmatch(lines[0])
    if not end or disposition is None or not all(map(_OTHER.fullmatch, lines[1:])):
        raise MalformedError("The form is malformed.")
    return Part(
        disposition[1].decode("utf-8", "replace"), disposition[2] is not None, data
    )


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


_BOUND: Final = re.compile(r"(?P<length>of length )?(?P<sign>[<>]=) (?P<number>\d+)")
_BOUNDS: Final = {"<=": "At most", ">=": "At least"}


@dataclass(frozen=True, slots=True)
class Option:
    """A value of a list, or a checkbox."""

    value: str
    label: str
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """
    A form field.

    Attributes:
        kind: ``text``, ``number``, ``area``, ``select``, ``boxes``, ``box`` (a single
            checkbox), ``date``, ``instant`` or ``file``.
        longest: Maximum number of characters, or 0 for no limit.
        is_beside: Whether it belongs to the previous field.
        error: Error of its value, or empty.
    """

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    value: str = ""
    options: tuple[Option, ...] = ()
    is_required: bool = False
    longest: int = 0
    is_beside: bool = False
    error: str = ""


def fill_fields(fields: Iterable[Field], form: Form) -> Sequence[Field]:
    """Return the fields with the submitted values."""
    return [_filled(field, form) for field in fields]


def _filled(field: Field, form: Form) -> Field:
    given = form.all(field.name)
    options = tuple(
        Option(option.value, option.label, option.value in given)
        for option in field.options
    )
    return replace(field, value=given[0] if given else "", options=options)


def mark_error(fields: Iterable[Field], error: HSMError) -> Sequence[Field]:
    """Return the fields with an error at the field that it names, if any."""
    wrong = str(error.facts.get("field", "")).partition("[")[0].partition(".")[0]
    return [
        replace(field, error=error_message(error)) if field.name == wrong else field
        for field in fields
    ]


def error_message(error: HSMError) -> str:
    """Return an error message without types and patterns."""
    text = str(error)
    if "Expected `" not in text:
        return text
    bound = _BOUND.search(text)
    if bound is None:
        return "Invalid value."
    unit = " characters" if bound["length"] else ""
    return f"{_BOUNDS[bound['sign']]} {bound['number']}{unit}."


def read_utc(form: Form, name: str) -> str | None:
    """Return an instant without a zone as UTC (RFC 3339)."""
    text = form.get(name).strip()
    if not text:
        return None
    return f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"


def read_tags(form: Form, name: str) -> list[str]:
    """Return tags separated by commas or spaces."""
    return form.get(name).replace(",", " ").split()

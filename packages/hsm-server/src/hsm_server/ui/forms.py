# SPDX-License-Identifier: MIT
"""Forms: fields, limits, strict parsing, and errors beside fields."""

from __future__ import annotations

import asyncio
import hmac
import re
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import Any, Final
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError

from hsm_core.errors import (
    HSMError,
    InvalidInputError,
    MalformedError,
    PayloadTooLargeError,
)
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

FORM_TOKEN: Final = "form_token"  # noqa: S105 (the name of a field)
"""Field with the CSRF token."""

OPERATION_ID: Final = "operation_id"
"""Field with the idempotency key, fresh on each page: a double click executes once."""

MOST_BYTES: Final = 256 * 1024
_MOST_FIELDS: Final = 256
_TYPE: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, repr=False)
class Form:
    """
    A submitted form.

    Attributes:
        fields: Names and values, in order.
        files: Names of file fields, and their contents.
    """

    fields: Mapping[str, Sequence[str]]
    files: Mapping[str, bytes]

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def __getitem__(self, name: str) -> str:
        """
        Return a required field.

        Raises:
            InvalidInputError: It is missing or repeated.
        """
        if name not in self.fields:
            raise InvalidInputError(f"{name} is missing.", field=name)
        return self.get(name)

    def get(self, name: str, default: str = "") -> str:
        """
        Return a field, or *default* if missing.

        Raises:
            InvalidInputError: It is repeated.
        """
        given = self.fields.get(name, [default])
        if len(given) > 1:
            raise InvalidInputError(f"{name} must be given once.", field=name)
        return given[0]

    def all(self, name: str) -> Sequence[str]:
        """Return all values of a field, such as selected checkboxes."""
        return self.fields.get(name, ())

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
        return self.files.get(name, b"")

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
        return await read_multipart(request.headers["Content-Type"], body)
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
    return Form(fields, {})


async def read_multipart(content_type: str, body: bytes) -> Form:
    """
    Return a form with files.

    Files may be secret, so they stay in memory; ``request.post()`` of aiohttp would
    write them to disk.

    Raises:
        MalformedError: It is malformed, has too many fields or several files in one.

    Standard:
        RFC 7578.
    """
    loop = asyncio.get_running_loop()
    stream = aiohttp.StreamReader(BaseProtocol(loop), len(body) + 1, loop=loop)
    stream.feed_data(body)
    stream.feed_eof()
    fields: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They would repeat malformed input.
        try:
            reader = aiohttp.MultipartReader({"Content-Type": content_type}, stream)
            for _ in range(_MOST_FIELDS + 1):
                part = await reader.next()
                if part is None:
                    return Form(fields, files)
                if not isinstance(part, aiohttp.BodyPartReader) or not part.name:
                    break
                data = bytes(await part.read())
                if part.filename is None:
                    fields.setdefault(part.name, []).append(_pasted(data.decode()))
                elif files.setdefault(part.name, data) is not data:
                    break
        except (HttpProcessingError, LookupError, RuntimeError, ValueError):
            pass
    raise MalformedError("The form is malformed.")


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
        kind: ``text``, ``number``, ``area``, ``select``, ``version`` (a selected key
            version), ``boxes``, ``box`` (a single checkbox), ``tags``, ``date``,
            ``instant``, ``bytes``, ``context`` or ``file``.
        is_required: Whether it must not be empty.
        longest: Maximum number of characters, or 0 for no limit.
        is_beside: Whether it belongs to the previous field, which reads it.
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


def read_fields(fields: Iterable[Field], form: Form) -> dict[str, Any]:
    """
    Return the values of fields by name; None means not given.

    Raises:
        InvalidInputError: A value is missing or invalid.
        PayloadTooLargeError: An input is longer than `MOST_INPUT_BYTES`.
    """
    found = {}
    for field in fields:
        if field.is_beside:
            continue
        value = _READERS.get(field.kind, _text)(form, field.name)
        if field.is_required and not value:
            problem = f"Required: {field.label.lower()}."
            raise InvalidInputError(problem, field=field.name)
        found[field.name] = value
    return found


def _text(form: Form, name: str) -> str:
    return form.get(name).strip()


def _utc(form: Form, name: str) -> str | None:
    """Return an instant without a zone as UTC (RFC 3339)."""
    text = _text(form, name)
    if not text:
        return None
    return f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"


def _end_of_day(form: Form, name: str) -> str:
    try:
        day = datetime.strptime(form[name], "%Y-%m-%d").date()
    except ValueError:
        raise InvalidInputError(
            f"{name} must be a date, such as 2031-12-31.", field=name
        ) from None
    return datetime.combine(day, time(23, 59, 59), UTC).isoformat()


MOST_INPUT_BYTES: Final = 64 * 1024
"""Maximum length of an input of bytes."""

_ENCODINGS: Final[Mapping[str, Callable[[str], bytes]]] = {
    "text": str.encode,
    "base64": lambda text: b64decode("".join(text.split()), validate=True),
    "hex": bytes.fromhex,
}
ENCODINGS: Final = tuple(_ENCODINGS)
"""Encodings of an input of bytes."""


def _bytes(form: Form, name: str) -> bytes:
    """
    Return the bytes of a field, or of the file ``<name>_file``.

    ``<name>_form`` is the field's encoding.
    """
    text, data = form.get(name), form.file(f"{name}_file")
    encoding = form.get(f"{name}_form", "text")
    if text and data:
        raise InvalidInputError("Enter text or choose a file, not both.", field=name)
    if encoding not in _ENCODINGS:
        raise InvalidInputError("Encoding must be text, base64 or hex.", field=name)
    try:
        data = data or _ENCODINGS[encoding](text)
    except ValueError:
        raise InvalidInputError(f"Not valid {encoding}.", field=name) from None
    if len(data) > MOST_INPUT_BYTES:
        raise PayloadTooLargeError(name, actual=len(data), maximum=MOST_INPUT_BYTES)
    return data


_READERS: Final[Mapping[str, Callable[[Form, str], Any]]] = {
    "area": Form.get,
    "box": Form.__contains__,
    "boxes": lambda form, name: list(form.all(name)),
    "bytes": _bytes,
    "context": lambda form, name: form.get(name).encode() or None,
    "date": _end_of_day,
    "instant": _utc,
    "number": Form.number_or_none,
    "select": lambda form, name: form.get(name) or None,
    "tags": lambda form, name: form.get(name).replace(",", " ").split(),
    "version": Form.number_or_none,
}
"""Reader of each kind of field; others are text."""

# SPDX-License-Identifier: MIT
"""
Strict parser of multipart/form-data (RFC 7578), as browsers send it.

Files may be secret: aiohttp's request reader writes them to disk, and its multipart
reader repeats malformed input in warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hsm_core.errors import MalformedError

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

# SPDX-License-Identifier: MIT
"""
What a line of the log may hold: known fields with plain values, and nothing else.

So a field that somebody adds in haste, such as a whole request or a token, does not
reach the log before it has a line in this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TypeAlias

Plain: TypeAlias = str | int | float | bool | list[str] | None
"""What a field may be."""

FIELDS: Final[Mapping[str, str]] = {
    "event": "What happened; a fixed phrase.",
    "level": "`debug`, `info`, `warning` or `error`.",
    "timestamp": "When, ISO 8601, UTC.",
    "process": "Which process of the server, where there are several.",
    "request_id": "Id of the request, which also stands in the trail and the answer.",
    "trace_id": "Id of the trace (W3C), if the request belongs to one.",
    "method": "HTTP method.",
    "operation": "Name of the operation or page.",
    "principal": "Who asked, as the token says.",
    "status": "HTTP status, or the exit status of a process.",
    "code": "`ok`, or the code of the problem.",
    "milliseconds": "How long it took.",
    "error": "Type of an exception; never what it says.",
    "place": "Where it was raised: file, line, function.",
    "error_place": "The same, behind the record of a library.",
    "library": "Name of the library that said something.",
    "reason": "Why, in a sentence of ours.",
    "child": "Which process it is about.",
    "memory_locked": "Whether the vault's memory is kept out of swap.",
    "port": "Where it listens.",
    "maximum": "A limit that was reached.",
    "part": "Which part of TLS.",
    "task": "Which recurring task.",
    "names": "Names that a certificate is for.",
    "not_after": "Until when something is valid.",
    "ends_at": "The same.",
    "issuer": "Who has signed a certificate or list.",
    "about": "Whose certificate was asked after.",
    "fault": "What is wrong with an answer of a CA or responder.",
    "left_out": "Names of fields that are not in this table; their values are lost.",
}
"""Every field, and what it tells."""

MASK: Final = "***"
"""Stands for what looks like a secret."""

MOST_CHARACTERS: Final = 1024
"""Longest value of a field; a longer one is cut."""

_MOST: Final = 2**63
_MOST_LOOKED_AT: Final = 64 * 1024
_SECRETS: Final = re.compile(
    r"eyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]*"  # a JWT: the rest begins with {" in base64url
    r"|\bBearer\s+\S+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL | re.IGNORECASE,
)


def plain_fields(
    logger: object, method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Return what may be written of a line's fields; a processor of structlog."""
    kept = {name: _plain(fields[name]) for name in fields if name in FIELDS}
    if len(kept) < len(fields):
        kept["left_out"] = sorted(_text(name) for name in fields.keys() - FIELDS.keys())
    return kept


def _plain(value: object) -> Plain:
    """Return a value that is not looked into any further."""
    match value:
        case bool() | int() | float() | None:
            return value if _is_written(value) else f"<{type(value).__name__}>"
        case str():
            return _text(value)
        case list() | tuple():
            return [_text(item) for item in value if isinstance(item, str)]
        case _:
            # Its repr may tell anything.
            return f"<{type(value).__name__}>"


def _is_written(value: float | None) -> bool:
    """Return whether JSON has a word for a number."""
    return value is None or abs(value) < _MOST


def _text(value: str) -> str:
    """Return text in one line, cut, and without what looks like a secret."""
    masked = _SECRETS.sub(MASK, str(value)[:_MOST_LOOKED_AT])
    if len(masked) > MOST_CHARACTERS:
        masked = masked[:MOST_CHARACTERS] + "…"
    if masked.isprintable():
        return masked
    return "".join(map(_shown, masked))


def _shown(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04x}"

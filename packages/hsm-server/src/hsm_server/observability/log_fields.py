# SPDX-License-Identifier: MIT
"""
Allowed fields of the log, with plain values.

A field that is added by mistake, such as a whole request or a token, does not reach the
log before it is in this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TypeAlias

Plain: TypeAlias = str | int | float | bool | list[str] | None
"""Types of field values."""

FIELDS: Final[Mapping[str, str]] = {
    "event": "Event name, a fixed phrase.",
    "level": "`debug`, `info`, `warning` or `error`.",
    "timestamp": "When, ISO 8601, UTC.",
    "process": "Process of the server that wrote the line, if there are several.",
    "request_id": "Request ID, also in the audit record and the response.",
    "trace_id": "Trace ID (W3C), if the request belongs to a trace.",
    "method": "HTTP method.",
    "operation": "Name of the operation or page.",
    "principal": "Subject of the caller's credential.",
    "status": "HTTP status of a response, or exit status of a process.",
    "code": "`ok`, or the code of the problem.",
    "milliseconds": "Duration, in milliseconds.",
    "error": "Type of an exception, without its message.",
    "place": "Place where it was raised: file, line, function.",
    "error_place": "Place where it was raised, for a library's log record.",
    "library": "Name of the library that logged the message.",
    "reason": "Reason, as a sentence.",
    "child": "Process that the event is about.",
    "memory_locked": "Whether the memory of the vault is locked (kept out of swap).",
    "port": "Address that the server listens on.",
    "maximum": "Limit that was reached.",
    "part": "Part of TLS that the event is about.",
    "task": "Background task that the event is about.",
    "names": "Names in a certificate.",
    "not_after": "End of validity.",
    "ends_at": "End of validity.",
    "issuer": "Issuer of a certificate or revocation list.",
    "about": "Certificate that an OCSP query was about.",
    "fault": "Fault in the response of a CA or responder.",
    "left_out": "Names of fields missing from this table; their values are dropped.",
}
"""All fields, with their meaning."""

MASK: Final = "***"
"""Replaces anything that looks like a secret."""

MOST_CHARACTERS: Final = 1024
"""Maximum length of a value; longer ones are truncated."""

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
    """Return the allowed fields of a line; a processor of structlog."""
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

# SPDX-License-Identifier: MIT
"""
Server log on standard error; not the audit log.

A line contains only the fields of `FIELDS` with plain values, never a token, a body or
the value of a variable: a field that is added by mistake, such as a whole request, does
not reach the log before it is in this table. Only `capture_foreign`, which a program
calls once, changes global state.
"""

from __future__ import annotations

import asyncio
import logging
import re
import select
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol, TextIO, TypeAlias

from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.observability.places import location

# Where rich is installed, structlog loads its 70 modules, for tracebacks that no log of
# ours has.
_hidden = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
import structlog  # noqa: E402

if _hidden:
    del sys.modules["rich"]

Plain: TypeAlias = str | int | float | bool | list[str] | None
"""Types of field values."""

FIELDS: Final[Mapping[str, str]] = {
    "event": "Event name, a fixed phrase.",
    "level": "`debug`, `info`, `warning` or `error`.",
    "timestamp": "Time, ISO 8601, UTC.",
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
    "memory_locked": "True if the vault's memory is locked (kept out of swap).",
    "port": "Address that the server listens on.",
    "maximum": "Limit that was reached.",
    "part": "Part of TLS that the event is about.",
    "step": "Step of the start that begins.",
    "task": "Background task that the event is about.",
    "names": "Names in a certificate.",
    "not_after": "Expiry of a certificate.",
    "ends_at": "Expiry of a revocation list.",
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

_PATIENCE_MILLISECONDS: Final = 200
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
    if _are_plain(fields):
        return fields
    kept = {name: _plain(fields[name]) for name in fields if name in FIELDS}
    if len(kept) < len(fields):
        kept["left_out"] = sorted(_text(name) for name in fields.keys() - FIELDS.keys())
    return kept


def _are_plain(fields: Mapping[str, Any]) -> bool:
    """Return whether a line can be written as it is, as most can."""
    if not fields.keys() <= FIELDS.keys():
        return False
    text = ""
    for value in fields.values():
        kind = type(value)
        if kind is str:
            text += value
        elif kind is not bool and not (kind in {int, float} and abs(value) < _MOST):
            return False
    is_short = len(text) <= MOST_CHARACTERS
    return is_short and text.isprintable() and not _may_hold_secret(text)


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
    masked = str(value)[:_MOST_LOOKED_AT]
    if _may_hold_secret(masked):
        masked = _SECRETS.sub(MASK, masked)
    if len(masked) > MOST_CHARACTERS:
        masked = masked[:MOST_CHARACTERS] + "…"
    if masked.isprintable():
        return masked
    return "".join(map(_shown, masked))


def _may_hold_secret(text: str) -> bool:
    """Return whether text has the beginning of a secret; searching it takes longer."""
    lower = text.lower()
    return "eyj" in lower or "beare" in lower or "-----be" in lower


def _shown(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04x}"


_LEVELS: Final = logging.getLevelNamesMapping()


class Logger(Protocol):
    """Logger interface of the server."""

    def debug(self, event: str, **fields: Any) -> None:
        """Log details for debugging."""

    def info(self, event: str, **fields: Any) -> None:
        """Log a normal event."""

    def warning(self, event: str, **fields: Any) -> None:
        """Log a problem for operators."""

    def error(self, event: str, **fields: Any) -> None:
        """Log a fault."""


class _Stream:
    """
    Stream that stops nothing: neither one that is closed, nor one that is not read.

    While nobody reads it, such as a terminal after Ctrl-S, its lines are lost.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._patience = _PATIENCE_MILLISECONDS

    def msg(self, message: str) -> None:
        if self._stream is None or not self._has_room(self._stream):
            return
        try:
            self._stream.write(message + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = msg

    def _has_room(self, stream: TextIO) -> bool:
        """Return whether a line can be written, as far as the stream can tell."""
        room = select.poll()
        try:
            room.register(stream, select.POLLOUT)
            # A slow reader is waited for, and one that has stopped is waited for once.
            is_ready = bool(room.poll(self._patience))
        except (OSError, ValueError):
            return True  # It has no descriptor, or the process may have none.
        self._patience = _PATIENCE_MILLISECONDS if is_ready else 0
        return is_ready


def make_logger(
    stream: TextIO | None, level: LogLevel, form: LogFormat, *, process: str = ""
) -> Logger:
    """
    Return a logger that writes lines of JSON, or readable ones, to *stream*.

    Where the server is several processes, each line says which one it is from.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if form is LogFormat.JSON
        else structlog.processors.LogfmtRenderer(bool_as_flag=False)
    )
    wrapped: Logger = structlog.wrap_logger(
        _Stream(stream),
        processors=[
            plain_fields,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.upper()]),
        context_class=dict,
    ).bind(**({"process": process} if process else {}))
    return wrapped


def loop_exception_handler(
    logger: Logger, judge: Callable[[BaseException | None], None] | None = None
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """
    Return the handler of uncaught exceptions in an event loop.

    Args:
        logger: Receives the events.

        judge: Is given each such exception first; it may end the process.
    """

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if judge is not None:
            judge(error)
        logger.warning(
            "loop",
            error=type(error).__name__,
            place=location(error.__traceback__) if error is not None else "",
        )

    return handle


class _ForeignHandler(logging.Handler):
    """Handler of libraries' log records; drops their arguments and tracebacks."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log that a library said something, and where."""
        error = record.exc_info[1] if record.exc_info else None
        self._logger.warning(
            "library",
            library=record.name,
            place=f"{record.filename}:{record.lineno}",
            error=type(error).__name__ if error is not None else "",
            error_place=location(error.__traceback__) if error is not None else "",
        )


def capture_foreign(logger: Logger) -> None:
    """Send what libraries log through :mod:`logging`, and warn of, to *logger*."""
    root = logging.getLogger()
    root.handlers = [_ForeignHandler(logger)]
    root.setLevel(logging.WARNING)
    # Of a strange certificate cryptography warns, and not in a line of the log.
    logging.captureWarnings(True)

# SPDX-License-Identifier: MIT
"""
Server log on standard error; not the audit log.

A line contains only the fields of `FIELDS` with plain values, never a token, a body or
the value of a variable. Only `capture_foreign`, which a program calls once, changes
global state.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, Protocol, TextIO

from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.observability.log_fields import plain_fields

# Where rich is installed, structlog loads its 70 modules, for tracebacks that no log of
# ours has.
_hidden = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
import structlog  # noqa: E402

if _hidden:
    del sys.modules["rich"]

_LEVELS: Final = logging.getLevelNamesMapping()


class Logger(Protocol):
    """Logger interface of the server."""

    def debug(self, event: str, **fields: Any) -> None:
        """Log something that helps to find faults."""

    def info(self, event: str, **fields: Any) -> None:
        """Log something that is as it should be."""

    def warning(self, event: str, **fields: Any) -> None:
        """Log something that an operator should look at."""

    def error(self, event: str, **fields: Any) -> None:
        """Log a fault."""


class _Stream:
    """Stream that ignores write errors, so that a closed one stops nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(message + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = msg


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
        cache_logger_on_first_use=True,
        **({"process": process} if process else {}),
    )
    return wrapped


def location(traceback: TracebackType | None) -> str:
    """Return the innermost place of a traceback as ``file:line``, and nothing else."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return f"{PurePath(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}"


def loop_exception_handler(
    logger: Logger, judge: Callable[[BaseException | None], None] | None = None
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """
    Return the handler of uncaught exceptions in an event loop.

    Args:
        logger: Where to.

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

# SPDX-License-Identifier: MIT
"""Messages of the command on its standard streams."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from hsm_core.errors import HSMError, IntegrityError, UnavailableError
from hsm_server.text import escaped


def plug_standard_streams() -> None:
    """Open closed standard streams, so that no file takes their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def open_closed_output() -> None:
    """Have every write to a closed standard output fail, where Python drops it."""
    if sys.stdout is None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        sys.stdout = open(descriptor, "w")


def say(message: str, *, err: bool = True) -> None:
    """Write a line; ignores a closed stream."""
    stream: TextIO | None = sys.stderr if err else sys.stdout
    if stream is None:
        return
    try:
        stream.write(f"hsm-server: {escaped(message)}\n")
        stream.flush()
    except (OSError, ValueError):
        drop_unwritable(stream)


def announce(url: str) -> None:
    """Announce the URL on standard output."""
    say(f"listening on {url}", err=False)


def drop_unwritable(*streams: TextIO | None) -> None:
    """Drop what a stream does not take, or the interpreter fails on it at its end."""
    for stream in streams:
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def sentence(error: HSMError) -> str:
    """Return the message, with where the damage is, or why, if the message lacks it."""
    text = str(error)
    if isinstance(error, UnavailableError):
        reason = _reason(error)
        return f"{text} ({reason})" if reason else text
    if isinstance(error, IntegrityError):
        missing = [
            f"{name} {value}"
            for name, value in error.facts.items()
            if str(value) not in text
        ]
        if missing:
            return f"{text} ({', '.join(missing)})"
    return text


def _reason(error: BaseException) -> str:
    """Return the operating system's message behind an error, if any."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    # What it says beyond its number may come from a store that is not ours.
    return os.strerror(cause.errno) if cause is not None and cause.errno else ""

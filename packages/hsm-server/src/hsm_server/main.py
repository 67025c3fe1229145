# SPDX-License-Identifier: MIT
"""The command ``hsm-server``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn, TextIO

import click
from click.core import ParameterSource

from hsm_core.errors import HSMError, IntegrityError, UnavailableError
from hsm_core.secret_input import is_literal_secret, read_secret
from hsm_server.__about__ import __version__
from hsm_server.bootstrap import serve
from hsm_server.exit_codes import ExitCode, exit_code_of
from hsm_server.logs import location
from hsm_server.options import (
    SECRET_OPTIONS,
    UNAVAILABLE,
    check_places,
    environment_name,
    options,
    settings_from,
)
from hsm_server.settings import Secrets

__all__ = ["main"]

_HELP = """
Serve an HSM over HTTPS (TLS 1.3), with bearer tokens (JWT, HS256).

A SECRET is standard base64, 'text:' before a plain secret, '@FILE' (mode 0600), or
'fd:N'. Given on the command line itself it works, and everybody on this machine can
read it.
"""
_EPILOG = f"""
Known from FerroHSM, not available in this version, and refused when given:
{", ".join(f"--{flag}" for flag in UNAVAILABLE)}.
"""


def _run(**values: Any) -> None:
    _plug_standard_streams()
    os.umask(0o077)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    context = click.get_current_context()
    check_places(context, values["key_store"])
    try:
        settings = settings_from(values)
        secrets = _read_secrets(context, values)
        values.clear()
        serve(settings, secrets, on_ready=_announce)
        _drop_unwritable(sys.stdout, sys.stderr)
    except HSMError as error:
        _fail(_sentence(error), exit_code_of(error))
    except Exception as error:
        place = location(error.__traceback__)
        _fail(f"unexpected {type(error).__name__} at {place}.", ExitCode.FAILED)


def _read_secrets(context: click.Context, values: dict[str, Any]) -> Secrets:
    """Read the secrets, and leave none in the environment."""
    try:
        for flag in SECRET_OPTIONS:
            _warn_of_literal(context, flag, values)
        return Secrets(
            master_key=read_secret(
                values["master_key"], field="master-key", minimum=32, exact=32
            ),
            hmac_key=read_secret(
                values["hmac_key"], field="hmac-key", minimum=32, exact=32
            ),
            jwt_secret=read_secret(
                values["auth_jwt_secret"],
                field="auth-jwt-secret",
                minimum=32,
                exact=None,
            ),
        )
    finally:
        for flag in SECRET_OPTIONS:
            os.environ.pop(environment_name(flag), None)


def _warn_of_literal(context: click.Context, flag: str, values: dict[str, Any]) -> None:
    name = flag.replace("-", "_")
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE and is_literal_secret(values[name]):
        _say(
            f"warning: --{flag} stands on the command line, where others can read it; "
            f"use {environment_name(flag)}, @FILE or fd:N."
        )


def _plug_standard_streams() -> None:
    """Let no file of ours take the number of a standard stream that was closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _say(message: str, *, err: bool = True) -> None:
    """Write a line; that nobody can read it stops nothing."""
    try:
        click.echo(f"hsm-server: {message}", err=err)
    except (OSError, ValueError):
        _drop_unwritable(sys.stderr if err else sys.stdout)


def _drop_unwritable(*streams: TextIO | None) -> None:
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


def _announce(url: str) -> None:
    _say(f"listening on {url}", err=False)


def _sentence(error: HSMError) -> str:
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
    """Return what the operating system said, if it is behind an error."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    # What it says beyond its number may come from a store that is not ours.
    return os.strerror(cause.errno) if cause is not None and cause.errno else ""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End a start that is still under way; the running server drains instead."""
    raise SystemExit(ExitCode.OK)


def _fail(message: str, code: ExitCode) -> NoReturn:
    _say(f"error: {message}")
    raise SystemExit(code)


main = click.Command(
    "hsm-server",
    params=options(),
    callback=_run,
    help=_HELP,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
click.version_option(__version__, prog_name="hsm-server")(main)

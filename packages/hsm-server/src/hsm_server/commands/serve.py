# SPDX-License-Identifier: MIT
"""Command ``serve``: options, secrets and startup."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec
from click.core import ParameterSource

from hsm_core.errors import ConfigurationError, EntropyUnavailableError, HSMError
from hsm_core.secret_input import is_literal_secret
from hsm_server.config.annotations import build
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.file import check_places, config_option, take_store
from hsm_server.config.loading import (
    SIGN_IN,
    TOKEN_KEYS,
    check_sign_in,
    metrics_warning,
    root_warning,
    settings_from,
)
from hsm_server.config.options import (
    UNAVAILABLE,
    ServerCommand,
    environment_name,
    options,
    secret_flags,
)
from hsm_server.config.settings import LaunchSettings, ServerSettings
from hsm_server.development import dev_option, development_of
from hsm_server.identity.issuer_config import load_token_issuers
from hsm_server.identity.oidc_config import load_oidc_config
from hsm_server.observability.places import location
from hsm_server.starting import Start, start
from hsm_server.system.secret_handover import TOKEN_SECRET, SecretBox, for_stores
from hsm_server.system.standard_streams import (
    drop_unwritable,
    plug_standard_streams,
    say,
    sentence,
)

_HELP = """
Run the HSM as an HTTPS service (TLS 1.3) with bearer tokens (JWT).

A SECRET is standard base64, 'text:' followed by a plain secret, '@FILE' (mode 0600), or
'fd:N'. Secrets on the command line are readable by every user of this machine.
"""
_EPILOG = f"""
SIGTERM stops the server gracefully. SIGHUP reloads certificates, private keys,
revocation lists, OCSP responses, token keys and policies, and starts a retention sweep.
SIGUSR1 accepts the current wall clock for token expiry after it was set back.

Not available in this version, and rejected:
{", ".join(f"--{flag}" for flag in UNAVAILABLE)}.
"""


def _run(**values: Any) -> None:
    started = time.monotonic()
    # It resets the clock of a server that runs; until then there is none to reset.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    plug_standard_streams()
    os.umask(0o077)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    context = click.get_current_context()
    development = development_of(context)
    check_places(context, values)
    _check_token_keys(values)
    try:
        _check_randomness()
        password = _take_password(context, values)
        settings, launched = settings_from(values), build(LaunchSettings, values)
        settings = _with_provider(settings, launched.oidc_config)
        settings = _with_issuers(settings, launched.token_issuers)
        for warning in (metrics_warning(settings), root_warning(launched)):
            if warning:
                say(f"warning: {warning}")
        box = _take_secrets(context, values, settings, password)
        what = Start(settings=settings, box=box, launch=launched, started=started)
        if development is None:
            start(what)
        else:
            with development.running(settings.bind.host):
                start(development.adapt(what))
        drop_unwritable(sys.stdout, sys.stderr)
    except HSMError as error:
        _fail(sentence(error), exit_code_of(error))
    except Exception as error:
        place = location(error.__traceback__)
        _fail(f"unexpected {type(error).__name__} at {place}.", ExitCode.FAILED)


def _check_randomness() -> None:
    """
    Draw something, for what comes has no good words for a system that gives nothing.

    Raises:
        EntropyUnavailableError: getrandom(2) fails, for Python or for OpenSSL.
    """
    # Only this check needs ssl, which is slow to load.
    import ssl

    try:
        os.urandom(1)
        ssl.RAND_bytes(1)
    except OSError as error:
        raise EntropyUnavailableError from error


def _with_provider(settings: ServerSettings, config: Path | None) -> ServerSettings:
    if config is None:
        return settings
    return msgspec.structs.replace(settings, oidc=load_oidc_config(config))


def _with_issuers(settings: ServerSettings, config: Path | None) -> ServerSettings:
    if config is None:
        return settings
    return msgspec.structs.replace(settings, token_issuers=load_token_issuers(config))


def _take_password(context: click.Context, values: dict[str, Any]) -> str:
    """Take the password out of the address of all stores, and the environment."""
    given, password = values["store"], take_store(values)
    source = context.get_parameter_source("store")
    if password and source is ParameterSource.COMMANDLINE and is_literal_secret(given):
        say(
            "warning: other users can read the password of --store on the command "
            f"line. Use {environment_name('store')}, @FILE, PGPASSWORD or a password "
            "file."
        )
    os.environ.pop(environment_name("store"), None)
    return password


def _take_secrets(
    context: click.Context,
    values: dict[str, Any],
    settings: ServerSettings,
    password: str,
) -> SecretBox:
    """Take in the secrets, and leave none in the environment."""
    found = for_stores(settings.core, os.environ)
    if password:
        # Where the driver looks for it, as it does for other names of the same kind.
        found["PGPASSWORD"] = password
    given: dict[str, str] = {}
    try:
        for flag in secret_flags():
            _warn_of_literal(context, flag, values)
            value = values.pop(flag.replace("-", "_"))
            if value is not None:
                given[flag] = value
        if values["auth_jwt_config"] is not None or values["auth_jwt_jwks_url"]:
            given.pop(TOKEN_SECRET, None)
        return SecretBox.of(given, found)
    finally:
        for flag in secret_flags():
            os.environ.pop(environment_name(flag), None)
        os.environ.pop("PGPASSWORD", None)


def _check_token_keys(values: dict[str, Any]) -> None:
    """
    Check that there is a way to authenticate, and say what is ignored or rejected.

    Raises:
        click.UsageError: There is none.
    """
    try:
        check_sign_in(values)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    if not any(map(values.get, SIGN_IN[:-1])):
        say(
            "note: no token keys are configured, so every bearer token is "
            "rejected. Clients must use certificates "
            "(--client-cert-identities)."
        )
    sources = [name for name in TOKEN_KEYS[:-1] if values[name]]
    if sources and values[TOKEN_KEYS[-1]] is not None:
        say(
            "warning: --auth-jwt-secret (FERROHSM_JWT_SECRET) is ignored, "
            f"because --{sources[0].replace('_', '-')} sets the token keys."
        )


def _warn_of_literal(context: click.Context, flag: str, values: dict[str, Any]) -> None:
    name = flag.replace("-", "_")
    source = context.get_parameter_source(name)
    if source is not ParameterSource.COMMANDLINE:
        return
    if is_literal_secret(values[name]):
        say(
            f"warning: other users can read --{flag} on the command line. Use "
            f"{environment_name(flag)}, @FILE or fd:N."
        )


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End a start that is still under way; the running server drains instead."""
    raise SystemExit(ExitCode.OK)


def _fail(message: str, code: ExitCode) -> NoReturn:
    say(f"error: {message}")
    raise SystemExit(code)


serve = ServerCommand(
    "serve",
    params=[config_option(), dev_option(), *options()],
    callback=_run,
    help=_HELP,
    short_help="Run the server.",
    epilog=_EPILOG,
)

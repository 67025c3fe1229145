# SPDX-License-Identifier: MIT
"""The global flags, each with its environment variable, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from hsm_cli.options.parameter_types import ListOption
from hsm_cli.settings import (
    DEFAULT_ENDPOINT,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TOKEN_TTL_SECONDS,
    ClientSettings,
    TokenAlgorithm,
    TokenSettings,
)

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OF_MINTED_TOKENS: Final = (
    *("actor", "roles", "token_ttl"),
    *("jwt_issuer", "jwt_algorithm", "jwt_kid"),
)
_KEYS: Final = ("jwt_secret", "jwt_private_key")
_FORMS: Final = "as it is, @FILE or fd:N"


def _flag(
    name: str, text: str, *, kind: type[click.Option] = click.Option, **attributes: Any
) -> click.Option:
    variable = f"FERROHSM_{name.removeprefix('--').replace('-', '_').upper()}"
    attributes.setdefault("show_default", "default" in attributes)
    return kind([name], envvar=variable, show_envvar=True, help=text, **attributes)


def _algorithm(
    ctx: click.Context, param: click.Parameter, value: str
) -> TokenAlgorithm:
    try:
        return TokenAlgorithm(value.lower())
    except ValueError:
        known = ", ".join(TokenAlgorithm)
        raise click.BadParameter(f"{value!r} is none of {known}.") from None


def _connection_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--endpoint",
            "Where the server is.",
            metavar="URL",
            default=DEFAULT_ENDPOINT,
        ),
        _flag(
            "--ca-bundle",
            "Authorities to trust (PEM); else the system's.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag(
            "--client-cert",
            "Our certificate chain (PEM), for servers that ask for one.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag(
            "--client-key",
            "Its key (PEM); else it is in --client-cert.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag(
            "--insecure",
            "Take any server certificate. Anybody in between can read everything.",
            is_flag=True,
        ),
    ]


def _token_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--actor",
            "Subject of minted tokens.",
            metavar="NAME",
            default="cli-operator",
        ),
        _flag(
            "--roles",
            "Roles of minted tokens; repeatable, or with commas between.",
            kind=ListOption,
            may_be_empty=True,
            metavar="ROLES",
            default=("operator",),
        ),
        _flag(
            "--auth-token",
            f"Bearer token, {_FORMS}.",
            metavar="TOKEN",
        ),
        _flag(
            "--token-ttl",
            "How long minted tokens are valid, in seconds.",
            metavar="SECONDS",
            type=click.IntRange(min=1),
            default=DEFAULT_TOKEN_TTL_SECONDS,
        ),
        *_minting_flags(),
    ]


def _minting_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--jwt-secret",
            f"Secret to mint tokens with, {_FORMS}; base64, or text: before a plain "
            "one. At least 32 bytes.",
            metavar="SECRET",
        ),
        _flag(
            "--jwt-algorithm",
            "How minted tokens are signed: hs256 with --jwt-secret, or rs256, es256 or "
            "eddsa with --jwt-private-key.",
            metavar="NAME",
            default="hs256",
            callback=_algorithm,
        ),
        _flag(
            "--jwt-private-key",
            "Key to sign minted tokens with: PEM, not encrypted, its owner's alone.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag("--jwt-issuer", "Issuer of minted tokens.", metavar="TEXT"),
        _flag(
            "--jwt-kid",
            "Which key of the server's minted tokens are for.",
            metavar="TEXT",
        ),
    ]


def _waiting_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--timeout",
            "Longest wait for the server, in seconds, in each attempt.",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True, max=3600),
            default=DEFAULT_TIMEOUT_SECONDS,
        ),
        _flag(
            "--wait",
            "Where other people must agree, wait until they have, then go on.",
            is_flag=True,
        ),
        _flag(
            "--wait-seconds",
            "Wait so long at most; --wait alone waits as long as they can agree.",
            metavar="SECONDS",
            type=click.FloatRange(min=0),
        ),
    ]


def _output_flags() -> list[click.Parameter]:
    return [
        _flag("--json", "Print results and errors as JSON.", is_flag=True),
        _flag("--no-color", "Print tables without colours.", is_flag=True),
    ]


def global_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all global flags; their values go to `read_settings`."""
    parameters: list[click.Parameter] = getattr(function, "__click_params__", [])
    flags = [
        *_connection_flags(),
        *_token_flags(),
        *_waiting_flags(),
        *_output_flags(),
    ]
    function.__click_params__ = [*reversed(flags), *parameters]  # type: ignore[attr-defined]
    return function


def read_settings(ctx: click.Context, values: dict[str, Any]) -> ClientSettings:
    """
    Return what the values of the global flags come to.

    Raises:
        click.UsageError: Two of them exclude each other.
    """
    token, secret = values["auth_token"] or "", values["jwt_secret"] or ""
    keys = [name for name in _KEYS if given_as_flag(ctx, name)]
    if keys and given_as_flag(ctx, "auth_token"):
        flag = f"--{keys[0].replace('_', '-')}"
        raise click.UsageError(f"--auth-token and {flag} exclude each other.")
    _check_keys(keys, values["jwt_algorithm"])
    if keys:
        # A flag goes before what the environment says.
        token = ""
    if token and ctx.invoked_subcommand != "token":
        _refuse_unused(ctx)
    return ClientSettings(
        endpoint=values["endpoint"],
        ca_bundle=values["ca_bundle"],
        client_cert=values["client_cert"],
        client_key=values["client_key"],
        insecure=values["insecure"],
        timeout_seconds=values["timeout"],
        waits=values["wait"] or values["wait_seconds"] is not None,
        wait_seconds=values["wait_seconds"],
        token=TokenSettings(
            auth_token=token,
            jwt_secret=secret,
            actor=values["actor"],
            roles=values["roles"],
            ttl_seconds=values["token_ttl"],
            issuer=values["jwt_issuer"] or "",
            algorithm=values["jwt_algorithm"],
            private_key=values["jwt_private_key"],
            kid=values["jwt_kid"] or "",
        ),
    )


def _check_keys(flags: list[str], algorithm: TokenAlgorithm) -> None:
    """Refuse a key that would not be used: somebody would think that it counted."""
    if len(flags) == len(_KEYS):
        raise click.UsageError("--jwt-secret and --jwt-private-key exclude each other.")
    if flags == ["jwt_private_key"] and algorithm is TokenAlgorithm.HS256:
        raise click.UsageError(
            "--jwt-private-key needs --jwt-algorithm: rs256, es256 or eddsa."
        )
    if flags == ["jwt_secret"] and algorithm is not TokenAlgorithm.HS256:
        raise click.UsageError(f"--jwt-secret is not for {algorithm.value}.")


def _refuse_unused(ctx: click.Context) -> None:
    """Refuse flags about minted tokens: somebody would think that they counted."""
    unused = [name for name in _OF_MINTED_TOKENS if given_as_flag(ctx, name)]
    if unused:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise click.UsageError(
            f"A finished token was given (--auth-token or FERROHSM_AUTH_TOKEN), which "
            f"{names} can't change; leave one of the two out."
        )


def literal_secrets(ctx: click.Context, *names: str) -> list[str]:
    """Return which of the named parameters hold a secret on the command line itself."""
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if given_as_flag(ctx, name)
        and not str(ctx.params[name]).startswith(("@", "fd:"))
    ]


def given_as_flag(ctx: click.Context, name: str) -> bool:
    """Return whether a parameter stands on the command line itself."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE

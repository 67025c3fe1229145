# SPDX-License-Identifier: MIT
"""The global flags, each with its environment variable, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from hsm_cli.settings import (
    DEFAULT_ENDPOINT,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TOKEN_TTL_SECONDS,
    ClientSettings,
    TokenSettings,
)

__all__ = ["given_as_flag", "global_flags", "literal_secrets", "read_settings"]

_LATER: Final = frozenset(
    {
        *("hs384", "hs512", "rs256", "rs384", "rs512", "ps256", "ps384", "ps512"),
        *("es256", "es384", "es512", "eddsa", "ed25519"),
    }
)
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OF_MINTED_TOKENS: Final = ("actor", "roles", "token_ttl", "jwt_issuer")
_FORMS: Final = "as it is, @FILE or fd:N"


def _flag(name: str, text: str, **attributes: Any) -> click.Option:
    variable = f"FERROHSM_{name.removeprefix('--').replace('-', '_').upper()}"
    attributes.setdefault("show_default", "default" in attributes)
    return click.Option(
        [name], envvar=variable, show_envvar=True, help=text, **attributes
    )


def _later(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        raise click.BadParameter(
            "this comes later; tokens are minted with HS256 and --jwt-secret.",
            ctx,
            param,
        )


def _algorithm(ctx: click.Context, param: click.Parameter, value: str) -> str:
    name = value.lower()
    if name in _LATER:
        raise click.BadParameter(f"{name} comes later; there is hs256.", ctx, param)
    if name != "hs256":
        raise click.BadParameter("there is hs256.", ctx, param)
    return name


def _flags() -> list[click.Parameter]:
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
        _flag(
            "--actor",
            "Subject of minted tokens.",
            metavar="NAME",
            default="cli-operator",
        ),
        _flag(
            "--roles",
            "Roles of minted tokens, with commas between.",
            metavar="ROLES",
            default="operator",
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
        _flag(
            "--jwt-secret",
            f"Secret to mint tokens with, {_FORMS}; base64, or text: before a plain "
            "one. At least 32 bytes.",
            metavar="SECRET",
        ),
        _flag(
            "--jwt-algorithm",
            "How tokens are signed.",
            metavar="NAME",
            default="hs256",
            callback=_algorithm,
            expose_value=False,
        ),
        _flag(
            "--jwt-private-key",
            "Comes later, with other algorithms than HS256.",
            metavar="FILE",
            callback=_later,
            expose_value=False,
        ),
        _flag("--jwt-issuer", "Issuer of minted tokens.", metavar="TEXT"),
        _flag(
            "--jwt-kid",
            "Comes later, with servers that have several keys.",
            metavar="TEXT",
            callback=_later,
            expose_value=False,
        ),
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
        _flag("--json", "Print results and errors as JSON.", is_flag=True),
        _flag("--no-color", "Print tables without colours.", is_flag=True),
    ]


def global_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all global flags; their values go to `read_settings`."""
    parameters: list[click.Parameter] = getattr(function, "__click_params__", [])
    function.__click_params__ = [*reversed(_flags()), *parameters]  # type: ignore[attr-defined]
    return function


def read_settings(ctx: click.Context, values: dict[str, Any]) -> ClientSettings:
    """
    Return what the values of the global flags come to.

    Raises:
        click.UsageError: Two of them exclude each other.
    """
    token, secret = values["auth_token"] or "", values["jwt_secret"] or ""
    flags = [name for name in ("auth_token", "jwt_secret") if given_as_flag(ctx, name)]
    if len(flags) == 2:
        raise click.UsageError("--auth-token and --jwt-secret exclude each other.")
    if flags == ["jwt_secret"]:
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
            roles=tuple(w.strip() for w in values["roles"].split(",") if w.strip()),
            ttl_seconds=values["token_ttl"],
            issuer=values["jwt_issuer"] or "",
        ),
    )


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

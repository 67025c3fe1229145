# SPDX-License-Identifier: MIT
"""Global flags, their environment variables, and parameter types."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from hsm_cli.io.output import Form
from hsm_client.defaults import (
    DEFAULT_ENDPOINT,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TOKEN_TTL_SECONDS,
    TokenAlgorithm,
)

if TYPE_CHECKING:
    from hsm_client.settings import ClientSettings

    # It is generic for type checkers only.
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


F = TypeVar("F", bound=Callable[..., Any])


def with_options(*options: Callable[..., Any]) -> Callable[[F], F]:
    """Return the decorator that adds options to a command, in the order of the help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class ListOption(click.Option):
    """
    Option with several values: repeated or comma-separated.

    Its parameter is a tuple; white space around values is removed.

    Args:
        attributes: As of any option.

        may_be_empty: Whether an empty text is an empty list, and not an error.
    """

    def __init__(
        self, *args: Any, may_be_empty: bool = False, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes | {"multiple": True})
        self._may_be_empty = may_be_empty

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Split each text, then convert the parts."""
        parts = []
        for text in value or ():
            found = [part.strip() for part in text.split(",") if part.strip()]
            if not found and not self._may_be_empty:
                raise click.BadParameter("must not be empty.", ctx=ctx, param=self)
            parts += found
        return super().type_cast_value(ctx, parts)


def none_unless_given(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return None for a list that was not given, to tell it from an empty one."""
    source = ctx.get_parameter_source(param.name or "")
    return None if source is ParameterSource.DEFAULT else value


class Command(click.Command):
    """Command that refuses repeated options, except `ListOption`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """
        Read the words of the command line.

        Raises:
            click.UsageError: An option of one value, or a switch, is given twice.
        """
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for param in order:
                times = order.count(param)
                if isinstance(param, click.Option) and times > 1 and not param.multiple:
                    raise click.UsageError(
                        f"{param.get_error_hint(ctx)} was given {times} times; give it "
                        "once.",
                        ctx,
                    )
        return super().parse_args(ctx, args)


class Group(Command, click.Group):
    """Command group that refuses repeated options and suggests a command's name."""

    def list_spellings(self) -> list[str]:
        """Return the other names of commands."""
        return [name for name, found in self.commands.items() if found.hidden]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """
        Return the command that the first word names.

        Raises:
            click.UsageError: There is none; the message suggests similar ones.
        """
        word = args[0]
        is_unknown = self.get_command(ctx, word) is None
        if is_unknown and not word.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(
                f"No such command: {word}.{_suggestion(word, self, ctx)}", ctx
            )
        return super().resolve_command(ctx, args)


def _suggestion(word: str, group: Group, ctx: click.Context) -> str:
    """Return a sentence with the most similar commands, or nothing."""
    # Needed only for a mistake.
    from difflib import get_close_matches

    names = [*group.list_commands(ctx), *group.list_spellings()]
    wanted = word.lower()
    found = [wanted] if wanted in names else get_close_matches(wanted, names, n=2)
    if not found:
        inner: dict[str, list[str]] = {}
        for name in names:
            below = group.get_command(ctx, name)
            if isinstance(below, click.Group):
                for command in below.list_commands(ctx):
                    inner.setdefault(command, []).append(f"{name} {command}")
        for match in get_close_matches(wanted, inner, n=1):
            found = inner[match][:3]
    return f" Did you mean {' or '.join(found)}?" if found else ""


class Instant(_ParamType):
    """Date and time with a UTC offset (RFC 3339)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse a text; a time without a UTC offset is ambiguous and refused."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a time such as 2026-01-31T12:00:00Z.", param, ctx
            )
        if found.tzinfo is None:
            self.fail(f"{value!r} has no UTC offset such as Z or +01:00.", param, ctx)
        return found


def choice(enum: type[Enum]) -> _ParamType:
    """Return a parameter type for the values of an enum, case-insensitive."""
    return _EnumChoice(enum)


class _EnumChoice(_ParamType):
    name = "choice"

    def __init__(self, enum: type[Enum]) -> None:
        self.enum = enum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Enum:
        """Return the member of this value."""
        if isinstance(value, Enum):
            return value
        wanted = value.lower().replace("-", "_")
        for member in self.enum:
            if wanted == str(member.value).lower().replace("-", "_"):
                return member
        known = ", ".join(str(member.value) for member in self.enum)
        self.fail(f"{value!r} is not one of {known}.", param, ctx)


_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OF_MINTED_TOKENS: Final = (
    *("actor", "roles", "token_ttl"),
    *("jwt_issuer", "jwt_algorithm", "jwt_kid"),
)
_KEYS: Final = ("jwt_secret", "jwt_private_key")
_FORMS: Final = "literal, @FILE or fd:N"


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
        raise click.BadParameter(f"{value!r} is not one of {known}.") from None


def _connection_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--profile",
            "Connection profile. Default: the current one, see `hsm-cli profile`.",
            metavar="NAME",
        ),
        _flag(
            "--endpoint", "URL of the server.", metavar="URL", default=DEFAULT_ENDPOINT
        ),
        _flag(
            "--ca-bundle",
            "CA certificates to trust (PEM). Default: the system's.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag(
            "--client-cert",
            "Client certificate for mutual TLS: a PEM chain, or PKCS#12.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag(
            "--client-key",
            "Private key of the client certificate (PEM). Default: read from "
            "--client-cert.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag(
            "--insecure",
            "Skip verification of the server's certificate. Insecure: an attacker on "
            "the network can read and change everything.",
            is_flag=True,
        ),
    ]


def _token_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--actor",
            "Subject (sub) of minted tokens.",
            metavar="NAME",
            default="cli-operator",
        ),
        _flag(
            "--roles",
            "Roles of minted tokens; repeatable or comma-separated.",
            kind=ListOption,
            may_be_empty=True,
            metavar="ROLES",
            default=("operator",),
        ),
        _flag("--auth-token", f"Bearer token: {_FORMS}.", metavar="TOKEN"),
        _flag(
            "--token-ttl",
            "Lifetime of minted tokens, in seconds.",
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
            f"Secret that signs minted tokens: {_FORMS}, as base64 or text:SECRET. "
            "At least 32 bytes.",
            metavar="SECRET",
        ),
        _flag(
            "--jwt-algorithm",
            "Signature algorithm of minted tokens: hs256 with --jwt-secret; rs256, "
            "es256 or eddsa with --jwt-private-key.",
            metavar="NAME",
            default="hs256",
            callback=_algorithm,
        ),
        _flag(
            "--jwt-private-key",
            "Private key that signs minted tokens: unencrypted PEM, readable by its "
            "owner only.",
            metavar="FILE",
            type=_FILE,
        ),
        _flag("--jwt-issuer", "Issuer (iss) of minted tokens.", metavar="TEXT"),
        _flag(
            "--jwt-kid", "Key ID (kid) in the header of minted tokens.", metavar="TEXT"
        ),
    ]


def _waiting_flags() -> list[click.Parameter]:
    return [
        _flag(
            "--timeout",
            "Time limit of each attempt of a request, in seconds.",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True, max=3600),
            default=DEFAULT_TIMEOUT_SECONDS,
        ),
        _flag(
            "--wait",
            "If the command needs approval, wait for it, then continue.",
            is_flag=True,
        ),
        _flag(
            "--wait-seconds",
            "Maximum time to wait for approval, in seconds. Default: until the request "
            "expires.",
            metavar="SECONDS",
            type=click.FloatRange(min=0),
        ),
    ]


def _output_flags() -> list[click.Parameter]:
    return [
        _flag("--json", "Print results and errors as JSON.", is_flag=True),
        _flag(
            "--format",
            "Output format: table, wide, json or jsonl.",
            type=click.Choice([form.value for form in Form]),
            default=Form.TABLE.value,
        ),
        _flag("--no-color", "Print tables without color.", is_flag=True),
    ]


def global_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add all global flags to a command; `read_settings` reads their values."""
    parameters: list[click.Parameter] = getattr(function, "__click_params__", [])
    flags = [*_connection_flags(), *_token_flags(), *_waiting_flags(), *_output_flags()]
    function.__click_params__ = [*reversed(flags), *parameters]  # type: ignore[attr-defined]
    return function


def read_settings(ctx: click.Context, values: dict[str, Any]) -> ClientSettings:
    """
    Return the settings from the values of the global flags.

    Raises:
        click.UsageError: Two flags are mutually exclusive.
    """
    # Help does without them.
    from hsm_client.settings import ClientSettings, TokenSettings

    token, secret = values["auth_token"] or "", values["jwt_secret"] or ""
    keys = [name for name in _KEYS if given_as_flag(ctx, name)]
    if keys and given_as_flag(ctx, "auth_token"):
        flag = f"--{keys[0].replace('_', '-')}"
        raise click.UsageError(f"--auth-token and {flag} are mutually exclusive.")
    _check_keys(keys, values["jwt_algorithm"])
    if keys:
        # A flag takes precedence over the environment.
        token = ""
    if token and ctx.invoked_subcommand != "token":
        refuse_unused(
            ctx, "a bearer token (--auth-token or FERROHSM_AUTH_TOKEN)", "one of them"
        )
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
    """Refuse a key that would be ignored."""
    if len(flags) == len(_KEYS):
        raise click.UsageError(
            "--jwt-secret and --jwt-private-key are mutually exclusive."
        )
    if flags == ["jwt_private_key"] and algorithm is TokenAlgorithm.HS256:
        raise click.UsageError(
            "--jwt-private-key requires --jwt-algorithm rs256, es256 or eddsa."
        )
    if flags == ["jwt_secret"] and algorithm is not TokenAlgorithm.HS256:
        raise click.UsageError(
            f"--jwt-secret can't be used with --jwt-algorithm {algorithm.value}."
        )


def refuse_unused(ctx: click.Context, other: str, remedy: str) -> None:
    """Refuse flags of minted tokens that *other* would override."""
    unused = [name for name in _OF_MINTED_TOKENS if given_as_flag(ctx, name)]
    if unused:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise click.UsageError(f"{names} can't be used with {other}. Omit {remedy}.")


def literal_secrets(ctx: click.Context, *names: str) -> list[str]:
    """Return the named parameters that hold a literal secret on the command line."""
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if given_as_flag(ctx, name)
        and not str(ctx.params[name]).startswith(("@", "fd:"))
    ]


def given_as_flag(ctx: click.Context, name: str) -> bool:
    """Return whether a parameter was given on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def was_given(ctx: click.Context, name: str) -> bool:
    """Return whether a parameter was given, as a flag or in the environment."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return ctx.get_parameter_source(name) in given

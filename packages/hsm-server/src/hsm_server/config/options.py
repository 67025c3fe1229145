# SPDX-License-Identifier: MIT
"""
Command line: options derived from the settings, in groups of the help.

Flags of the original FerroHSM that are not implemented are rejected: a silently ignored
flag would promise protection that does not exist.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import click
import msgspec
from click.core import ParameterSource

from hsm_core.model import Record
from hsm_core.settings import Settings
from hsm_server.config.annotations import OF_FIELD, Setting, settings_in, variable_of
from hsm_server.config.core import CRYPTOGRAPHY, POLICY, SERVICE, STORAGE
from hsm_server.config.settings import (
    ConsoleSettings,
    HTTPLimits,
    LaunchSettings,
    MetricsSettings,
    ProxySettings,
    RateLimits,
    SecretSettings,
    ServerSettings,
    TokenConfig,
    TokenRules,
    TracingSettings,
)
from hsm_server.config.tls import (
    ACMESettings,
    CertificateSettings,
    ClientSettings,
    TLSSettings,
)

Fields: TypeAlias = tuple[type[Record], Mapping[str, Setting]]
"""Class of a group, and its annotated fields."""

UNAVAILABLE: Final = {
    "checkpoint-interval-secs": (
        "the audit log is not verified on a schedule; use `hsm-cli audit verify`"
    ),
    "key-rotation-interval-secs": (
        "the key of the audit log does not rotate; use `hsm-cli rotation set` "
        "to rotate keys"
    ),
    "web-dir": "the console is part of the program",
}
"""Rejected flags, with the reason."""

_UNITS: Final = {"secs": "SECONDS", "days": "DAYS", "bytes": "BYTES"}


def _all(group: type[Record]) -> Fields:
    return group, settings_in(group)


def _some(group: type[Record], *names: str) -> Fields:
    return group, {name: settings_in(group)[name] for name in names}


GROUPS: Final[Mapping[str, tuple[Fields, ...]]] = {
    "Listener and TLS": (
        _some(ServerSettings, "bind"),
        _all(CertificateSettings),
        _all(ACMESettings),
        _all(TLSSettings),
        _all(ClientSettings),
    ),
    "Storage, audit and retention": ((Settings, STORAGE),),
    "Secrets": (_all(SecretSettings),),
    "Authentication": (
        _all(TokenConfig),
        _all(TokenRules),
        _some(LaunchSettings, "token_issuers", "oidc_config"),
        _all(ConsoleSettings),
    ),
    "Limits": (_all(HTTPLimits), _all(RateLimits), _all(ProxySettings)),
    "Policy": ((Settings, POLICY),),
    "Cryptography": ((Settings, CRYPTOGRAPHY),),
    "Service": (
        _some(ServerSettings, "drain_timeout_seconds"),
        (Settings, SERVICE),
        _some(ServerSettings, "log_level", "log_format"),
        _all(MetricsSettings),
        _all(TracingSettings),
        _some(LaunchSettings, "isolation"),
        _some(ServerSettings, "workers", "event_loop"),
        _some(LaunchSettings, "vault_user", "front_end_user"),
    ),
}
"""All settings, in the order of the help."""


def table_of(title: str) -> str:
    """Return the table of a group in a configuration file."""
    return title.partition(" ")[0].strip(",").lower()


class Command(click.Command):
    """Command of ``hsm-server``: an option that is given twice is an error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the command line; none may be dropped."""
        if not ctx.resilient_parsing:
            refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


class ServerCommand(Command):
    """Command with all options of the server, in groups."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write what is no setting first, then each group below its title."""
        by_name = {parameter.name: parameter for parameter in self.get_params(ctx)}
        groups = {
            f"{title} [{table_of(title)}]": [
                by_name.pop(s.name) for _, settings in found for s in settings.values()
            ]
            for title, found in GROUPS.items()
        }
        for title, parameters in ({"Options": [*by_name.values()]} | groups).items():
            _write(title, parameters, ctx, formatter)


def _write(
    title: str,
    parameters: Iterable[click.Parameter],
    ctx: click.Context,
    formatter: click.HelpFormatter,
) -> None:
    records = (parameter.get_help_record(ctx) for parameter in parameters)
    with formatter.section(title):
        formatter.write_dl([record for record in records if record is not None])


def refuse_repeated(
    command: click.Command, ctx: click.Context, args: list[str]
) -> None:
    """
    Refuse an option that is given twice, unless it is one of several values.

    Raises:
        click.UsageError: An option of one value, or a switch, is given twice.
    """
    _, _, order = command.make_parser(ctx).parse_args(list(args))
    for param in order:
        times = order.count(param)
        if isinstance(param, click.Option) and times > 1 and not param.multiple:
            raise click.UsageError(
                f"{param.get_error_hint(ctx)} is given {times} times. Pass it once.",
                ctx,
            )


class ListOption(click.Option):
    """
    Option with several values: repeated or comma-separated.

    Its parameter is a tuple. White space around a value is removed.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes | {"multiple": True})

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Split each text, then convert the parts."""
        parts = []
        for text in value or ():
            found = [part.strip() for part in text.split(",") if part.strip()]
            if not found:
                raise click.BadParameter(
                    "The list contains an empty value.", ctx=ctx, param=self
                )
            parts += found
        return super().type_cast_value(ctx, parts)


def options(*, for_inspection: bool = False) -> list[click.Parameter]:
    """
    Return every setting as an option.

    Args:
        for_inspection: Whether the help leaves them out, and none is required.
    """
    found = [option for title in GROUPS for option, _ in options_in(title)]
    if for_inspection:
        for option in found:
            option.hidden, option.required = True, False
    return [*found, *map(_unavailable, UNAVAILABLE)]


def options_in(title: str) -> Iterator[tuple[click.Option, Setting]]:
    """Yield the options of a group, each with the setting that it derives from."""
    for fields in GROUPS[title]:
        yield from _derive(fields)


def environment_name(flag: str) -> str:
    """Return the environment variable of a flag."""
    for groups in GROUPS.values():
        for _, settings in groups:
            for setting in settings.values():
                if setting.flag == flag:
                    return setting.variable
    return variable_of(flag)


def secret_flags() -> tuple[str, ...]:
    """Return the flags that hold or name a secret."""
    return tuple(setting.flag for setting in settings_in(SecretSettings).values())


def _derive(fields: Fields) -> Iterator[tuple[click.Option, Setting]]:
    group, settings = fields
    hints = get_type_hints(group, include_extras=True)
    defaults = {field.name: _default(field) for field in msgspec.structs.fields(group)}
    for name, setting in settings.items():
        yield _option(setting, hints[name], defaults[name]), setting


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else made()


def _option(setting: Setting, hint: Any, default: Any) -> click.Option:
    """Return the option of a field."""
    kind, limits = _kind_of(hint)
    default = default if setting.default is OF_FIELD else setting.default
    shown = text_of(setting, default)
    names = f"--{setting.flag}"
    # To click, these are not the same as None and False.
    more: dict[str, Any] = {} if shown is None else {"default": shown}
    if kind is bool and not setting.texts:
        more["is_flag"] = True
        names += f"/--no-{setting.flag}" if setting.is_negatable else ""
    return (ListOption if kind is tuple else click.Option)(
        [names],
        help=setting.help,
        envvar=setting.variable,
        show_envvar=True,
        required=default is msgspec.NODEFAULT,
        show_default=shown is not None and not isinstance(shown, bool),
        callback=_converter(setting, kind),
        multiple=kind is dict,
        metavar=setting.metavar or _metavar(setting, kind),
        type=_type_of(setting, kind, hint, limits),
        **more,
    )


def _kind_of(hint: Any) -> tuple[type, dict[str, float]]:
    """Return the class of a field without None, and its limits."""
    limits: dict[str, float] = {}
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            for meta in hint.__metadata__:
                if isinstance(meta, msgspec.Meta):
                    limits |= {
                        name: getattr(meta, name)
                        for name in ("ge", "gt", "le")
                        if getattr(meta, name) is not None
                    }
            hint = hint.__origin__
        elif origin in (Union, types.UnionType):
            (hint,) = (one for one in get_args(hint) if one is not types.NoneType)
        else:
            return origin or hint, limits


def _type_of(
    setting: Setting, kind: type, hint: Any, limits: Mapping[str, float]
) -> click.ParamType[Any]:
    if setting.texts:
        return click.Choice(list(setting.texts))
    if setting.parse is not None or kind in (str, dict):
        return click.STRING
    if kind is bool:
        return click.BOOL
    if issubclass(kind, StrEnum):
        return click.Choice([value.value for value in kind])
    if kind in (int, float):
        least = limits.get("ge", limits.get("gt"))
        of_numbers: Any = click.IntRange if kind is int else click.FloatRange
        numbers: click.ParamType[Any] = of_numbers(
            least if setting.at_least is None else setting.at_least,
            limits.get("le") if setting.at_most is None else setting.at_most,
            min_open="gt" in limits and setting.at_least is None,
        )
        return numbers
    if kind is Path or Path in get_args(_bare(hint)):
        return click.Path(path_type=Path, readable=setting.is_read_here)
    return click.STRING


def _bare(hint: Any) -> Any:
    return hint.__origin__ if get_origin(hint) is Annotated else hint


def text_of(setting: Setting, default: Any) -> Any:
    """Return a default as the command line has it; None for none."""
    if default is msgspec.NODEFAULT or default is None or default in ("", (), {}):
        return None
    for text, value in setting.texts.items():
        if value == default:
            return text
    if isinstance(default, float) and default.is_integer():
        return int(default)
    if isinstance(default, bool | int | float | Path):
        return default
    return str(default)


def _metavar(setting: Setting, kind: type) -> str | None:
    if kind in (int, float):
        return _UNITS.get(setting.flag.rpartition("-")[2], "NUMBER")
    return "FILE" if setting.parse is None and kind in (Path, tuple) else None


def _converter(
    setting: Setting, kind: type
) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return the conversion of what click has parsed to the field's value."""

    def convert(context: click.Context, option: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        if setting.texts:
            return setting.texts[value]
        if issubclass(kind, StrEnum):
            return kind(value)
        if kind is float and not math.isfinite(value):
            raise click.BadParameter("must be a finite number.")
        if setting.parse is None:
            return value
        try:
            if kind is tuple:
                return tuple(map(setting.parse, value))
            return setting.parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


def _unavailable(flag: str) -> click.Option:
    """Return a hidden option that is refused wherever it is given."""
    return click.Option(
        [f"--{flag}"],
        envvar=variable_of(flag),
        hidden=True,
        expose_value=False,
        callback=_refuse,
        metavar="TEXT",
    )


def _refuse(context: click.Context, option: click.Parameter, value: object) -> None:
    source = context.get_parameter_source(str(option.name))
    flag = option.opts[0]
    why = UNAVAILABLE[flag.removeprefix("--")]
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"{flag} is not available in this version: {why}.")
    if source is ParameterSource.ENVIRONMENT:
        raise click.UsageError(
            f"{option.envvar} ({flag}) is not available in this version: {why}. "
            "Unset it."
        )

# SPDX-License-Identifier: MIT
"""Command ``config``: effective settings, each with its origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
from click.core import ParameterSource

from hsm_core.errors import HSMError
from hsm_server.config.annotations import Setting
from hsm_server.config.core import SINGLE_STORES, STORAGE, core_settings
from hsm_server.config.exit_codes import exit_code_of
from hsm_server.config.file import check_places, config_option, given_file, take_store
from hsm_server.config.options import GROUPS, Command, options, table_of
from hsm_server.config.rendering import is_shown, toml_of
from hsm_server.config.settings import HTTPLimits
from hsm_server.system.standard_streams import say

_HELP = """
Print the effective settings, each with its origin.

It accepts every option of 'hsm-server serve', and the same environment variables. The
output is a configuration file. Secrets are never printed.
"""

_COLUMN: Final = 48


def _run(**values: Any) -> None:
    context = click.get_current_context()
    check_places(context, values)
    try:
        take_store(values)
        derived = _derived(values)
    except HSMError as error:
        say(f"error: {error}")
        raise SystemExit(exit_code_of(error)) from None
    for line in _lines(context, values | derived):
        click.echo(line)


def _derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of settings that others determine."""
    core = core_settings(values, HTTPLimits())
    found = {
        setting.name: getattr(core, name)
        for name, setting in STORAGE.items()
        if values[setting.name] is None
    }
    if values["store"]:
        found |= dict.fromkeys(SINGLE_STORES)
    elif ":" in values["key_store"]:
        # It names the place itself.
        found |= {"key_dir": None, "sqlite_path": None}
    return found


def _lines(context: click.Context, values: Mapping[str, Any]) -> Iterator[str]:
    for title, groups in GROUPS.items():
        yield f"[{table_of(title)}]"
        for _, settings in groups:
            for setting in settings.values():
                origin = _origin(context, setting)
                yield _line(setting, values[setting.name], origin)
        yield ""


def _line(setting: Setting, value: Any, origin: str) -> str:
    if not is_shown(setting, value):
        text = f"# {setting.flag} is set, and not shown"
    elif shown := toml_of(setting, value):
        text = f"{setting.flag} = {shown}"
    else:
        return f"# {setting.flag} is not set"
    return f"{text:{_COLUMN}}  # {origin}"


def _origin(context: click.Context, setting: Setting) -> str:
    source, file = context.get_parameter_source(setting.name), given_file(context)
    if source is ParameterSource.COMMANDLINE:
        return f"--{setting.flag}"
    if source is ParameterSource.ENVIRONMENT:
        return setting.variable
    if file is not None and setting.name in file.lines:
        return file.place(file.lines[setting.name])
    return "default"


config = Command(
    "config",
    params=[config_option(), *options(for_inspection=True)],
    callback=_run,
    help=_HELP,
    short_help="Print the effective settings, each with its origin.",
)

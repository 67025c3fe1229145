# SPDX-License-Identifier: MIT
"""Flags of the web console."""

from __future__ import annotations

from typing import Any

import click

from hsm_core.errors import ConfigurationError
from hsm_server.config.options.option import option
from hsm_server.config.settings import ConsoleSettings


def console_options() -> list[click.Parameter]:
    """Return the options of the console."""
    return [
        option(
            "console",
            "Serve the web console under /ui. Enabled by default; disable with "
            "--no-console.",
            also="--no-console",
            default=True,
            show_default=False,
        ),
        option(
            "session-idle-secs",
            "Idle timeout of a console session, in seconds.",
            default=900,
            type=click.IntRange(30, 86400),
        ),
        option(
            "session-absolute-secs",
            "Maximum lifetime of a console session, in seconds. A session also "
            "ends when its token or certificate expires.",
            default=28800,
            type=click.IntRange(60, 7 * 86400),
        ),
    ]


def console_settings(values: dict[str, Any]) -> ConsoleSettings:
    """
    Return the settings that parsed options stand for.

    Raises:
        ConfigurationError: A session would be idle for longer than it may last.
    """
    idle, absolute = values["session_idle_secs"], values["session_absolute_secs"]
    if idle > absolute:
        raise ConfigurationError(
            "--session-idle-secs must not exceed --session-absolute-secs."
        )
    return ConsoleSettings(
        is_on=values["console"], idle_seconds=idle, absolute_seconds=absolute
    )

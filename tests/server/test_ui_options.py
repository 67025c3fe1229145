# SPDX-License-Identifier: MIT
"""Flags of the console."""

import pytest

from hsm_core.errors import ConfigurationError
from hsm_server.config.annotations import settings_in
from hsm_server.config.loading import console_settings
from hsm_server.config.settings import ConsoleSettings


def parsed(**changes: object) -> dict[str, object]:
    """Return the changed values of the flags."""
    names = (setting.name for setting in settings_in(ConsoleSettings).values())
    return {**dict.fromkeys(names), **changes}


def test_the_defaults_are_those_of_the_settings() -> None:
    """Defaults: console on, 15 minutes idle, 8 hours absolute."""
    assert ConsoleSettings() == console_settings(parsed())


def test_a_session_is_not_idle_for_longer_than_it_lasts() -> None:
    """An idle time-out above the absolute one is rejected."""
    with pytest.raises(ConfigurationError, match="--session-idle-secs must not exceed"):
        console_settings(parsed(session_idle_secs=600, session_absolute_secs=599))

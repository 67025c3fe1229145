# SPDX-License-Identifier: MIT
"""Connection settings: flags, then the environment, then the profile."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Final

import click

from hsm_cli.io.output import Form
from hsm_cli.options import read_settings, refuse_unused, was_given
from hsm_client.choosing import WITH_TOKEN, is_for, with_profile
from hsm_client.profiles import Profile, choose_profile
from hsm_client.settings import ClientSettings
from hsm_core.errors import ConfigurationError

_WITHOUT: Final = frozenset({"completion", "help", "login", "logout", "profile"})
"""Commands that need no profile, or choose one themselves."""

_SERVER: Final = frozenset({b"hsm-server", b"hsm_server"})
_LONGEST_START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05
_HOME: Final = (b"HOME", b"XDG_CONFIG_HOME")

_TOKENS: Final = ("auth_token", "jwt_secret", "jwt_private_key")
CREDENTIALS: Final = (*_TOKENS, "client_cert")
"""Options that give a credential."""


def read_connection(ctx: click.Context, values: dict[str, Any]) -> ClientSettings:
    """
    Return the settings of the connection.

    The credential of a profile is sent to the endpoint of that profile only.

    Raises:
        click.UsageError: Flags are mutually exclusive, or the named profile is for
            another endpoint.
        ConfigurationError: There is no such profile, or its file is invalid.
    """
    settings = read_settings(ctx, values)
    if ctx.invoked_subcommand in _WITHOUT:
        return settings
    name: str | None = values["profile"]
    endpoint = settings.endpoint if was_given(ctx, "endpoint") else ""
    has_credential = any(was_given(ctx, one) for one in CREDENTIALS)
    profile = choose_profile(name)
    if profile is None and not endpoint and not has_credential:
        profile = _await_dev_server()
    if profile is None:
        return settings
    if not is_for(
        profile, endpoint, is_named=bool(name), has_credential=has_credential
    ):
        if not name:
            return settings
        raise click.UsageError(
            f"Profile {name} is for {profile.endpoint}, not for {endpoint} "
            "(--endpoint or FERROHSM_ENDPOINT). Omit one of them."
        )
    has_token = any(was_given(ctx, one) for one in _TOKENS)
    if profile.credential in WITH_TOKEN and not has_token:
        refuse_unused(ctx, f"the token of profile {profile.name}", "one of them")
    return with_profile(settings, profile, has_token=has_token)


def _await_dev_server() -> Profile | None:
    """Wait for a development server that is starting; return its profile, if any."""
    while is_dev_server_starting():
        time.sleep(_POLL_SECONDS)
        if (profile := choose_profile()) is not None:
            return profile
    # It may have begun to serve between the two looks.
    return choose_profile()


def is_dev_server_starting() -> bool:
    """Return whether this user ran ``hsm-server --dev`` within the last minute."""
    own = os.getuid()
    for folder in (f"/proc/{name}" for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):
            if os.stat(folder).st_uid == own and _is_young_dev_server(folder):
                return True
    return False


def _is_young_dev_server(folder: str) -> bool:
    with open(f"{folder}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    if b"--dev" not in words:
        return False
    if not any(os.path.basename(word) in _SERVER for word in words[:3]):
        return False
    with open(f"{folder}/stat", "rb") as file:
        # The field `starttime` of proc(5), in clock ticks since the system started.
        began = int(file.read().rpartition(b")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
    return age < _LONGEST_START_SECONDS and _has_our_home(folder)


def _has_our_home(folder: str) -> bool:
    """Return whether a process writes its profile where we look for it."""
    try:
        with open(f"{folder}/environ", "rb") as file:
            lines = dict(line.partition(b"=")[::2] for line in file.read().split(b"\0"))
    except PermissionError:
        # A server soon forbids to look into it; then it may be ours.
        return True
    return all(lines.get(name) == os.environb.get(name) for name in _HOME)


def read_form(
    ctx: click.Context, values: dict[str, Any], profile: Profile | None
) -> Form:
    """
    Return the form of output.

    Raises:
        ConfigurationError: The profile names another one.
    """
    if values["json"]:
        return Form.JSON
    if profile is None or not profile.format or was_given(ctx, "format"):
        return Form(values["format"])
    try:
        return Form(profile.format)
    except ValueError:
        raise ConfigurationError(
            f"format of profile {profile.name} must be {', '.join(Form)}, got "
            f"{profile.format!r}.",
            field="format",
        ) from None

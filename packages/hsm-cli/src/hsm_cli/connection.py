# SPDX-License-Identifier: MIT
"""Connection settings: flags, then the environment, then the profile."""

from __future__ import annotations

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

_TOKENS: Final = ("auth_token", "jwt_secret", "jwt_private_key")
_CREDENTIALS: Final = (*_TOKENS, "client_cert")


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
    profile = choose_profile(name)
    if profile is None:
        return settings
    endpoint = settings.endpoint if was_given(ctx, "endpoint") else ""
    has_credential = any(was_given(ctx, one) for one in _CREDENTIALS)
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
            f"format of profile {profile.name} must be {', '.join(Form)}; it is "
            f"{profile.format!r}.",
            field="format",
        ) from None

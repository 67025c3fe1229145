# SPDX-License-Identifier: MIT
"""Connection settings: flags, then the environment, then the profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import click

from hsm_cli.io.output import Form
from hsm_cli.options import read_settings, refuse_unused, was_given
from hsm_client.profiles import (
    DEV,
    CredentialKind,
    Profile,
    choose_profile,
    is_same_endpoint,
)
from hsm_client.settings import ClientSettings
from hsm_core.errors import ConfigurationError

_WITHOUT: Final = frozenset({"completion", "help", "login", "logout", "profile"})
"""Commands that need no profile, or choose one themselves."""

_TOKENS: Final = ("auth_token", "jwt_secret", "jwt_private_key")
_CREDENTIALS: Final = (*_TOKENS, "client_cert")
_WITH_TOKEN: Final = frozenset({CredentialKind.OIDC, CredentialKind.TOKEN})


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
    if name:
        _check_endpoint(ctx, settings, profile)
    elif not _applies(ctx, settings, profile):
        return settings
    return _with_profile(ctx, settings, profile)


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


def _applies(ctx: click.Context, settings: ClientSettings, profile: Profile) -> bool:
    """Return whether a profile that nobody named applies to this command."""
    if was_given(ctx, "endpoint"):
        return is_same_endpoint(settings.endpoint, profile.endpoint)
    has_credential = any(was_given(ctx, name) for name in _CREDENTIALS)
    return profile.name != DEV or not has_credential


def _check_endpoint(
    ctx: click.Context, settings: ClientSettings, profile: Profile
) -> None:
    if was_given(ctx, "endpoint") and not is_same_endpoint(
        settings.endpoint, profile.endpoint
    ):
        raise click.UsageError(
            f"Profile {profile.name} is for {profile.endpoint}, not for "
            f"{settings.endpoint} (--endpoint or FERROHSM_ENDPOINT). Omit one of them."
        )


def _with_profile(
    ctx: click.Context, settings: ClientSettings, profile: Profile
) -> ClientSettings:
    """Return settings with what flags and environment leave to the profile."""
    changes: dict[str, Any] = {"endpoint": profile.endpoint, "profile": profile}
    if not was_given(ctx, "ca_bundle"):
        changes["ca_bundle"] = profile.ca_bundle
    if not was_given(ctx, "client_cert"):
        changes["client_cert"] = profile.client_cert
        changes["client_key"] = profile.client_key
    has_token = any(was_given(ctx, name) for name in _TOKENS)
    if profile.credential in _WITH_TOKEN and not has_token:
        refuse_unused(ctx, f"the token of profile {profile.name}", "one of them")
        changes["token"] = replace(settings.token, profile=profile)
    return replace(settings, **changes)

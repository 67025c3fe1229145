# SPDX-License-Identifier: MIT
"""Settings of a program's connection: arguments, then environment, then profile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeAlias

from msgspec.structs import replace

from hsm_client.profiles import (
    DEV,
    CredentialKind,
    Profile,
    choose_profile,
    is_same_endpoint,
)
from hsm_client.settings import ClientSettings, TokenSettings
from hsm_core.errors import ConfigurationError

StrPath: TypeAlias = str | os.PathLike[str]

WITH_TOKEN: Final = frozenset({CredentialKind.OIDC, CredentialKind.TOKEN})
"""Kinds of credential that are bearer tokens."""


def choose_settings(
    url: str | None,
    *,
    profile: str | None,
    has_token: bool,
    token: str,
    ca_bundle: StrPath | None,
    client_cert: StrPath | None,
    client_key: StrPath | None,
    client_key_password: str,
    timeout_seconds: float,
) -> ClientSettings:
    """
    Return the settings of a connection.

    The credential of a profile is sent to the endpoint of that profile only.

    Args:
        url: Endpoint, or None.

        profile: Name of a profile, or None.

        has_token: Whether the program has a token, in *token* or in another way.

        token: Bearer token, or its location; empty for none.

        ca_bundle: PEM file of trusted CA certificates, or None.

        client_cert: Client certificate, a PEM chain or PKCS#12, or None.

        client_key: PEM file with its key, or None.

        client_key_password: Password of the key; empty for none.

        timeout_seconds: Time limit of one attempt.

    Raises:
        ConfigurationError: There is no endpoint, no credential, no profile of this
            name, or the profile is for another endpoint.
    """

    def path(given: StrPath | None, name: str) -> Path | None:
        found = given or os.environ.get(name)
        return Path(found) if found else None

    if not has_token:
        token = os.environ.get("FERROHSM_AUTH_TOKEN", "")
    given = ClientSettings(
        endpoint=url or os.environ.get("FERROHSM_ENDPOINT", ""),
        ca_bundle=path(ca_bundle, "FERROHSM_CA_BUNDLE"),
        client_cert=path(client_cert, "FERROHSM_CLIENT_CERT"),
        client_key=path(client_key, "FERROHSM_CLIENT_KEY"),
        client_key_password=client_key_password,
        timeout_seconds=timeout_seconds,
        token=TokenSettings(auth_token=token),
    )
    has_token = has_token or bool(token)
    named = profile or os.environ.get("FERROHSM_PROFILE")
    found = choose_profile(named)
    if found is not None:
        has_credential = has_token or given.client_cert is not None
        if is_for(
            found,
            given.endpoint,
            is_named=bool(named),
            has_credential=has_credential,
        ):
            return with_profile(given, found, has_token=has_token)
        if named:
            raise ConfigurationError(
                f"Profile {found.name} is for {found.endpoint}, not for "
                f"{given.endpoint}. Omit one of them.",
                field="profile",
            )
    if not given.endpoint:
        raise ConfigurationError(
            "There is no server to connect to. Pass its URL, as in "
            'connect("https://hsm.example.com:8443"), set FERROHSM_ENDPOINT, or sign '
            "in with hsm-cli login.",
            field="url",
        )
    if not (has_token or given.client_cert):
        raise ConfigurationError(
            f"There is no credential for {given.endpoint}. Pass token or client_cert, "
            "set FERROHSM_AUTH_TOKEN, or sign in with hsm-cli login.",
            field="token",
        )
    return given


def is_for(
    profile: Profile, endpoint: str, *, is_named: bool, has_credential: bool
) -> bool:
    """
    Return whether a profile applies to a connection.

    Args:
        profile: The profile.

        endpoint: Endpoint of the connection; empty if the profile decides it.

        is_named: Whether the user named the profile.

        has_credential: Whether the connection has a credential of its own.
    """
    if endpoint:
        return is_same_endpoint(endpoint, profile.endpoint)
    return is_named or profile.name != DEV or not has_credential


def with_profile(
    given: ClientSettings, profile: Profile, *, has_token: bool
) -> ClientSettings:
    """
    Return settings with what is not given from a profile.

    Args:
        given: Settings of arguments and environment.

        profile: The profile; the connection is to its endpoint.

        has_token: Whether the connection has a token of its own.
    """
    token = given.token
    if not has_token and profile.credential in WITH_TOKEN:
        token = replace(token, profile=profile)
    certificate, key = given.client_cert, given.client_key
    if certificate is None and key is None:
        certificate, key = profile.client_cert, profile.client_key
    return replace(
        given,
        endpoint=profile.endpoint,
        ca_bundle=given.ca_bundle or profile.ca_bundle,
        client_cert=certificate,
        client_key=key,
        profile=profile,
        token=token,
    )

# SPDX-License-Identifier: MIT
"""Bearer tokens and passwords of profiles, from the store of their secrets."""

from __future__ import annotations

from collections.abc import Callable

from hsm_client.credentials import open_credential_store
from hsm_client.profiles import CredentialKind, Profile
from hsm_client.settings import ClientSettings
from hsm_core.errors import ConfigurationError
from hsm_core.secret_input import read_secret_text


def open_profile_token(profile: Profile) -> Callable[[], str]:
    """
    Return a function that returns the bearer token of a profile for each request.

    Raises:
        ConfigurationError: There is no token, or it can't be read.
        UnsafeFileModeError: Other users have access to its file.
    """
    if profile.token_file is not None:
        token = read_secret_text(f"@{profile.token_file}", field="token_file").strip()
        return lambda: token
    stored = open_credential_store(profile.secret_store).load(profile.name)
    if stored is None or not stored.token:
        raise not_signed_in(profile)
    token = stored.token
    return lambda: token


def read_key_password(profile: Profile) -> str:
    """
    Return the password of a profile's client certificate; empty if it needs none.

    Raises:
        ConfigurationError: There is none, or it can't be read.
        UnsafeFileModeError: Other users have access to its file.
    """
    if profile.credential is not CredentialKind.PKCS12:
        return ""
    stored = open_credential_store(profile.secret_store).load(profile.name)
    if stored is None:
        raise not_signed_in(profile)
    return stored.password


def key_password_of(settings: ClientSettings) -> str:
    """
    Return the password of the client certificate; empty if it needs none.

    Raises:
        ConfigurationError: It is that of a profile, and can't be read.
    """
    profile = settings.profile
    if settings.client_key_password or profile is None:
        return settings.client_key_password
    if settings.client_cert != profile.client_cert:
        return ""
    return read_key_password(profile)


def not_signed_in(profile: Profile) -> ConfigurationError:
    """Return the error of a profile without its secrets."""
    return ConfigurationError(
        f"You are not signed in with profile {profile.name}. Run: hsm-cli --profile "
        f"{profile.name} login",
        field="profile",
    )

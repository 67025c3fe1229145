# SPDX-License-Identifier: MIT
"""Bearer tokens of profiles, from the store of their secrets."""

from __future__ import annotations

from collections.abc import Callable

from hsm_client.credentials import open_credential_store
from hsm_client.profiles import Profile
from hsm_core.errors import ConfigurationError
from hsm_core.secret_input import read_secret_text


def open_stored_token(profile: Profile) -> Callable[[], str]:
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
        raise ConfigurationError(
            f"Profile {profile.name} has no token. Sign in with: hsm-cli --profile "
            f"{profile.name} login",
            field="profile",
        )
    token = stored.token
    return lambda: token

# SPDX-License-Identifier: MIT
"""Bearer tokens and passwords of profiles, from the store of their secrets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from hsm_client.credentials import (
    CredentialStore,
    StoredSecrets,
    locked_secrets,
    open_credential_store,
)
from hsm_client.profiles import CredentialKind, Profile, is_same_endpoint
from hsm_client.settings import ClientSettings
from hsm_core.errors import AuthenticationError, ConfigurationError
from hsm_core.private_files import read_private_file

_SPARE_SECONDS: Final = 15
"""Time before its end at which a token is refreshed."""


def open_profile_token(
    profile: Profile, *, now: Callable[[], float] = time.time
) -> Callable[[], str]:
    """
    Return a function that returns the bearer token of a profile for each request.

    A token of a provider is refreshed shortly before it expires.

    Args:
        profile: The profile.

        now: Clock, in seconds since 1970.

    Raises:
        ConfigurationError: There is no token, or it can't be read.
        UnsafeFileModeError: Other users have access to its file.
    """
    if profile.token_file is not None:
        token = _read_token_file(profile.token_file)
        return lambda: token
    store = open_credential_store(profile.secret_store)
    stored = _load(profile, store)
    if profile.credential is CredentialKind.OIDC:
        return _RefreshedToken(profile, store, stored, now)
    token = stored.token
    return lambda: token


def _read_token_file(path: Path) -> str:
    """
    Return the token of a development server.

    Its folder must be private too. In a folder of another user, which may have the name
    of one that is gone, the file could be a link to any secret of this user.
    """
    data = read_private_file(path)
    if data is None:
        raise ConfigurationError(
            f"{path}, the token of the development server, is missing. Start "
            "hsm-server --dev again.",
            field="token_file",
        )
    return data.decode("ascii", "replace").strip()


class _RefreshedToken:
    """
    Access token of a provider, refreshed by itself. Thread-safe.

    Processes of one user refresh one at a time: most refresh tokens are good once.
    """

    def __init__(
        self,
        profile: Profile,
        store: CredentialStore,
        stored: StoredSecrets,
        now: Callable[[], float],
    ) -> None:
        self._profile = profile
        self._store = store
        self._stored = stored
        self._now = now
        self._lock = threading.Lock()
        self._spent: StoredSecrets | None = None
        self._fresh = stored

    def __call__(self) -> str:
        """
        Return the token.

        Raises:
            AuthenticationError: The provider ended the sign-in.
            TransportError: The provider can't be reached.
            ConfigurationError: The tokens can't be saved.
        """
        with self._lock:
            if self._is_old(self._stored):
                with locked_secrets(self._profile):
                    self._stored = self._refreshed()
            return self._stored.token

    def _is_old(self, stored: StoredSecrets) -> bool:
        return self._now() >= stored.expires_at - _SPARE_SECONDS

    def _refreshed(self) -> StoredSecrets:
        """Return the tokens that another process has stored meanwhile, or new ones."""
        profile = self._profile
        stored = _load(profile, self._store)
        if stored == self._spent:
            stored = self._fresh
        elif not self._is_old(stored):
            return stored
        # Most refresh tokens are good once: that the next one can be saved, shows here.
        self._store.save(profile.name, stored)
        if not self._is_old(stored):
            return stored
        self._fresh = self._request_tokens(stored)
        self._spent = stored
        try:
            self._store.save(profile.name, self._fresh)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"The new tokens of profile {profile.name} are not saved: {error} "
                "This program tries again; another one may need a new sign-in. Run: "
                f"hsm-cli --profile {profile.name} login",
                field="profile",
            ) from None
        return self._fresh

    def _request_tokens(self, stored: StoredSecrets) -> StoredSecrets:
        """Let the provider exchange a refresh token for new tokens."""
        profile = self._profile
        if not stored.refresh_token:
            raise _ended(profile, "it has expired")
        # Deferred: a token that is still good needs no HTTP client for the provider.
        from hsm_client.oidc import Provider

        provider = Provider(profile.issuer, profile.client_id, profile.issuer_ca_bundle)
        try:
            fresh = provider.refresh(stored, now=self._now())
        except AuthenticationError as error:
            raise _ended(profile, str(error.facts.get("reason", ""))) from None
        return replace(fresh, endpoint=stored.endpoint, issuer=stored.issuer)


def _load(profile: Profile, store: CredentialStore) -> StoredSecrets:
    """
    Return the tokens of a profile.

    Raises:
        ConfigurationError: There are none, or they are for another server or provider:
            who may edit the profile may not redirect them.
    """
    stored = store.load(profile.name)
    if stored is None or not stored.token:
        raise not_signed_in(profile)
    if not is_bound(stored, profile):
        raise ConfigurationError(
            f"The endpoint or the issuer of profile {profile.name} has changed since "
            f"you signed in. Check {profile.endpoint}, and run: hsm-cli --profile "
            f"{profile.name} login",
            field="profile",
        )
    return stored


def is_bound(stored: StoredSecrets, profile: Profile) -> bool:
    """Return whether tokens are for the server and the provider of a profile."""
    is_same_server = is_same_endpoint(stored.endpoint, profile.endpoint)
    return is_same_server and stored.issuer == profile.issuer


def _ended(profile: Profile, why: str) -> AuthenticationError:
    return AuthenticationError(
        f"Your sign-in with profile {profile.name} has ended ({why}). Run: hsm-cli "
        f"--profile {profile.name} login"
    )


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

# SPDX-License-Identifier: MIT
"""Secrets of connection profiles: the system's keyring, or files of mode 0600."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from hsm_client.profiles import Profile, SecretStore
from hsm_core import wire
from hsm_core.dev_profile import config_folder
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.model import Record
from hsm_core.private_files import (
    locked_file,
    read_private_file,
    remove_private_file,
    write_private_file,
)

_SERVICE: Final = "ferrohsm"
_FIELD: Final = "profile"


class StoredSecrets(Record, frozen=True, kw_only=True):
    """
    Secrets of a profile. Its repr shows none of them.

    Attributes:
        token: Bearer token.
        expires_at: End of the token, in seconds since 1970; 0 if unknown.
        refresh_token: Token that gets another one from the provider.
        password: Password of the client certificate's key.
        endpoint: Server that the token is sent to; no other one gets it.
        issuer: Provider that the refresh token is sent to; empty without one.
    """

    token: str = ""
    expires_at: int = 0
    refresh_token: str = ""
    password: str = ""
    endpoint: str = ""
    issuer: str = ""


class CredentialStore(Protocol):
    """Store of the secrets of profiles, by the profile's name."""

    def load(self, name: str, /) -> StoredSecrets | None:
        """Return the secrets of a profile, or None if there are none."""

    def save(self, name: str, secrets: StoredSecrets, /) -> None:
        """Replace the secrets of a profile."""

    def remove(self, name: str, /) -> bool:
        """Remove the secrets of a profile, and return whether there were any."""


def open_credential_store(kind: SecretStore) -> CredentialStore:
    """
    Return a store of secrets.

    Raises:
        ConfigurationError: It is the keyring, and there is none.
    """
    if kind is SecretStore.FILE:
        return FileStore(_folder())
    return KeyringStore()


def has_keyring() -> bool:
    """Return whether the package `keyring` is installed and finds a keyring."""
    try:
        import keyring
        from keyring.backends import fail, null
    except ImportError:
        return False
    try:
        backend = keyring.get_keyring()
    except Exception:
        # A backend may fail in any way while it is loaded.
        return False
    return not isinstance(backend, fail.Keyring | null.Keyring)


@contextmanager
def locked_secrets(profile: Profile) -> Iterator[None]:
    """
    Hold the lock of a profile's secrets between processes of this user.

    A refresh token is often good only once: two processes must not use the same one.
    """
    with locked_file(_folder() / f"{profile.name}.lock"):
        yield


class FileStore:
    """
    Files of mode 0600, one for each profile.

    Args:
        folder: Folder of mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str, /) -> StoredSecrets | None:
        """
        Return the secrets of a profile, or None if there are none.

        Raises:
            ConfigurationError: The file can't be read or is invalid.
            UnsafeFileModeError: Other users have access to it.
        """
        path = self._path(name)
        data = read_private_file(path)
        return None if data is None else decode_secrets(data, str(path))

    def save(self, name: str, secrets: StoredSecrets, /) -> None:
        """
        Replace the secrets of a profile, atomically.

        Raises:
            ConfigurationError: The file can't be written.
            UnsafeFileModeError: Other users have access to the folder.
        """
        write_private_file(self._path(name), msgspec.json.encode(secrets))

    def remove(self, name: str, /) -> bool:
        """
        Remove the secrets of a profile, and return whether there were any.

        Raises:
            ConfigurationError: The file can't be removed.
        """
        return remove_private_file(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


class KeyringStore:
    """
    Keyring of the system: one entry for each profile, of the service ``ferrohsm``.

    Raises:
        ConfigurationError: The package `keyring` is missing.
    """

    def __init__(self) -> None:
        try:
            import keyring
        except ImportError:
            raise ConfigurationError(
                "The secrets are in the system's keyring, and the package keyring is "
                "not installed. Install hsm-client[keyring].",
                field=_FIELD,
            ) from None
        self._keyring = keyring

    def load(self, name: str, /) -> StoredSecrets | None:
        """
        Return the secrets of a profile, or None if there are none.

        Raises:
            ConfigurationError: The keyring can't be read, or its entry is invalid.
        """
        text = self._call(self._keyring.get_password, name)
        if text is None:
            return None
        return decode_secrets(text.encode(), "The keyring's entry")

    def save(self, name: str, secrets: StoredSecrets, /) -> None:
        """
        Replace the secrets of a profile.

        Raises:
            ConfigurationError: The keyring can't be written to.
        """
        text = msgspec.json.encode(secrets).decode()
        self._call(self._keyring.set_password, name, text)

    def remove(self, name: str, /) -> bool:
        """
        Remove the secrets of a profile, and return whether there were any.

        Raises:
            ConfigurationError: The keyring can't be written to.
        """
        if self._call(self._keyring.get_password, name) is None:
            return False
        self._call(self._keyring.delete_password, name)
        return True

    @staticmethod
    def _call(function: Any, *arguments: str) -> str | None:
        from keyring.errors import KeyringError

        try:
            found: str | None = function(_SERVICE, *arguments)
        except KeyringError as error:
            raise ConfigurationError(
                f"The system's keyring failed ({type(error).__name__}). Unlock it, or "
                "sign in again with --secret-store file.",
                field=_FIELD,
            ) from None
        return found


def _folder() -> Path:
    return config_folder() / "credentials"


def decode_secrets(data: bytes, where: str) -> StoredSecrets:
    """
    Return stored secrets.

    Args:
        data: JSON.

        where: Its place, for messages.

    Raises:
        ConfigurationError: They are damaged; the message shows nothing of them.
    """
    try:
        return wire.decode_json(data, StoredSecrets)
    except InvalidInputError:
        # The reason may repeat what is stored.
        raise ConfigurationError(
            f"{where} is damaged. Sign in again with hsm-cli login.", field=_FIELD
        ) from None

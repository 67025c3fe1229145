# SPDX-License-Identifier: MIT
"""
Connection profiles: endpoint, CA and credential of servers, by name.

They are in ``config.toml`` of the folder ``~/.config/ferrohsm``, or
``$XDG_CONFIG_HOME/ferrohsm``::

    current = "prod"

    [profiles.prod]
    endpoint = "https://hsm.example.com:8443"
    ca-bundle = "ca.pem"
    credential = "token"

Relative paths are relative to that folder. A development server (``hsm-server --dev``)
adds the profile ``dev`` for as long as it runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from hsm_core.dev_profile import DevProfile, config_folder, dev_file, user_path
from hsm_core.errors import ConfigurationError
from hsm_core.model import Record
from hsm_core.private_files import read_private_file

DEV: Final = "dev"
"""Name of the profile of a running development server."""

RESERVED: Final = frozenset({"default", "strict", DEV})
"""Names that no profile of the file may have."""

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_UNKNOWN: Final = r"Object contains unknown field `(.*)`"
_FIELD: Final = "profile"


class CredentialKind(StrEnum):
    """Kind of a profile's credential."""

    OIDC = "oidc"
    TOKEN = "token"  # noqa: S105 (a kind, not a token)
    CERTIFICATE = "certificate"
    PKCS12 = "pkcs12"


class SecretStore(StrEnum):
    """Place of a profile's secrets."""

    FILE = "file"
    KEYRING = "keyring"


class Profile(Record, frozen=True, kw_only=True, rename="kebab"):
    """
    Connection profile.

    Attributes:
        name: Its name; ``dev`` is the running development server.
        endpoint: ``https://HOST[:PORT][/PREFIX]``.
        credential: Kind of the credential.
        ca_bundle: PEM file of trusted CA certificates; None means the system's.
        client_cert: Client certificate: a PEM chain, or PKCS#12 with its key.
        client_key: PEM file with its key; None means it is in *client_cert*.
        issuer: Issuer URL of the OpenID Connect provider.
        client_id: Client ID of this program at the provider.
        scopes: Scopes to request.
        audience: Requested audience of access tokens; empty for the provider's default.
        issuer_ca_bundle: As *ca_bundle*, of the provider.
        secret_store: Place of the secrets.
        token_file: File with the bearer token, of a development server.
        format: Form of output; empty for the command's default.
    """

    name: str
    endpoint: str
    credential: CredentialKind
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    issuer: str = ""
    client_id: str = ""
    scopes: tuple[str, ...] = ("openid",)
    audience: str = ""
    issuer_ca_bundle: Path | None = None
    secret_store: SecretStore = SecretStore.FILE
    token_file: Path | None = None
    format: str = ""


class Profiles(msgspec.Struct, frozen=True, kw_only=True):
    """
    All profiles of this user.

    Attributes:
        current: Name of the current profile; empty for none.
        by_name: Profiles of the file, and ``dev`` while its server runs.
    """

    current: str
    by_name: Mapping[str, Profile]

    def get(self, name: str) -> Profile:
        """
        Return a profile.

        Raises:
            ConfigurationError: There is none of this name; the message lists all names.
        """
        found = self.by_name.get(name)
        if found is None:
            known = ", ".join(self.by_name) or "none"
            raise ConfigurationError(
                f"There is no profile {name!r}. Profiles: {known}. To add one, run "
                "hsm-cli login.",
                field=_FIELD,
            )
        return found


class _Config(Record, frozen=True, kw_only=True):
    current: str = ""
    profiles: Mapping[str, dict[str, Any]] = {}


def config_file() -> Path:
    """Return the file of the profiles."""
    return config_folder() / "config.toml"


def load_profiles() -> Profiles:
    """
    Read all profiles.

    Raises:
        ConfigurationError: A file is invalid; the message names profile and key.
        UnsafeFileModeError: Other users have access to a file or its folder.
    """
    path = config_file()
    profiles = parse_profiles(read_private_file(path) or b"", path)
    dev = load_dev_profile()
    if dev is None:
        return profiles
    return Profiles(current=profiles.current, by_name={**profiles.by_name, DEV: dev})


def parse_profiles(data: bytes, path: Path) -> Profiles:
    """
    Return the profiles of a file.

    Args:
        data: Its contents.

        path: Its path, for messages; relative paths start at its folder.

    Raises:
        ConfigurationError: It is invalid; the message names profile and key.
    """
    config: _Config = _parse(data, _Config, path)
    found = {
        name: _profile(path, name, table) for name, table in config.profiles.items()
    }
    return Profiles(current=config.current, by_name=found)


def choose_profile(name: str | None = None) -> Profile | None:
    """
    Return the profile to use, or None if there is none.

    Args:
        name: Its name; None means ``FERROHSM_PROFILE``, else the current profile, else
            ``dev`` while a development server runs.

    Raises:
        ConfigurationError: There is no profile of this name, or a file is invalid.
        UnsafeFileModeError: Other users have access to a file or its folder.
    """
    profiles = load_profiles()
    wanted = name or default_profile_name(profiles)
    return profiles.get(wanted) if wanted else None


def default_profile_name(profiles: Profiles) -> str:
    """Return the name of the profile to use if none is named; empty for none."""
    dev = DEV if DEV in profiles.by_name else ""
    return os.environ.get("FERROHSM_PROFILE") or profiles.current or dev


def load_dev_profile() -> Profile | None:
    """
    Return the profile of the running development server, or None.

    Raises:
        ConfigurationError: Its file is invalid.
        UnsafeFileModeError: Other users have access to the file or its folder.
    """
    path = dev_file()
    data = read_private_file(path)
    if data is None:
        return None
    server: DevProfile = _parse(data, DevProfile, path)
    if not _is_running(server.pid):
        return None
    return Profile(
        name=DEV,
        endpoint=server.endpoint,
        ca_bundle=server.ca_bundle,
        credential=CredentialKind.TOKEN,
        token_file=server.token_file,
    )


def is_same_endpoint(one: str, other: str) -> bool:
    """Return whether two URLs name the same host, port and path."""
    try:
        parts = [urlsplit(url) for url in (one, other)]
        found = {
            (p.scheme, p.hostname, p.port or 443, p.path.rstrip("/")) for p in parts
        }
    except ValueError:
        return False
    return len(found) == 1


def check_profile_name(name: str) -> str:
    """
    Return a name that a profile of the file may have.

    Raises:
        ConfigurationError: It is reserved or has other characters.
    """
    if name in RESERVED:
        raise ConfigurationError(
            f"The profile name {name!r} is reserved. Choose another.", field=_FIELD
        )
    if not re.fullmatch(_NAME, name):
        raise ConfigurationError(
            "A profile name must be 1 to 64 letters, digits, '.', '_' or '-', and "
            f"begin with a letter or digit; got {name!r}.",
            field=_FIELD,
        )
    return name


def _profile(path: Path, name: str, table: dict[str, Any]) -> Profile:
    where = f"{path}: profile {name}"
    check_profile_name(name)
    for key in ("name", "token-file"):
        if key in table:
            raise ConfigurationError(f"{where}: unknown setting {key!r}.", field=_FIELD)
    profile: Profile = _convert({**table, "name": name}, Profile, where, path.parent)
    for key in _missing(profile):
        raise ConfigurationError(
            f"{where}: credential {profile.credential.value!r} requires {key}.",
            field=_FIELD,
        )
    return profile


def _missing(profile: Profile) -> list[str]:
    """Return the keys that the kind of credential requires and that are missing."""
    needed = {}
    if profile.credential is CredentialKind.OIDC:
        needed = {"issuer": profile.issuer, "client-id": profile.client_id}
    elif profile.credential is not CredentialKind.TOKEN:
        needed = {"client-cert": str(profile.client_cert or "")}
    return [key for key, value in needed.items() if not value]


def _parse(data: bytes, cls: type[Any], path: Path) -> Any:
    """Return the contents of a TOML file."""
    if not data:
        return _convert({}, cls, str(path), path.parent)
    # Deferred: most users of the environment alone have no such file.
    import tomllib

    try:
        tree = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = str(error)
    except RecursionError:
        why = "It is nested too deeply"
    else:
        return _convert(tree, cls, str(path), path.parent)
    raise ConfigurationError(f"{path} is not valid TOML: {why}.", field=_FIELD)


def _convert(tree: object, cls: type[Any], where: str, folder: Path) -> Any:
    def decode(kind: type[Any], value: Any) -> Any:
        if kind is Path and isinstance(value, str) and value and "\0" not in value:
            return folder / (user_path(value) if value.startswith("~/") else value)
        raise ValueError("Expected a path")

    try:
        return msgspec.convert(tree, cls, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {_words(error)}.", field=_FIELD) from None


def _words(error: msgspec.ValidationError) -> str:
    """Return an error of msgspec with the key first."""
    problem, _, place = str(error).partition(" - at `$")
    key = place.strip(".`")
    unknown = re.fullmatch(_UNKNOWN, problem)
    if unknown is not None:
        return f"unknown setting {'.'.join(filter(None, (key, unknown[1])))!r}"
    return f"{key}: {problem}" if key else problem


def _is_running(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True

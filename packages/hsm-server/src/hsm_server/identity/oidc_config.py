# SPDX-License-Identifier: MIT
"""OpenID Connect configuration file: format and validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from yarl import URL

from hsm_core.errors import ConfigurationError, HSMError, InvalidInputError
from hsm_core.model import Record, parse_role
from hsm_core.setting_files import parse_settings, read_setting_file
from hsm_server.config.settings import OIDCSettings

RETURN_PATH: Final = "/ui/sign-in/oidc/answer"
"""Path of the redirect URI."""

_FIELD: Final = "oidc_config"
_Text = Annotated[str, Meta(min_length=1, max_length=1024)]


class _Config(Record, frozen=True, kw_only=True):
    issuer: _Text
    client_id: _Text
    redirect_uri: _Text
    client_secret_file: _Text | None = None
    ca_bundle: _Text | None = None
    jwks_file: _Text | None = None
    title: Annotated[str, Meta(min_length=1, max_length=64)] = "single sign-on"
    scopes: tuple[_Text, ...] = ("openid",)
    principal_claim: _Text = "sub"
    roles_claim: _Text = "roles"
    roles: Annotated[dict[_Text, str], Meta(min_length=1, max_length=1000)]
    leeway_seconds: Annotated[int, Meta(ge=0, le=300)] = 60


def load_oidc_config(path: Path) -> OIDCSettings:
    """
    Load the OpenID Connect configuration; its paths are relative to the file.

    Args:
        path: The file, YAML or JSON.

    Raises:
        ConfigurationError: It can't be read or is not valid; the message names the
            field.
        UnsafeFileModeError: Others may write to it.
    """
    file = read_setting_file(path, field=_FIELD)
    try:
        config = parse_settings(file.data, _Config, what="OIDC config")
        for problem in _problems(config):
            raise InvalidInputError(problem, field=_FIELD)
        roles = {name: parse_role(role) for name, role in config.roles.items()}
    except HSMError as error:
        raise ConfigurationError(
            f"The OIDC configuration {path} is not valid: {error}", field=_FIELD
        ) from None
    fields = msgspec.structs.asdict(config)
    for name in ("client_secret_file", "ca_bundle", "jwks_file"):
        if fields[name] is not None:
            fields[name] = path.parent.absolute() / fields[name]
    return OIDCSettings(**{**fields, "roles": roles})


def _problems(config: _Config) -> Iterator[str]:
    if not is_https(config.issuer) or urlsplit(config.issuer).query:
        yield "issuer: must be an https URL without a query."
    if (
        not is_https(config.redirect_uri)
        or urlsplit(config.redirect_uri).path != RETURN_PATH
        or urlsplit(config.redirect_uri).query
    ):
        yield (
            "redirect_uri: must be an https URL of this server that ends with "
            f"{RETURN_PATH}."
        )
    if "openid" not in config.scopes:
        yield "scopes: must include openid."
    if any(scope.split() != [scope] for scope in config.scopes):
        yield "scopes: a scope must not contain spaces."


def is_https(url: str) -> bool:
    """Return whether a URL is https, without user information and fragment."""
    try:
        parts = urlsplit(url)
        is_plain = parts.username is None and not parts.fragment
        # The client of HTTP refuses ports and host names that the former lets pass.
        return bool(parts.scheme == "https" and URL(url).host and is_plain)
    except ValueError:
        return False

# SPDX-License-Identifier: MIT
"""Token issuers file: format and validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from hsm_core.errors import ConfigurationError, HSMError, InvalidInputError
from hsm_core.model import Record
from hsm_core.setting_files import parse_settings, read_setting_file
from hsm_server.config.settings import TokenIssuer
from hsm_server.identity.oidc_config import is_https

_FIELD: Final = "token_issuers"
_TRUST_DOMAIN: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}\Z")
_Text = Annotated[str, Meta(min_length=1, max_length=256)]


class _Issuer(Record, frozen=True, kw_only=True):
    issuer: _Text
    jwks_file: _Text | None = None
    jwks_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    ca_bundle: _Text | None = None


class _Config(Record, frozen=True, kw_only=True):
    issuers: Annotated[tuple[_Issuer, ...], Meta(min_length=1, max_length=32)]


def load_token_issuers(path: Path) -> tuple[TokenIssuer, ...]:
    """
    Load the token issuers file; its paths are relative to the file.

    Args:
        path: The file, YAML or JSON.

    Raises:
        ConfigurationError: It can't be read or is not valid; the message names the
            field.
        UnsafeFileModeError: Others may write to it.
    """
    file = read_setting_file(path, field=_FIELD)
    try:
        config = parse_settings(file.data, _Config, what="token issuers")
        for problem in _problems(config.issuers):
            raise InvalidInputError(problem, field=_FIELD)
    except HSMError as error:
        raise ConfigurationError(
            f"The token issuers file {path} is not valid: {error}", field=_FIELD
        ) from None
    return tuple(_located(section, path) for section in config.issuers)


def _located(section: _Issuer, path: Path) -> TokenIssuer:
    fields = {n: v for n, v in msgspec.structs.asdict(section).items() if v is not None}
    for name in ("jwks_file", "ca_bundle"):
        if name in fields:
            fields[name] = path.parent.absolute() / fields[name]
    return TokenIssuer(**fields)


def _problems(sections: tuple[_Issuer, ...]) -> Iterator[str]:
    known = set[str]()
    for number, section in enumerate(sections):
        for problem in _problems_of(section):
            yield f"issuers[{number}].{problem}"
        if section.issuer in known:
            yield f"issuers[{number}].issuer: is listed twice."
        known.add(section.issuer)


def _problems_of(section: _Issuer) -> Iterator[str]:
    if section.jwks_file is not None:
        if section.jwks_url is not None or section.ca_bundle is not None:
            yield "jwks_file: can't be used with jwks_url or ca_bundle."
    elif section.jwks_url is not None:
        if not is_https(section.jwks_url):
            yield "jwks_url: must be an https URL."
    elif section.issuer.startswith("spiffe:"):
        yield "issuer: a trust domain requires jwks_file or jwks_url."
    elif not is_https(section.issuer) or urlsplit(section.issuer).query:
        yield "issuer: must be an https URL without a query, or set jwks_file."
    if section.issuer.startswith("spiffe:") and not _TRUST_DOMAIN.match(section.issuer):
        yield "issuer: a trust domain must be spiffe://NAME in lower case, no path."

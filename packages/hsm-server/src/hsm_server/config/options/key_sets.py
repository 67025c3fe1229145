# SPDX-License-Identifier: MIT
"""Parser of the JWK Set URL."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import click

_MOST_CHARACTERS: Final = 2048


def parse_key_set_url(
    context: click.Context, option: click.Parameter, value: str
) -> str:
    """
    Return a URL of HTTPS, or nothing.

    Raises:
        BadParameter: It is of another scheme, names nobody or a user, or is none.
    """
    if not value:
        return value
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise click.BadParameter("not a valid URL.") from None
    if parts.scheme != "https" or not parts.hostname or len(value) > _MOST_CHARACTERS:
        raise click.BadParameter(
            "must be an https:// URL. Over plain HTTP an attacker could replace "
            "the keys and forge tokens."
        )
    if parts.username is not None or parts.fragment:
        raise click.BadParameter("must not contain user information or a fragment.")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise click.BadParameter("contains characters that are not allowed in a URL.")
    return value

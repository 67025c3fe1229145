# SPDX-License-Identifier: MIT
"""How the command line says where keys of tokens are fetched from."""

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
        raise click.BadParameter("this is no URL.") from None
    if parts.scheme != "https" or not parts.hostname or len(value) > _MOST_CHARACTERS:
        raise click.BadParameter(
            "this must be a URL that begins with https://; whoever could change keys "
            "on their way could make tokens."
        )
    if parts.username is not None or parts.fragment:
        raise click.BadParameter("this has a user or a fragment, which nobody reads.")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise click.BadParameter("this holds characters that no URL has.")
    return value

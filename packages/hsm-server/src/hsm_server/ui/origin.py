# SPDX-License-Identifier: MIT
"""Where a request of a browser comes from, and where one may be sent to."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

HOME: Final = "/ui"
"""Where the console begins."""

_OCTET: Final = r"[A-Za-z0-9_~:-]|%(?!2[EeFf]|5[Cc]|[01])[0-9A-Fa-f]{2}"
_PATH: Final = re.compile(
    rf"/ui(/({_OCTET})({_OCTET}|\.)*)*"
    r"(\?([A-Za-z0-9_~:.&=+,/-]|%[0-9A-Fa-f]{2})*)?\Z"
)
"""Paths of ours have no empty segments, none of dots alone, and no hidden slashes."""

_MOST_CHARACTERS: Final = 1024


def safe_path(path: str) -> str:
    """Return a path of the console as it is; anything else leads to its beginning."""
    if len(path) > _MOST_CHARACTERS or not _PATH.match(path):
        return HOME
    return path


def is_from_here(request: web.Request) -> bool:
    """
    Return whether a form may have been sent by one of our own pages.

    Browsers say where a request comes from; a client that says nothing is none, and
    then the token of the form decides alone.

    Standard:
        Fetch, section 3.2 (``Origin``); Fetch Metadata (``Sec-Fetch-Site``).
    """
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    # The scheme is ours: a page over plain HTTP gets no cookie of ours to send.
    return urlsplit(origin).netloc == request.headers.get("Host", "")


def comes_from_elsewhere(request: web.Request) -> bool:
    """Return whether a browser follows a link of another site."""
    return request.headers.get("Sec-Fetch-Site", "") in {"cross-site", "same-site"}

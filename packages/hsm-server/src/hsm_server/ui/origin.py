# SPDX-License-Identifier: MIT
"""Origin checks of requests, and safe redirect targets."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

HOME: Final = "/ui"
"""Path of the console's first page."""

_OCTET: Final = r"[A-Za-z0-9_~:-]|%(?!2[EeFf]|5[Cc]|[01])[0-9A-Fa-f]{2}"
_PATH: Final = re.compile(
    rf"/ui(/({_OCTET})({_OCTET}|\.)*)*"
    r"(\?([A-Za-z0-9_~:.&=+,/-]|%[0-9A-Fa-f]{2})*)?\Z"
)
"""Console paths: no empty segments, no dot segments, no encoded slashes."""

_MOST_CHARACTERS: Final = 1024


def safe_path(path: str) -> str:
    """Return a valid console path unchanged, and `HOME` for any other."""
    if len(path) > _MOST_CHARACTERS or not _PATH.match(path):
        return HOME
    return path


def is_same_origin(request: web.Request) -> bool:
    """
    Return whether a form can come from a page of this console.

    Browsers send the origin. Without one, the form token alone decides.

    Standard:
        Fetch, section 3.2 (``Origin``); Fetch Metadata (``Sec-Fetch-Site``).
    """
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    # The scheme needs no check: plain-HTTP pages get no cookies of the console.
    return urlsplit(origin).netloc == request.headers.get("Host", "")


def is_cross_origin(request: web.Request) -> bool:
    """Return whether a browser follows a link from another site."""
    return request.headers.get("Sec-Fetch-Site", "") in {"cross-site", "same-site"}

# SPDX-License-Identifier: MIT
"""
What can be read as HTTP, and is refused since somebody in front may read it otherwise.

What the parser itself refuses (two lengths, a length beside chunks, folded lines, bare
line feeds, blanks before a colon and their like; RFC 9112, section 11.2) never comes as
far as here.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from aiohttp import HttpVersion10, HttpVersion11, web

_VERSIONS: Final = {HttpVersion10, HttpVersion11}
_HOST: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:\d{0,5})?\Z"
)


def flaw_of(request: web.Request) -> str:
    """
    Return what is wrong with target, host or connection of a request; empty if nothing.

    Who is answered so must not go on with the same connection.
    """
    target = request.raw_path
    if request.version not in _VERSIONS:
        return "This server speaks HTTP/1.1."
    if request.method == "CONNECT" or "Upgrade" in request.headers:
        return "This server is no proxy, and speaks nothing but HTTP/1.1."
    host = request.headers.get("Host", "")
    if not _HOST.match(host):
        return "Host must be a name or an address, perhaps with a port."
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        # The parser takes others before it, and leaves it to us to undo them.
        return "The one transfer coding here is chunked."
    if "#" in target:
        return "A target has no fragment."
    if not target.startswith("/") and target != "*" and not _names(target, host):
        return "A target that is a URL must be https, of the name that Host has."
    return ""


def _names(target: str, host: str) -> bool:
    """Return whether an absolute target is of this very server."""
    try:
        found: SplitResult = urlsplit(target)
    except ValueError:
        return False
    return found.scheme == "https" and found.netloc.lower() == host.lower()

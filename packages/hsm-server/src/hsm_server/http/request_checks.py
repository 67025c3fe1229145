# SPDX-License-Identifier: MIT
"""
Checks of parsed requests against request smuggling.

The parser itself already rejects two lengths, a length with chunks, folded lines, bare
line feeds, blanks before a colon and similar requests (RFC 9112, section 11.2).
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
    Return the fault in target, host or connection of a request, or an empty text.

    Who is answered so must not go on with the same connection.
    """
    target = request.raw_path
    if request.version not in _VERSIONS:
        return "The HTTP version must be HTTP/1.1."
    if request.method == "CONNECT" or "Upgrade" in request.headers:
        return "CONNECT and Upgrade are not supported."
    host = request.headers.get("Host", "")
    if not _HOST.match(host):
        return "Host must be a name or an address, optionally with a port."
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        # The parser takes others before it, and leaves it to us to undo them.
        return "Transfer-Encoding must be chunked."
    if "#" in target:
        return "The request target must not contain a fragment."
    if not target.startswith("/") and target != "*" and not _names(target, host):
        return (
            "An absolute request target must be an https URL whose host equals the "
            "Host header."
        )
    return ""


def _names(target: str, host: str) -> bool:
    """Return whether an absolute target is of this very server."""
    try:
        found: SplitResult = urlsplit(target)
    except ValueError:
        return False
    return found.scheme == "https" and found.netloc.lower() == host.lower()

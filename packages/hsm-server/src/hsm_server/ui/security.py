# SPDX-License-Identifier: MIT
"""
Browser security: cookies, form tokens, origin checks and safe redirect targets.

The ``__Host-`` prefix prevents other hosts and plain-HTTP pages from setting cookies
(RFC 6265bis, section 4.1.3.2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

SESSION_COOKIE: Final = "__Host-ferrohsm"
"""Cookie with the secret of a session."""

BEFORE_COOKIE: Final = "__Host-ferrohsm-before"
"""Cookie with the secret of a browser before sign-in."""

FLASH_COOKIE: Final = "__Host-ferrohsm-flash"
"""Cookie with a message for the next page."""

_SECRET_CHARACTERS: Final = 43
_MOST_FLASH: Final = 1024


def new_secret() -> str:
    """Return 256 random bits, base64url: 43 characters."""
    return secrets.token_urlsafe(32)


def cookie_of(request: web.Request, name: str) -> str:
    """Return the secret in a cookie; empty if missing or malformed."""
    value = request.cookies.get(name, "")
    return value if len(value) == _SECRET_CHARACTERS and value.isascii() else ""


def form_token(secret: str) -> str:
    """
    Return the form token derived from a cookie's secret.

    It can't be made without the cookie, and does not reveal it.
    """
    return _mac(secret, b"form")


def set_cookie(
    response: web.StreamResponse,
    name: str,
    value: str,
    *,
    samesite: str = "Strict",
    seconds: int | None = None,
) -> None:
    """Set a cookie that scripts can't read, by default until the browser closes."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=True,
        httponly=True,
        samesite=samesite,
    )


def drop_cookie(response: web.StreamResponse, name: str) -> None:
    """Delete a cookie."""
    response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Strict")


def pack_flash(secret: str, text: str) -> str:
    """Return a message as a cookie value authenticated with *secret*."""
    data = base64.urlsafe_b64encode(text.encode()[:_MOST_FLASH]).decode()
    return f"{data}.{_mac(secret, b'flash' + data.encode())}"


def unpack_flash(secret: str, cookie: str) -> str:
    """Return the message of a cookie value; empty if not authentic."""
    if not secret:
        # Without a secret, it is not authenticated.
        return ""
    data, _, mac = cookie.partition(".")
    expected = _mac(secret, b"flash" + data.encode("utf-8", "replace"))
    if not hmac.compare_digest(expected.encode(), mac.encode("utf-8", "replace")):
        return ""
    try:
        return base64.urlsafe_b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def _mac(secret: str, purpose: bytes) -> str:
    key = hashlib.sha256(b"ferrohsm console " + secret.encode()).digest()
    mac = hmac.digest(key, purpose, hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


HOME: Final = "/ui"
"""Path of the console's first page."""

_OCTET: Final = r"[A-Za-z0-9_~:-]|%(?!2[EeFf]|5[Cc]|[01])[0-9A-Fa-f]{2}"
_PATH: Final = re.compile(
    rf"/ui(/({_OCTET})({_OCTET}|\.)*)*"
    r"(\?([A-Za-z0-9_~:.&=+,/-]|%[0-9A-Fa-f]{2})*)?\Z"
)
"""Console paths: no empty segments, no dot segments, no encoded slashes."""

_MOST_PATH_CHARACTERS: Final = 1024


def safe_path(path: str) -> str:
    """Return a valid console path unchanged, and `HOME` for any other."""
    if len(path) > _MOST_PATH_CHARACTERS or not _PATH.match(path):
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

# SPDX-License-Identifier: MIT
"""
The console's cookies, and the tokens of its forms that are made from them.

Names begin with ``__Host-``, so that no other host and no page over plain HTTP can set
them (RFC 6265bis, section 4.1.3.2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

from aiohttp import web

SESSION_COOKIE: Final = "__Host-ferrohsm"
"""Holds the secret of a session."""

BEFORE_COOKIE: Final = "__Host-ferrohsm-before"
"""Holds a secret of a browser that has not signed in yet."""

FLASH_COOKIE: Final = "__Host-ferrohsm-flash"
"""Holds a sentence for the next page."""

_MOST_CHARACTERS: Final = 43
_MOST_FLASH: Final = 1024


def new_secret() -> str:
    """Return 256 random bits, base64url: 43 characters."""
    return secrets.token_urlsafe(32)


def cookie_of(request: web.Request, name: str) -> str:
    """Return the secret in a cookie; empty where there is none that could be ours."""
    value = request.cookies.get(name, "")
    return value if len(value) == _MOST_CHARACTERS and value.isascii() else ""


def form_token(secret: str) -> str:
    """
    Return the token that forms carry, made from the secret of a cookie.

    Who can't read the cookie can't make it, and nobody who sees it learns the cookie.
    """
    return _mac(secret, b"form")


def set_cookie(response: web.StreamResponse, name: str, value: str) -> None:
    """Set a cookie for as long as the browser runs, out of the reach of scripts."""
    response.set_cookie(
        name, value, path="/", secure=True, httponly=True, samesite="Strict"
    )


def drop_cookie(response: web.StreamResponse, name: str) -> None:
    """Have a browser forget a cookie."""
    response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Strict")


def pack_flash(secret: str, text: str) -> str:
    """Return a sentence as a cookie that only the bearer of *secret* takes."""
    data = base64.urlsafe_b64encode(text.encode()[:_MOST_FLASH]).decode()
    return f"{data}.{_mac(secret, b'flash' + data.encode())}"


def unpack_flash(secret: str, cookie: str) -> str:
    """Return the sentence of such a cookie; empty where it is not ours."""
    if not secret:
        # Anybody could have made it.
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

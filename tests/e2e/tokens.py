# SPDX-License-Identifier: MIT
"""Bearer tokens made by hand, so that no code under test has a part in them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence


def mint(
    secret: bytes, principal: str, roles: Sequence[str], *, ttl_seconds: int = 3600
) -> str:
    """Return an HS256 token that is valid from now on."""
    now = int(time.time())
    claims = {
        "sub": principal,
        "roles": list(roles),
        "iat": now,
        "exp": now + ttl_seconds,
    }
    return sign_token(secret, {"alg": "HS256", "typ": "JWT"}, claims)


def sign_token(
    secret: bytes, header: Mapping[str, object], claims: Mapping[str, object]
) -> str:
    """Return a token with any header and claims under HMAC-SHA-256 (RFC 7515)."""
    signed = f"{_part(header)}.{_part(claims)}"
    tag = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64url(tag)}"


def _part(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

# SPDX-License-Identifier: MIT
"""Bearer tokens (JWT, RFC 7519): loading, minting and inspection."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from hsm_cli.identity.token_checks import check_by_keys, check_by_secret
from hsm_cli.identity.token_keys import TokenSigner, has_key, open_signer
from hsm_cli.settings import TokenSettings
from hsm_core.errors import (
    ConfigurationError,
    InvalidInputError,
    MalformedError,
)
from hsm_core.model import Record, parse_role
from hsm_core.secret_input import read_secret_text

_RENEW_SECONDS: Final = 30.0
_MAX_TTL_SECONDS: Final = 366 * 86400
_MAX_ACTOR_CHARACTERS: Final = 128
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class TokenFacts(Record, frozen=True, kw_only=True):
    """
    Header and claims of a token.

    Attributes:
        algorithm: ``alg`` of its header.
        header: All header parameters, as JSON values.
        claims: All claims, as JSON values.
        expires_in_seconds: Negative if it has expired; None if it never does.
        signature: ``valid``, or ``not verified`` if no key was given.
    """

    algorithm: str
    header: dict[str, Any]
    claims: dict[str, Any]
    expires_in_seconds: int | None
    signature: str


def mint_token(
    signer: TokenSigner,
    *,
    actor: str,
    roles: Sequence[str],
    ttl_seconds: int,
    issuer: str = "",
    now: float | None = None,
) -> str:
    """
    Mint a token.

    Args:
        signer: Signs the token.

        actor: Its subject, 1 to 128 characters without control characters.

        roles: Names of roles, in any accepted spelling.

        ttl_seconds: Its lifetime, at least 1.

        issuer: Its ``iss``; empty means none.

        now: Seconds since 1970; None means the current time.

    Raises:
        InvalidInputError: A role is unknown, there are no roles, the actor is invalid,
            or the lifetime is out of range.

    Standard:
        RFC 7519, RFC 7515 section 3.1.
    """
    _check_actor(actor)
    if not roles:
        raise InvalidInputError("roles must name at least one role.", field="roles")
    if not 1 <= ttl_seconds <= _MAX_TTL_SECONDS:
        raise InvalidInputError(
            f"token_ttl must be between 1 and {_MAX_TTL_SECONDS} seconds.",
            field="token_ttl",
        )
    issued_at = int(time.time() if now is None else now)
    claims: dict[str, Any] = {
        "sub": actor,
        "roles": sorted({parse_role(name).value for name in roles}),
        "iat": issued_at,
        "exp": issued_at + ttl_seconds,
        "jti": secrets.token_hex(16),
    }
    if issuer:
        claims["iss"] = issuer
    header = {"alg": signer.algorithm, "typ": "JWT"}
    if signer.kid:
        header["kid"] = signer.kid
    # Without joserfc, whose import takes longer than the rest of a command; the tests
    # verify the result with joserfc.
    signed = f"{_segment(header)}.{_segment(claims)}"
    return f"{signed}.{_base64url(signer.sign(signed.encode('ascii')))}"


def _check_actor(actor: str) -> None:
    if not actor:
        raise InvalidInputError("actor must not be empty.", field="actor")
    if len(actor) > _MAX_ACTOR_CHARACTERS or _CONTROLS.search(actor):
        raise InvalidInputError(
            f"actor must have at most {_MAX_ACTOR_CHARACTERS} characters, and no "
            "control characters.",
            field="actor",
        )


def _segment(members: dict[str, Any]) -> str:
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    try:
        return _base64url(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInputError(
            "actor and issuer must be Unicode text.", field="actor"
        ) from None


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def open_token(
    settings: TokenSettings, *, has_certificate: bool = False
) -> Callable[[], str]:
    """
    Return a function that returns the bearer token for each request.

    Secrets are read once, here. A minted token is reused until shortly before it
    expires. A token takes precedence over a secret.

    Args:
        settings: Source of the token.

        has_certificate: Whether there is a client certificate, which may be enough:
            the token is then empty if nothing else is configured.

    Raises:
        ConfigurationError: There is no credential, or it can't be read.
    """
    if settings.auth_token:
        text = read_secret_text(settings.auth_token, field="auth_token").strip()
        return lambda: text
    if not has_key(settings):
        if has_certificate:
            return lambda: ""
        raise ConfigurationError(
            "No credential. Pass --auth-token, --jwt-secret or --jwt-private-key, or "
            "set FERROHSM_AUTH_TOKEN or FERROHSM_JWT_SECRET.",
            field="auth_token",
        )
    return _Minter(settings)


class _Minter:
    def __init__(self, settings: TokenSettings) -> None:
        self._signer = open_signer(settings)
        self._settings = settings
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            now = time.monotonic()
            if now >= self._renew_at:
                settings = self._settings
                self._token = mint_token(
                    self._signer,
                    actor=settings.actor,
                    roles=settings.roles,
                    ttl_seconds=settings.ttl_seconds,
                    issuer=settings.issuer,
                )
                spare = min(_RENEW_SECONDS, settings.ttl_seconds / 2)
                self._renew_at = now + settings.ttl_seconds - spare
            return self._token


def inspect_token(
    token: str,
    *,
    secret: bytes | None = None,
    keys: bytes | None = None,
    now: float | None = None,
) -> TokenFacts:
    """
    Decode a token; its signature is verified only if a key is given.

    Args:
        token: JWS compact serialization, with any algorithm.

        secret: Verifies HS256.

        keys: A public key as PEM, a JWK or a JWK Set; verifies RS256, ES256 and EdDSA.
            Takes precedence over *secret*.

        now: Seconds since 1970; None means the current time.

    Raises:
        MalformedError: It is not a JWT in compact form.
        InvalidInputError: There is no key in *keys*.
        AuthenticationError: The signature does not match the key.
    """
    header, claims = _parts(token)
    algorithm = header.get("alg")
    if keys is not None:
        check_by_keys(token, header, keys)
    elif secret is not None:
        check_by_secret(token, secret)
    expires = claims.get("exp")
    left = None
    if isinstance(expires, int) and not isinstance(expires, bool):
        left = expires - int(time.time() if now is None else now)
    return TokenFacts(
        algorithm=algorithm if isinstance(algorithm, str) else "",
        header=header,
        claims=claims,
        expires_in_seconds=left,
        signature="not verified" if secret is None and keys is None else "valid",
    )


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from hsm_core import wire

    segments = token.split(".")
    if len(segments) != 3:
        raise MalformedError("The token is not a JWT: it must have three parts.")
    try:
        header, claims = (wire.scan_json(_unpadded(text)) for text in segments[:2])
    except (MalformedError, binascii.Error, ValueError):
        raise MalformedError("The token is not a JWT: it can't be decoded.") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise MalformedError(
            "The token is not a JWT: header and claims must be JSON objects."
        )
    return header, claims


def _unpadded(segment: str) -> bytes:
    return base64.b64decode(
        segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True
    )

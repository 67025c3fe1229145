# SPDX-License-Identifier: MIT
"""Bearer tokens (JWT, RFC 7519) of requests: loading, or minting with a local key."""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from hsm_client.defaults import TokenAlgorithm
from hsm_client.profile_secrets import open_profile_token
from hsm_client.settings import TokenSettings
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.model import parse_role
from hsm_core.secret_input import read_secret, read_secret_text

MIN_SECRET_BYTES: Final = 32
"""Shortest HS256 secret (RFC 7518, section 3.2)."""

_LEAST_RSA_BITS: Final = 2048
_FIELD: Final = "jwt_private_key"
_HEADERS: Final = {
    TokenAlgorithm.RS256: "RS256",
    TokenAlgorithm.ES256: "ES256",
    TokenAlgorithm.EDDSA: "EdDSA",
}
_KINDS: Final = {
    TokenAlgorithm.RS256: f"an RSA key of at least {_LEAST_RSA_BITS} bits",
    TokenAlgorithm.ES256: "an EC key on P-256",
    TokenAlgorithm.EDDSA: "an Ed25519 key",
}


class TokenSigner(msgspec.Struct, frozen=True):
    """
    Signer of tokens.

    Attributes:
        algorithm: ``alg`` of their header.
        kid: Their ``kid``; empty for none.
        sign: Returns the signature of bytes in JWS format.
    """

    algorithm: str
    kid: str
    sign: Callable[[bytes], bytes]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def secret_signer(secret: bytes, kid: str = "") -> TokenSigner:
    """Return an HS256 signer with a secret of at least `MIN_SECRET_BYTES`."""
    return TokenSigner("HS256", kid, lambda data: hmac.digest(secret, data, "sha256"))


def has_key(settings: TokenSettings) -> bool:
    """Return whether a signing key is configured."""
    return bool(settings.jwt_secret or settings.private_key)


def open_signer(settings: TokenSettings) -> TokenSigner:
    """
    Read the signing key of the settings.

    Raises:
        ConfigurationError: The key is missing, unreadable or for another algorithm.
        UnsafeFileModeError: Other users may read the file.
    """
    algorithm = settings.algorithm
    if algorithm is TokenAlgorithm.HS256:
        if not settings.jwt_secret:
            raise ConfigurationError(
                "hs256 requires --jwt-secret. To use --jwt-private-key, pass another "
                "--jwt-algorithm.",
                field="jwt_secret",
            )
        secret = read_secret(
            settings.jwt_secret,
            field="jwt_secret",
            minimum=MIN_SECRET_BYTES,
            exact=None,
        )
        return secret_signer(secret, settings.kid)
    if not settings.private_key:
        raise ConfigurationError(
            f"{algorithm.value} requires --jwt-private-key.", field=_FIELD
        )
    text = read_secret_text(f"@{settings.private_key}", field=_FIELD)
    return TokenSigner(_HEADERS[algorithm], settings.kid, _signing(text, algorithm))


def _signing(text: str, algorithm: TokenAlgorithm) -> Callable[[bytes], bytes]:
    # Deferred: importing these takes longer than a short command.
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    key = _load(text)
    match key, algorithm:
        case rsa.RSAPrivateKey(), TokenAlgorithm.RS256 if (
            key.key_size >= _LEAST_RSA_BITS
        ):
            return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey(), TokenAlgorithm.ES256 if isinstance(
            key.curve, ec.SECP256R1
        ):

            def sign(data: bytes) -> bytes:
                der = key.sign(data, ec.ECDSA(hashes.SHA256()))
                return b"".join(n.to_bytes(32) for n in decode_dss_signature(der))

            return sign
        case ed25519.Ed25519PrivateKey(), TokenAlgorithm.EDDSA:
            return key.sign
        case _:
            raise ConfigurationError(
                f"{_FIELD}: {algorithm.value} requires {_KINDS[algorithm]}.",
                field=_FIELD,
            )


def _load(text: str) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(text.encode(), None)
    except TypeError:
        problem = "encrypted private keys are not supported. Decrypt it first."
    except (ValueError, UnsupportedAlgorithm):
        problem = "the file must be a PEM private key."
    raise ConfigurationError(f"{_FIELD}: {problem}", field=_FIELD)


_RENEW_SECONDS: Final = 30.0
_MAX_TTL_SECONDS: Final = 366 * 86400
_MAX_ACTOR_CHARACTERS: Final = 128
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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
        "jti": os.urandom(16).hex(),
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
        if settings.profile is not None:
            return open_profile_token(settings.profile)
        if has_certificate:
            return lambda: ""
        raise ConfigurationError(
            "No credential. Sign in with hsm-cli login, pass --auth-token, "
            "--jwt-secret or --jwt-private-key, or set FERROHSM_AUTH_TOKEN or "
            "FERROHSM_JWT_SECRET.",
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

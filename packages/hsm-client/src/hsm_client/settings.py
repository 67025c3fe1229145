# SPDX-License-Identifier: MIT
"""Settings of a connection, of its credentials and of waiting times."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hsm_client.defaults import (
    DEFAULT_ENDPOINT,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TOKEN_TTL_SECONDS,
    TokenAlgorithm,
)
from hsm_client.profiles import Profile


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Source of the bearer token.

    Attributes:
        auth_token: A bearer token, or its location (``@PATH``, ``fd:N``).
        jwt_secret: Secret that signs minted tokens, or its location; see
            `hsm_core.secret_input`.
        actor: Subject of a minted token.
        roles: Names of its roles.
        ttl_seconds: Its lifetime.
        issuer: Its ``iss``, or empty for none.
        algorithm: Its signature algorithm.
        private_key: PEM file of the signing key, for all algorithms but HS256.
        kid: Its ``kid``, or empty for none.
        profile: Profile whose stored token is used if nothing else is set.
    """

    auth_token: str = ""
    jwt_secret: str = ""
    actor: str = "cli-operator"
    roles: tuple[str, ...] = ("operator",)
    ttl_seconds: int = DEFAULT_TOKEN_TTL_SECONDS
    issuer: str = ""
    algorithm: TokenAlgorithm = TokenAlgorithm.HS256
    private_key: Path | None = None
    kid: str = ""
    profile: Profile | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Connection settings and waiting times.

    Attributes:
        ca_bundle: PEM file of trusted CA certificates; None means the system's.
        client_cert: Client certificate: a PEM chain, or PKCS#12.
        client_key: PEM file with its key; None means it is in *client_cert*.
        client_key_password: Password of the key, if it is not that of a profile.
        insecure: Whether to skip verification of the server's certificate.
        timeout_seconds: Time limit of one attempt.
        waits: Whether to wait for approvals.
        wait_seconds: Maximum wait; None means until the request expires.
        profile: Profile of the connection, if there is one.
    """

    endpoint: str = DEFAULT_ENDPOINT
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    client_key_password: str = ""
    insecure: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    waits: bool = False
    wait_seconds: float | None = None
    profile: Profile | None = None
    token: TokenSettings = TokenSettings()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

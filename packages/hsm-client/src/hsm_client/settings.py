# SPDX-License-Identifier: MIT
"""Settings of a connection, of its credentials and of waiting times."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    # It loads the core's model, which help does not need.
    from hsm_client.profiles import Profile

DEFAULT_ENDPOINT: Final = "https://localhost:8443"
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_TOKEN_TTL_SECONDS: Final = 300
LONGEST_USUAL_TTL_SECONDS: Final = 86400
"""Longest token lifetime that servers accept by default."""


class TokenAlgorithm(StrEnum):
    """Signature algorithm of minted tokens, by its name on the command line."""

    HS256 = "hs256"
    RS256 = "rs256"
    ES256 = "es256"
    EDDSA = "eddsa"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
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

    auth_token: str = field(default="", repr=False)
    jwt_secret: str = field(default="", repr=False)
    actor: str = "cli-operator"
    roles: tuple[str, ...] = ("operator",)
    ttl_seconds: int = DEFAULT_TOKEN_TTL_SECONDS
    issuer: str = ""
    algorithm: TokenAlgorithm = TokenAlgorithm.HS256
    private_key: Path | None = None
    kid: str = ""
    profile: Profile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
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
    client_key_password: str = field(default="", repr=False)
    insecure: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    waits: bool = False
    wait_seconds: float | None = None
    profile: Profile | None = None
    token: TokenSettings = field(default_factory=TokenSettings)

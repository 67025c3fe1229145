# SPDX-License-Identifier: MIT
"""What the global flags and their environment variables say, parsed and immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

DEFAULT_ENDPOINT: Final = "https://localhost:8443"
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_TOKEN_TTL_SECONDS: Final = 300
LONGEST_USUAL_TTL_SECONDS: Final = 86400
"""Servers refuse tokens that are valid for longer, unless they are told otherwise."""


class TokenAlgorithm(StrEnum):
    """How minted tokens are signed, by the name that the command line has for it."""

    HS256 = "hs256"
    RS256 = "rs256"
    ES256 = "es256"
    EDDSA = "eddsa"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """
    Where the bearer token comes from.

    Attributes:
        auth_token: A finished token, or where one lies (``@PATH``, ``fd:N``).
        jwt_secret: Secret to mint tokens with, or where it lies; see
            `hsm_core.secret_input`.
        actor: Subject of a minted token.
        roles: Names of its roles.
        ttl_seconds: How long it is valid.
        issuer: Its ``iss``, or empty for none.
        algorithm: How it is signed.
        private_key: PEM file of the key, for all algorithms but HS256.
        kid: Its ``kid``, or empty for none.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """
    Which server is spoken to, and how.

    Attributes:
        ca_bundle: PEM file of trusted authorities; None means the system's.
        client_cert: PEM file with our certificate chain.
        client_key: PEM file with its key; None means it is in *client_cert*.
        insecure: The server's certificate is not checked.
        timeout_seconds: Longest wait for one attempt.
        waits: Whether to wait where other people must agree.
        wait_seconds: For how long at most; None means as long as they can.
    """

    endpoint: str = DEFAULT_ENDPOINT
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    waits: bool = False
    wait_seconds: float | None = None
    token: TokenSettings = field(default_factory=TokenSettings)

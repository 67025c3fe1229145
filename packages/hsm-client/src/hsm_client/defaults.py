# SPDX-License-Identifier: MIT
"""Default settings of a connection, and the algorithms of minted tokens."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

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

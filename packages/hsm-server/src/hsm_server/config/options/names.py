# SPDX-License-Identifier: MIT
"""Names of environment variables."""

from __future__ import annotations

from typing import Final

_RENAMED: Final = {
    "auth-jwt-secret": "FERROHSM_JWT_SECRET",
    "auth-jwt-config": "FERROHSM_JWT_CONFIG",
    "auth-jwt-issuer": "FERROHSM_JWT_ISSUER",
    "provider": "FERROHSM_PROVIDERS",
}
"""Variables with the original's names, or with more than their flag's value."""


def environment_name(flag: str) -> str:
    """Return the environment variable of a flag."""
    return _RENAMED.get(flag, "FERROHSM_" + flag.upper().replace("-", "_"))

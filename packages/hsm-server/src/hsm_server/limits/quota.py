# SPDX-License-Identifier: MIT
"""Quota headers of a response: the rest of a limit."""

from __future__ import annotations

import math

from hsm_core.errors import RateLimitedError
from hsm_core.model import Line, Record


class Quota(Record, frozen=True, kw_only=True):
    """
    Quota of a client after a request.

    Attributes:
        policy: Name of the limit: ``actor``, ``address`` or ``failures``.
        burst: Capacity.
        window_seconds: Time to refill an empty bucket.
        remaining: Rest that can be spent now.
        reset_seconds: Time until the bucket is full.
        wait_seconds: Time until a rejected request may be repeated; 0 if not rejected.
    """

    policy: Line
    burst: int
    window_seconds: int
    remaining: int
    reset_seconds: int
    wait_seconds: float = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """
        Header fields that tell it.

        Standard:
            draft-ietf-httpapi-ratelimit-headers-09, sections 3 and 4.
        """
        name = f'"{self.policy}"'
        return {
            "RateLimit-Policy": f"{name};q={self.burst};w={self.window_seconds}",
            "RateLimit": f"{name};r={self.remaining};t={self.reset_seconds}",
        }

    def error(self) -> RateLimitedError:
        """Return the error of a rejected request."""
        return RateLimitedError(
            limit=self.policy, retry_after_seconds=max(1, math.ceil(self.wait_seconds))
        )

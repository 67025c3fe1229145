# SPDX-License-Identifier: MIT
"""What is left of a limit, as the header fields of an answer tell it."""

from __future__ import annotations

import math

from hsm_core.errors import RateLimitedError
from hsm_core.model import Line, Record


class Quota(Record, frozen=True, kw_only=True):
    """
    What is left to somebody after a request.

    Attributes:
        policy: Which limit this is: ``actor``, ``address`` or ``failures``.
        burst: What may be spent at once.
        window_seconds: In which time all of it comes back.
        remaining: What may be spent now.
        reset_seconds: After which time all of it is back.
        wait_seconds: After which time a refused request may come again; 0 for one that
            was not refused.
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
        """Return what a request is refused with."""
        return RateLimitedError(
            limit=self.policy, retry_after_seconds=max(1, math.ceil(self.wait_seconds))
        )

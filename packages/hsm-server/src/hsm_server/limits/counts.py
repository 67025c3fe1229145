# SPDX-License-Identifier: MIT
"""Counter interface of limits."""

from __future__ import annotations

from typing import Protocol


class LimitCounts(Protocol):
    """Counters of allowed and rejected requests."""

    def count_allowed(self, limit: str) -> None:
        """Count one request that a limit has let through."""
        ...

    def count_blocked(self, limit: str) -> None:
        """Count one request that a limit has refused."""
        ...

    def show_buckets(self, limit: str, number: int) -> None:
        """Show how many callers have a bucket of their own."""
        ...

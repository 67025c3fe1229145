# SPDX-License-Identifier: MIT
"""Rate limit of authenticated callers, shared by all front ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from hsm_core.identities import identity
from hsm_core.model import Caller
from hsm_core.operations import Operation
from hsm_server.limits.buckets import Buckets, Rate
from hsm_server.limits.counts import LimitCounts
from hsm_server.limits.quota import Quota

_MOST_ACTORS: Final = 4096


class ActorLimiter:
    """
    Rate limiter of callers, weighted by operation.

    Args:
        rate: Rate of each caller.

        weigh: Returns the cost of an operation.

        metrics: Count.

        clock: Monotonic time, in seconds.
    """

    def __init__(
        self,
        rate: Rate,
        weigh: Callable[[Operation[Any]], int],
        metrics: LimitCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weigh = weigh
        self._metrics = metrics
        self._buckets = Buckets("actor", rate, _MOST_ACTORS, clock)

    def charge(self, caller: Caller, operation: Operation[Any] | None) -> Quota:
        """
        Charge a caller; see `Buckets.take`.

        Args:
            caller: Who asks, verified.

            operation: What for; None for what became no operation.
        """
        cost = 1 if operation is None else self._weigh(operation)
        quota = self._buckets.take(identity(caller.principal), cost)
        if quota.wait_seconds:
            self._metrics.count_blocked(quota.policy)
        else:
            self._metrics.count_allowed(quota.policy)
        self._metrics.show_buckets("actor", len(self._buckets))
        return quota

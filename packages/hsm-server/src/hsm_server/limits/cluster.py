# SPDX-License-Identifier: MIT
"""Limits that the nodes of a cluster share: lockouts, and division of rates."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final

from hsm_core.errors import HSMError
from hsm_core.protocols import SharedState
from hsm_server.config.settings import RateLimits
from hsm_server.limits.buckets import (
    FORGOTTEN_SECONDS,
    LONGEST_SECONDS,
    lockout_seconds,
)
from hsm_server.limits.guard import ClusterLimits, peer_of

_ROUND_SECONDS: Final = 0.5
_MOST_PENDING: Final = 4096
_MOST_SENT: Final = 128
_LONGEST_PEER: Final = 64


class LimitExchange:
    """
    Exchange of failures and lockouts with the other nodes, for a vault.

    Twice a second, all failures since the last time go to the database in one
    statement, and lockouts come back: an address that fails all the time costs no more
    than that. Of a flood of addresses, those with the most failures are sent; others
    count on this node alone, as all do while the database is gone.

    Args:
        shared: State of the cluster.

        rates: Limits of this node.

    Attributes:
        on_change: Called with what is found first, and then if it says anything new.
    """

    def __init__(self, shared: SharedState, rates: RateLimits) -> None:
        self._shared = shared
        self._rates = rates
        self._pending: dict[str, int] = {}
        self._divisor = 0
        self.on_change: Callable[[ClusterLimits], None] = lambda _: None

    def note_failure(self, address: str) -> None:
        """Count a failure of a network address."""
        peer = peer_of(address)
        if peer in self._pending or len(self._pending) < _MOST_PENDING:
            self._pending[peer] = self._pending.get(peer, 0) + 1

    async def run(self) -> None:
        """Exchange until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            pending, self._pending = self._pending, {}
            try:
                found = await asyncio.to_thread(self._exchange, pending)
            except HSMError:
                # What was not sent counts on this node, whose address guards know it.
                continue
            if found.lockouts or found.divisor != self._divisor:
                self._divisor = found.divisor
                self.on_change(found)

    def _exchange(self, pending: dict[str, int]) -> ClusterLimits:
        rates, shared = self._rates, self._shared
        divisor = shared.nodes_live if rates.divided else 1
        if not (free := rates.free_failures):
            return ClusterLimits(divisor=divisor)
        sent = heapq.nlargest(_MOST_SENT, pending.items(), key=lambda item: item[1])
        found = shared.count_failures(
            dict(sent),
            free=free,
            forgotten=int(FORGOTTEN_SECONDS),
            recent=int(LONGEST_SECONDS),
        )
        left = {
            peer: lockout_seconds(failures.count, free) - failures.age_seconds
            for peer, failures in found.items()
        }
        # Nobody vouches for what the database says.
        lockouts = {
            peer: min(seconds, LONGEST_SECONDS)
            for peer, seconds in left.items()
            if seconds > 0 and len(peer) <= _LONGEST_PEER
        }
        return ClusterLimits(divisor=divisor, lockouts=lockouts)

# SPDX-License-Identifier: MIT
"""Conversion of settings to limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hsm_core.operations import Operation
from hsm_server.config.settings import RateLimits
from hsm_server.limits.actors import ActorLimiter
from hsm_server.limits.buckets import Rate
from hsm_server.limits.counts import LimitCounts
from hsm_server.limits.guard import AddressGuard


def actor_limiter(
    rates: RateLimits,
    weigh: Callable[[Operation[Any]], int],
    metrics: LimitCounts,
) -> ActorLimiter | None:
    """Return the rate limiter of callers, for a vault; None without limits."""
    if not rates.per_second:
        return None
    return ActorLimiter(Rate(rates.per_second, rates.burst), weigh, metrics)


def address_guard(rates: RateLimits, metrics: LimitCounts) -> AddressGuard:
    """Return the address limits, for a front end."""
    rate = None
    if rates.address_per_second:
        rate = Rate(rates.address_per_second, rates.address_burst)
    return AddressGuard(rate, rates.free_failures or None, metrics)

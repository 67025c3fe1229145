# SPDX-License-Identifier: MIT
"""
Limits per caller and address: rate limits, lockouts, address attribution.

All state is bounded, in memory, on monotonic time, and lost on a restart.
"""

from hsm_server.limits.actors import ActorLimiter
from hsm_server.limits.guard import AddressGuard
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.limits.setting import actor_limiter, address_guard

__all__ = [
    "ActorLimiter",
    "AddressGuard",
    "SourceAddresses",
    "actor_limiter",
    "address_guard",
]

# SPDX-License-Identifier: MIT
"""
What one caller may cost: buckets, lock-outs, and who counts as one.

All of it lives in memory that is bounded, runs on monotonic time, and is gone after a
restart.
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

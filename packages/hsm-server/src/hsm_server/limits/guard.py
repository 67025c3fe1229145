# SPDX-License-Identifier: MIT
"""Limits per network address, applied before authentication."""

from __future__ import annotations

import hashlib
import ipaddress
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta

from hsm_core.model import Record
from hsm_core.operations import Operation
from hsm_server.config.settings import RateLimits
from hsm_server.limits.buckets import (
    ActorLimiter,
    Buckets,
    LimitCounts,
    Lockouts,
    Quota,
    Rate,
)


@lru_cache(maxsize=1024)
def peer_of(address: str) -> str:
    """
    Return the network prefix of a peer: an IPv4 address, or a /64 of IPv6.

    A network of IPv6 has 2^64 addresses for a single machine to use. What is no address
    is all the same, such as the ends of Unix sockets.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


class ClusterLimits(Record, frozen=True, kw_only=True):
    """
    What the limits of a node depend on in a cluster.

    Attributes:
        divisor: Number of nodes that share a rate limit; 1 if they don't.
        lockouts: Seconds that are left of each lockout, by network prefix; see
            `peer_of`.
    """

    divisor: Annotated[int, Meta(ge=1)] = 1
    lockouts: Mapping[str, float] = {}


_MOST_ADDRESSES: Final = 16384
_MOST_GOOD: Final = 4096
_GOOD_SECONDS: Final = 60.0


class _Good(NamedTuple):
    """Recently authenticated clients, with the end of their exemption."""

    principal: str
    until: float


class AddressGuard:
    """
    Address limits and lockouts of one front end.

    Args:
        rate: Rate of requests per address, and of a known client's requests that become
            no operation; None is unlimited.

        free_failures: Failed authentications of an address before a lockout; None
            disables lockouts.

        metrics: Count.

        clock: Monotonic time, in seconds.
    """

    def __init__(
        self,
        rate: Rate | None,
        free_failures: int | None,
        metrics: LimitCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._good: OrderedDict[bytes, _Good] = OrderedDict()
        self._buckets = self._strays = self._lockouts = None
        if rate is not None:
            self._buckets = Buckets("address", rate, _MOST_ADDRESSES, clock)
            self._strays = Buckets("address", rate, _MOST_GOOD, clock)
        if free_failures is not None:
            self._lockouts = Lockouts(free_failures, _MOST_ADDRESSES, clock)

    def take_in(self, found: ClusterLimits) -> None:
        """Hold the lockouts of other nodes, and the share of one of them."""
        for buckets in (self._buckets, self._strays):
            if buckets is not None:
                buckets.divide(found.divisor)
        if self._lockouts is not None:
            for peer, seconds in found.lockouts.items():
                self._lockouts.lock_out(peer, seconds)

    def admit(self, address: str, shown: bytes) -> Quota | None:
        """
        Return why a request is not looked at, or None.

        Args:
            address: Network address of the request.

            shown: Digest of the presented credentials; see `credential_digest`.
        """
        if self.is_good(shown):
            return None
        peer = peer_of(address)
        refusal = self._locked_out(peer) or self._spend(peer)
        if refusal is not None:
            self._metrics.count_blocked(refusal.policy)
        return refusal

    def refusal(self, address: str) -> Quota | None:
        """Return the reason to reject unauthenticated requests; charges nothing."""
        peer = peer_of(address)
        if (why := self._locked_out(peer)) or self._buckets is None:
            return why
        return self._buckets.refusal(peer)

    def _locked_out(self, peer: str) -> Quota | None:
        return self._lockouts.refusal(peer) if self._lockouts is not None else None

    def _spend(self, peer: str) -> Quota | None:
        if self._buckets is None:
            return None
        quota = self._buckets.take(peer)
        self._metrics.show_buckets("address", len(self._buckets))
        return quota if quota.wait_seconds else None

    def is_good(self, shown: bytes) -> bool:
        """
        Return whether a credential was accepted recently.

        A client over its limit of stray requests loses the exemption.
        """
        found = self._good.get(shown)
        if found is None or found.until <= self._clock():
            return False
        return self._strays is None or self._strays.refusal(found.principal) is None

    def note_good(self, shown: bytes, principal: str) -> None:
        """Record an accepted credential."""
        self._good[shown] = _Good(principal, self._clock() + _GOOD_SECONDS)
        self._good.move_to_end(shown)
        if len(self._good) > _MOST_GOOD:
            self._good.popitem(last=False)

    def note_stray(self, shown: bytes) -> None:
        """Charge a known client for a request that became no operation."""
        found = self._good.get(shown)
        if found is not None and self._strays is not None:
            self._strays.take(found.principal)

    def note_failure(self, address: str, shown: bytes) -> None:
        """
        Record a failed authentication.

        Requests without a credential do not count towards a lockout.
        """
        if not shown:
            return
        self._good.pop(shown, None)
        if self._lockouts is not None:
            self._lockouts.fail(peer_of(address))


_LENGTHS: Final = struct.Struct(">III")


def credential_digest(authorization: bytes, cookie: bytes, certificate: bytes) -> bytes:
    """
    Return a digest of the credentials of a request, so that memory never holds them.

    The certificate counts only if there are no others.

    Args:
        authorization: Value of the header field.

        cookie: Value of the header field.

        certificate: Client certificate, DER.

    Returns:
        Empty if the request shows none.
    """
    if authorization or cookie:
        certificate = b""
    elif not certificate:
        return b""
    lengths = _LENGTHS.pack(len(authorization), len(cookie), len(certificate))
    return hashlib.sha256(lengths + authorization + cookie + certificate).digest()


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

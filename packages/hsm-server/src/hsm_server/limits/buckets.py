# SPDX-License-Identifier: MIT
"""Rate limits: token buckets, lockouts, and bounded tables of per-client state."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from hsm_core.errors import RateLimitedError
from hsm_core.identities import identity
from hsm_core.model import Caller, Line, Record
from hsm_core.operations import Operation

T = TypeVar("T")

_SHARED: Final = 64
_LOOKS: Final = 2


class BoundedTable(Generic[T]):
    """
    Bounded table that never evicts to the client's advantage.

    Only entries equal to a new one are removed: otherwise an attacker could reset a
    limit by using many names. When the table is full, new clients share a few entries
    by a keyed hash that differs in every process, so a flood does not affect known
    clients. A shared entry stays until it equals a new one.

    Args:
        most: Maximum number of individual entries.

        new: Creates a new entry.

        is_nothing: Returns whether an entry equals a new one at an instant.
    """

    def __init__(
        self,
        most: int,
        new: Callable[[], T],
        is_nothing: Callable[[T, float], bool],
    ) -> None:
        self._most = most
        self._new = new
        self._is_nothing = is_nothing
        self._known: OrderedDict[str, T] = OrderedDict()
        self._shared = [new() for _ in range(_SHARED)]

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> T:
        """Return the entry of a client, without creating one."""
        found = self._known.get(key)
        return found if found is not None else self._share(key)

    def place(self, key: str, now: float) -> T:
        """Return the entry of a client; creates one if needed."""
        found = self._known.get(key)
        if found is not None:
            return found
        self._make_room(now)
        shared = self._share(key)
        if len(self._known) >= self._most or not self._is_nothing(shared, now):
            return shared
        made = self._known[key] = self._new()
        return made

    def drop(self, key: str) -> None:
        """Remove the individual entry of a client."""
        self._known.pop(key, None)

    def _share(self, key: str) -> T:
        return self._shared[hash(key) % _SHARED]

    def _make_room(self, now: float) -> None:
        """Check two entries in turn; more would be work for every new client."""
        for _ in range(min(_LOOKS, len(self._known))):
            key, found = self._known.popitem(last=False)
            if not self._is_nothing(found, now):
                self._known[key] = found


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


_ROUNDING: Final = 1e-6
"""Tolerance for sums of many small steps, in seconds."""


@dataclass(frozen=True, slots=True)
class Rate:
    """
    Rate and burst of a limit.

    Attributes:
        per_second: Refill per second; more than 0.
        burst: Capacity; at least 1.
    """

    per_second: float
    burst: int


class _Bucket:
    """Bucket that is full from *full_at* on."""

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        self.full_at = -math.inf


class Buckets:
    """
    Token buckets of all callers.

    A request that costs more than the capacity needs a full bucket, and leaves it in
    debt, so that large requests are not cheaper.

    Args:
        policy: Name of the limit, in header fields.

        rate: Rate of each bucket.

        most: Maximum number of individual buckets; see `BoundedTable`.

        clock: Monotonic time, in seconds.
    """

    def __init__(
        self, policy: str, rate: Rate, most: int, clock: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._whole = self._rate = rate
        self._clock = clock
        self._table = BoundedTable(most, _Bucket, lambda b, now: b.full_at <= now)

    def __len__(self) -> int:
        return len(self._table)

    def divide(self, nodes: int) -> None:
        """Let clients have the share of one of several nodes from now on."""
        whole = self._whole
        burst = max(1, whole.burst // nodes)
        self._rate = Rate(whole.per_second / nodes, burst)

    def take(self, key: str, cost: int = 1) -> Quota:
        """
        Spend *cost*, if that may be; what is refused costs nothing.

        Args:
            key: Client.

            cost: At least 1.

        Returns:
            What is left. Its ``wait_seconds`` are more than 0 where it was refused.
        """
        now = self._clock()
        bucket = self._table.place(key, now)
        if refused := self._refused(bucket, now, cost):
            return refused
        bucket.full_at = max(bucket.full_at, now) + cost / self._rate.per_second
        return self._quota(bucket.full_at - now, 0.0)

    def refusal(self, key: str) -> Quota | None:
        """Return why 1 can't be spent now, or None if it can; it costs nothing."""
        return self._refused(self._table.find(key), self._clock(), 1)

    def _refused(self, bucket: _Bucket, now: float, cost: int) -> Quota | None:
        full_at, rate = max(bucket.full_at, now), self._rate
        # From which instant on it holds enough.
        enough_at = full_at - (rate.burst - min(cost, rate.burst)) / rate.per_second
        if enough_at - now > _ROUNDING:
            return self._quota(full_at - now, enough_at - now)
        return None

    def _quota(self, until_full: float, wait: float) -> Quota:
        rate = self._rate
        remaining = math.floor(rate.burst - (until_full - _ROUNDING) * rate.per_second)
        return Quota(
            policy=self._policy,
            burst=rate.burst,
            window_seconds=max(1, math.ceil(rate.burst / rate.per_second)),
            remaining=max(0, remaining),
            reset_seconds=math.ceil(until_full - _ROUNDING),
            wait_seconds=wait,
        )


_FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
FORGOTTEN_SECONDS: Final = 300.0
_MOST_DOUBLINGS: Final = 10


class _Failures:
    """Failures of an address, and the end of its lockout."""

    __slots__ = ("count", "last", "until")

    def __init__(self) -> None:
        self.count = 0
        self.last = self.until = -math.inf


class Lockouts:
    """
    Failure counter that locks out for 1, 2, 4, up to 60 seconds.

    Five minutes without a failure reset the count. During a lockout nothing is
    verified, so nothing can fail.

    Args:
        free: Number of failures without a lockout.

        most: Maximum number of individual counters; see `BoundedTable`.

        clock: Monotonic time, in seconds.
    """

    def __init__(self, free: int, most: int, clock: Callable[[], float]) -> None:
        self._free = free
        self._clock = clock
        self._table = BoundedTable(most, _Failures, _is_forgotten)

    def __len__(self) -> int:
        return len(self._table)

    def refusal(self, key: str) -> Quota | None:
        """Return the reason of a lockout, or None."""
        now, found = self._clock(), self._table.find(key)
        if found.until <= now:
            return None
        wait = found.until - now
        return Quota(
            policy="failures",
            burst=self._free,
            window_seconds=int(FORGOTTEN_SECONDS),
            remaining=0,
            reset_seconds=int(wait) + 1,
            wait_seconds=wait,
        )

    def fail(self, key: str) -> None:
        """Count one failure."""
        now = self._clock()
        found = self._table.place(key, now)
        if _is_forgotten(found, now):
            found.count = 0
        found.count += 1
        found.last = now
        found.until = max(found.until, now + lockout_seconds(found.count, self._free))

    def lock_out(self, key: str, seconds: float) -> None:
        """Lock out a client that has failed elsewhere, too."""
        now = self._clock()
        found = self._table.place(key, now)
        found.until = max(found.until, now + seconds)


def lockout_seconds(count: int, free: int) -> float:
    """Return how long a lockout lasts after so many failures; 0 without one."""
    if count <= free:
        return 0.0
    doublings = min(count - free - 1, _MOST_DOUBLINGS)
    return min(_FIRST_SECONDS * 2.0**doublings, LONGEST_SECONDS)


def _is_forgotten(found: _Failures, now: float) -> bool:
    return now - max(found.last, found.until) >= FORGOTTEN_SECONDS


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

    def divide(self, nodes: int) -> None:
        """See `Buckets.divide`."""
        self._buckets.divide(nodes)

    def charge(self, caller: Caller, operation: Operation[Any] | None) -> Quota:
        """
        Charge a caller; see `Buckets.take`.

        Args:
            caller: Authenticated caller.

            operation: Requested operation; None if it could not be decoded.
        """
        cost = 1 if operation is None else self._weigh(operation)
        quota = self._buckets.take(identity(caller.principal), cost)
        if quota.wait_seconds:
            self._metrics.count_blocked(quota.policy)
        else:
            self._metrics.count_allowed(quota.policy)
        self._metrics.show_buckets("actor", len(self._buckets))
        return quota

# SPDX-License-Identifier: MIT
"""How one process keeps the right to write a vault, and how the next one gets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.remote.leases import RemoteLeases, WriterLease
from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core._internal.time.clock import SystemClock
from hsm_core.errors import StoreLockedError, StoreUnavailableError
from hsm_core.protocols import Clock, Lease
from hsm_core.testing import FakeClock


class FaultyLeases(RemoteLeases):
    """Leases that can't always be asked."""

    is_away = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryVault(), clock, SystemEntropy())

    def renew(self, lease: Lease, seconds: float, /) -> Lease:
        """Renew, unless nobody answers."""
        if self.is_away:
            raise StoreUnavailableError
        return super().renew(lease, seconds)


def begun(leases: FaultyLeases, clock: FakeClock, holder: str = "first") -> WriterLease:
    """Return a tenure whose thread does not get its turn."""
    tenure = WriterLease(leases, clock, holder, renew_seconds=3600)
    tenure.begin(patient=False)
    return tenure


def is_held(tenure: WriterLease) -> bool:
    """Return whether a tenure lasts, which may change from one line to the next."""
    return tenure.is_held


def test_thread_renews() -> None:
    """
    The lease is renewed by itself for as long as the tenure lasts, and then given up.
    """
    before = set(threading.enumerate())
    clock = SystemClock()
    leases = FaultyLeases(clock)
    renewed = threading.Semaphore(0)
    renew = leases.renew

    def counted(lease: Lease, seconds: float, /) -> Lease:
        renewed.release()
        return renew(lease, seconds)

    leases.renew = counted  # type: ignore[method-assign]
    tenure = WriterLease(leases, clock, "first", renew_seconds=0.01)
    tenure.begin(patient=False)

    assert all(renewed.acquire(timeout=60) for _ in range(3))
    assert is_held(tenure)
    tenure.end(release=True)
    assert not is_held(tenure)
    assert 2 == leases.acquire("writer", "second", 1).epoch
    mine = set(threading.enumerate()) - before
    assert not [thread for thread in mine if thread.name == "hsm-core-lease"]


def test_unanswered_renewals() -> None:
    """
    A tenure outlives some unanswered renewals, but not the end of its lease.
    """
    clock = FakeClock()
    leases = FaultyLeases(clock)
    tenure = begun(leases, clock)
    leases.is_away = True
    clock.advance(15)
    tenure.renew()
    assert is_held(tenure)
    leases.is_away = False
    tenure.renew()
    clock.advance(15)
    assert is_held(tenure)

    leases.is_away = True
    clock.advance(10)
    tenure.renew()

    assert not is_held(tenure)
    tenure.end(release=True)


def test_end_before_others_begin() -> None:
    """
    A tenure ends some seconds before anybody else can begin one.
    """
    clock = FakeClock()
    leases = FaultyLeases(clock)
    tenure = begun(leases, clock)
    seconds = 0
    while is_held(tenure):
        clock.advance(1)
        seconds += 1

    assert 20 <= seconds <= 25
    with pytest.raises(StoreLockedError):
        begun(leases, clock, "second")
    clock.advance(30 - seconds)
    begun(leases, clock, "second").end(release=True)
    tenure.renew()
    assert not is_held(tenure)


@pytest.mark.parametrize("seconds", [-3600, 25])
def test_clock_that_is_set(seconds: int) -> None:
    """
    A wall clock set back doesn't make a tenure longer, and one set forward ends it.
    """
    clock = FakeClock()
    tenure = begun(FaultyLeases(clock), clock)
    clock.step(seconds)

    assert is_held(tenure) == (seconds < 0)

    clock.advance(25)
    assert not is_held(tenure)
    tenure.end(release=False)


@pytest.mark.parametrize(("others", "is_news"), [(0, False), (1, True)])
def test_resumption(others: int, *, is_news: bool) -> None:
    """
    A tenure that was lost begins again, and tells whether others were there meanwhile.
    """
    clock = FakeClock()
    leases = FaultyLeases(clock)
    tenure = begun(leases, clock)
    epoch = tenure.epoch
    clock.advance(60)
    for _ in range(others):
        begun(leases, clock, "second").end(release=True)

    assert is_news == tenure.resume()

    assert is_held(tenure)
    assert epoch < tenure.epoch
    assert not tenure.resume()
    tenure.end(release=True)


def passing(
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Let sleeping move the clock, and other things happen meanwhile."""

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        meanwhile()

    monkeypatch.setattr(time, "sleep", sleep)


def test_patience_with_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who is patient gets the right when the lease of a killed process ends.
    """
    clock = FakeClock()
    leases = FaultyLeases(clock)
    begun(leases, clock)
    passing(monkeypatch, clock)
    tenure = WriterLease(leases, clock, "second", renew_seconds=3600)

    tenure.begin(patient=True)

    assert is_held(tenure)
    assert 2 == tenure.epoch
    tenure.end(release=True)


def test_no_patience_with_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A lease that is renewed shows that its holder lives, so nobody waits for its end.
    """
    clock = FakeClock()
    leases = FaultyLeases(clock)
    first = begun(leases, clock)
    passing(monkeypatch, clock, first.renew)
    began = clock.monotonic()

    with pytest.raises(StoreLockedError, match="first"):
        WriterLease(leases, clock, "second").begin(patient=True)

    assert clock.monotonic() < began + 5
    first.end(release=True)


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A lease that ends too far away, by a clock that is wrong, is not waited for.
    """
    clock = FakeClock()
    leases = FaultyLeases(clock)
    leases.acquire("writer", "first", 24 * 3600.0)
    passing(monkeypatch, clock)
    monkeypatch.setattr(time, "monotonic", clock.monotonic)

    with pytest.raises(StoreLockedError):
        WriterLease(leases, clock, "second").begin(patient=True)

    assert clock.monotonic() < 60

# SPDX-License-Identifier: MIT
"""
Clock-jump guard: ages of things, independent of jumps of the wall clock.

A wall clock can jump forwards: a wrong time server, a failed battery, a suspended
machine. Work scheduled days ahead must not all come due at once then. So the guard does
not count what the wall clock gains on the monotonic one, beyond a day in the life of a
process; nor, between two processes, more than a week. A jump is stored as the span of
wall time to leave out, and applies only to instants before it. When the clock is set
right again, the rest of the span is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, TypeVar

import msgspec

from hsm_core._internal.lib import encoding
from hsm_core.errors import MalformedError
from hsm_core.protocols import Clock

OFF: Final = 7 * 24 * 3600 * 1_000_000
"""Longest downtime of an HSM that counts in full, in microseconds."""

SLACK: Final = 24 * 3600 * 1_000_000
"""Tolerated gain of the wall clock on the monotonic one in one process."""

_HOUR: Final = 3600 * 1_000_000
_MOST: Final = 32
_JUMPS: Final = b"leaps"
_LOOK: Final = b"look"

T = TypeVar("T")
U = TypeVar("U")


class ClockJump(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True
):
    """Span of wall time that does not count, in microseconds since 1970."""

    begin: int
    end: int


class ClockJumpGuard:
    """
    Clock-jump guard: computes ages from the time that is known to have passed.

    Callers use it at least once an hour. Thread-safe.

    Args:
        clock: The wall clock and the monotonic one.

        newest: Last sign of life of an HSM with these keys, such as its newest audit
            record; 0 if there is none.

        kept: Known clock jumps, ascending.

        on_change: Called with all jumps when one is added or removed; if it raises, it
            is called again at the next look.

        on_look: Called with the wall time at the first look and then once an hour; it
            may raise. As *newest* of the next process, this time is more reliable than
            that of a record, which may have been written during an undetected jump.
    """

    def __init__(
        self,
        clock: Clock,
        newest: int = 0,
        kept: Sequence[ClockJump] = (),
        on_change: Callable[[tuple[ClockJump, ...]], None] = lambda _: None,
        on_look: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._on_look = on_look
        self._looked_at: int | None = None
        self._lock = threading.Lock()
        self._jumps = self._told = tuple(kept)
        self._slack = SLACK
        self._wall, self._at = clock.now(), clock.monotonic()
        self._vouched = self._wall
        if newest:
            self._vouched = newest - self._left_out(newest)
            self._note(self._wall, newest, newest + OFF)

    def __repr__(self) -> str:
        return "<ClockJumpGuard>"

    def look(self) -> tuple[ClockJump, ...]:
        """Read the clocks, and return the known jumps, ascending."""
        with self._lock:
            self._advance()
            if self._jumps != self._told:
                self._on_change(self._jumps)
                self._told = self._jumps
            if self._looked_at is None or abs(self._wall - self._looked_at) >= _HOUR:
                self._on_look(self._wall)
                self._looked_at = self._wall
            return self._jumps

    def now(self) -> int:
        """
        Return the current instant for a later `age`, in microseconds since 1970.

        It is the wall time, or a later one while the wall clock is behind a known
        instant; so correcting the clock makes nothing old.
        """
        with self._lock:
            return self._advance()

    def age(self, at: int) -> int:
        """
        Return how much time is known to have passed since an instant.

        Args:
            at: Microseconds since 1970, by the wall clock of then. Where that was
                behind, an age may be too high; one of an instant of `now` is not.

        Returns:
            Microseconds, 0 or more.
        """
        with self._lock:
            now = self._advance()
            uncounted = sum(
                max(0, min(jump.end, now) - max(jump.begin, at)) for jump in self._jumps
            )
            return max(0, now - at - uncounted)

    def since(self, at: int, allowed: int) -> int:
        """
        Return the current time for something that began at *at*.

        Args:
            at: Microseconds since 1970.

            allowed: Jumps that ended before this instant count as time.

        Returns:
            Microseconds since 1970, not after `now`.
        """
        now = self.now()
        uncounted = sum(
            max(0, min(jump.end, now) - max(jump.begin, at))
            for jump in self.look()
            if jump.end > allowed
        )
        return now - uncounted

    def _left_out(self, until: int) -> int:
        """Return how much of the wall time before an instant does not count."""
        return sum(max(0, min(jump.end, until) - jump.begin) for jump in self._jumps)

    def _advance(self) -> int:
        wall, at = self._clock.now(), self._clock.monotonic()
        passed = max(0, int((at - self._at) * 1_000_000))
        self._at = at
        self._vouched += passed
        expected = self._wall + passed
        # A clock that was set back, and then right, has not jumped.
        known = max(expected, self._vouched)
        gained = max(0, wall - known)
        if gained <= self._slack:
            self._slack -= gained
            known += gained
        self._note(wall, expected, known)
        return max(self._wall, self._vouched)

    def _note(self, wall: int, expected: int, known: int) -> None:
        """Update the state with the wall time, where *known* is the accepted time."""
        if wall < expected:
            self._jumps = _until(self._jumps, wall)
        elif wall > known:
            self._jumps = _bounded((*self._jumps, ClockJump(known, wall)))
        self._wall = wall
        self._vouched = max(self._vouched, wall - self._left_out(wall))


def _bounded(jumps: tuple[ClockJump, ...]) -> tuple[ClockJump, ...]:
    """Join spans that touch, and the oldest two if there are too many."""
    joined = [jumps[0]]
    for before, jump in pairwise(jumps):
        if jump.begin <= before.end:
            joined[-1] = ClockJump(joined[-1].begin, jump.end)
        else:
            joined.append(jump)
    if len(joined) > _MOST:
        joined[:2] = [ClockJump(joined[0].begin, joined[1].end)]
    return tuple(joined)


def seconds_of(jumps: Sequence[ClockJump]) -> int:
    """Return how much time does not count, in seconds."""
    return sum(jump.end - jump.begin for jump in jumps) // 1_000_000


def jumps_of(recorded: Iterable[tuple[int, int]]) -> tuple[ClockJump, ...]:
    """
    Return the clock jumps that records tell of.

    Args:
        recorded: The time of each record of a change of the known jumps, and their
            `seconds_of` then, in the order of the log.

    Returns:
        The jumps, each up to a second longer than it was.
    """
    jumps: tuple[ClockJump, ...] = ()
    before = 0
    for at, seconds in recorded:
        if seconds > before:
            begin = at - (seconds - before + 1) * 1_000_000
            jumps = _bounded((*jumps, ClockJump(begin, at)))
        else:
            jumps = _until(jumps, at)
        before = seconds
    return jumps


def merged(histories: Iterable[Sequence[ClockJump]]) -> tuple[ClockJump, ...]:
    """Return all jumps of several histories, ascending."""
    found = sorted((j.begin, j.end) for history in histories for j in history)
    jumps: tuple[ClockJump, ...] = ()
    for begin, end in found:
        latest = jumps[-1].end if jumps else end
        jumps = _bounded((*jumps, ClockJump(begin, max(end, latest))))
    return jumps


def _until(jumps: Sequence[ClockJump], wall: int) -> tuple[ClockJump, ...]:
    return tuple(
        ClockJump(jump.begin, min(jump.end, wall))
        for jump in jumps
        if jump.begin < wall
    )


def encode_jumps(jumps: Sequence[ClockJump], mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of clock jumps."""
    return _sealed(_JUMPS, tuple(jumps), mac_of)


def decode_jumps(
    stored: bytes | None, mac_of: Callable[[bytes], bytes]
) -> tuple[ClockJump, ...] | None:
    """Return clock jumps from their stored form; None if it is not authentic."""
    return _opened(_JUMPS, stored, mac_of, tuple[ClockJump, ...], None)


def encode_look(wall: int, mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of the time of a look."""
    return _sealed(_LOOK, wall, mac_of)


def decode_look(stored: bytes | None, mac_of: Callable[[bytes], bytes]) -> int:
    """Return the time of a look from its stored form; 0 if it is not authentic."""
    return _opened(_LOOK, stored, mac_of, int, 0)


def _sealed(name: bytes, value: object, mac_of: Callable[[bytes], bytes]) -> bytes:
    payload = msgspec.json.encode(value)
    return encoding.join(name, payload, mac_of(payload))


def _opened(
    name: bytes,
    stored: bytes | None,
    mac_of: Callable[[bytes], bytes],
    kind: type[T],
    default: U,
) -> T | U:
    try:
        payload = encoding.check(name, stored, mac_of) if stored else None
        if payload is not None:
            return msgspec.json.decode(payload, type=kind)
    except (MalformedError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    return default

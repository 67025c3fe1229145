# SPDX-License-Identifier: MIT
"""
How much time is known to have passed, whatever the wall clock says.

A wall clock can leap forwards: a wrong time server, a battery that failed, a machine
that slept. What waits for days must not all come due at once then. So what the wall
clock gains on the monotonic one is not counted, beyond a day in the life of a process;
nor, of the time between two of these, what is more than a week. A leap is remembered as
the span of wall time that was left out, and counts for instants before it alone. When
the clock is set right again, what is left of the span goes with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from hsm_core._internal.lib import envelope
from hsm_core.errors import MalformedError
from hsm_core.protocols import Clock

OFF: Final = 7 * 24 * 3600 * 1_000_000
"""How long an HSM may have been off, in microseconds, and all of it be counted."""

SLACK: Final = 24 * 3600 * 1_000_000
"""What the wall clock may gain on the monotonic one while a process lives."""

_HOUR: Final = 3600 * 1_000_000
_MOST: Final = 32
_NAME: Final = b"leaps"
_LOOK: Final = b"look"


class Leap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A span of wall time that does not count, in microseconds since 1970."""

    begin: int
    end: int


class Leaps:
    """
    Tells how old something is by the time that is known to have passed.

    Whoever judges what is due asks it often, at least once an hour. Safe for many
    threads.

    Args:
        clock: The wall clock and the monotonic one.

        newest: When an HSM with these keys last gave a sign of life, such as the newest
            record of its trail; 0 if there is none.

        kept: Leaps that are known already, ascending.

        on_change: Told all leaps when there is another, or one has gone; it may raise,
            and is told again at the next look then.

        on_look: Told what the wall clock says, at the first look and then once an hour;
            it may raise. As *newest* this tells the next process more than a record
            does, which may have been written while nobody had noticed a leap.
    """

    def __init__(
        self,
        clock: Clock,
        newest: int = 0,
        kept: Sequence[Leap] = (),
        on_change: Callable[[tuple[Leap, ...]], None] = lambda _: None,
        on_look: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._on_look = on_look
        self._looked_at: int | None = None
        self._lock = threading.Lock()
        self._leaps = self._told = tuple(kept)
        self._slack = SLACK
        self._wall, self._at = clock.now(), clock.monotonic()
        self._vouched = self._wall
        if newest:
            self._vouched = newest - self._left_out(newest)
            self._note(self._wall, newest, newest + OFF)

    def __repr__(self) -> str:
        return "<Leaps>"

    def look(self) -> tuple[Leap, ...]:
        """Look at the clocks, and return the leaps that are known, ascending."""
        with self._lock:
            self._advance()
            if self._leaps != self._told:
                self._on_change(self._leaps)
                self._told = self._leaps
            if self._looked_at is None or abs(self._wall - self._looked_at) >= _HOUR:
                self._on_look(self._wall)
                self._looked_at = self._wall
            return self._leaps

    def now(self) -> int:
        """
        Return an instant from which `age` counts well, in microseconds since 1970.

        It is the wall clock's, or a later one while that is behind what is known to
        have been already; so setting it right makes nothing old.
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
                max(0, min(leap.end, now) - max(leap.begin, at)) for leap in self._leaps
            )
            return max(0, now - at - uncounted)

    def _left_out(self, until: int) -> int:
        """Return how much of the wall time before an instant does not count."""
        return sum(max(0, min(leap.end, until) - leap.begin) for leap in self._leaps)

    def _advance(self) -> int:
        wall, at = self._clock.now(), self._clock.monotonic()
        passed = max(0, int((at - self._at) * 1_000_000))
        self._at = at
        self._vouched += passed
        expected = self._wall + passed
        # A clock that was set back, and then right, has not leapt.
        known = max(expected, self._vouched)
        gained = max(0, wall - known)
        if gained <= self._slack:
            self._slack -= gained
            known += gained
        self._note(wall, expected, known)
        return max(self._wall, self._vouched)

    def _note(self, wall: int, expected: int, known: int) -> None:
        """Take note of what the wall clock says, where *known* is what is believed."""
        if wall < expected:
            self._leaps = tuple(
                Leap(leap.begin, min(leap.end, wall))
                for leap in self._leaps
                if leap.begin < wall
            )
        elif wall > known:
            self._leaps = _bounded((*self._leaps, Leap(known, wall)))
        self._wall = wall
        self._vouched = max(self._vouched, wall - self._left_out(wall))


def _bounded(leaps: tuple[Leap, ...]) -> tuple[Leap, ...]:
    """Join spans that touch, and the oldest two if there are too many."""
    joined = [leaps[0]]
    for before, leap in pairwise(leaps):
        if leap.begin <= before.end:
            joined[-1] = Leap(joined[-1].begin, leap.end)
        else:
            joined.append(leap)
    if len(joined) > _MOST:
        joined[:2] = [Leap(joined[0].begin, joined[1].end)]
    return tuple(joined)


def encode_leaps(leaps: Sequence[Leap], mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of leaps."""
    payload = msgspec.json.encode(tuple(leaps))
    return envelope.join(_NAME, payload, mac_of(payload))


def decode_leaps(
    stored: bytes | None, mac_of: Callable[[bytes], bytes]
) -> tuple[Leap, ...]:
    """Return leaps from their stored form; none where it can't be believed."""
    try:
        payload = envelope.check(_NAME, stored, mac_of) if stored else None
        if payload is not None:
            return msgspec.json.decode(payload, type=tuple[Leap, ...])
    except (MalformedError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    return ()


def encode_look(wall: int, mac_of: Callable[[bytes], bytes]) -> bytes:
    """Return the stored form of the instant of a look."""
    payload = msgspec.json.encode(wall)
    return envelope.join(_LOOK, payload, mac_of(payload))


def decode_look(stored: bytes | None, mac_of: Callable[[bytes], bytes]) -> int:
    """Return the instant of a look from its stored form; 0 if it can't be believed."""
    try:
        payload = envelope.check(_LOOK, stored, mac_of) if stored else None
        if payload is not None:
            return msgspec.json.decode(payload, type=int)
    except (MalformedError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    return 0

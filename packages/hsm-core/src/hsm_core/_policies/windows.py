# SPDX-License-Identifier: MIT
"""Windows of time that a rule holds in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from hsm_core._policies.schema import Day, TimeSection
from hsm_core._policies.texts import Path, policy_fault

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = int(datetime.max.replace(tzinfo=UTC).timestamp()) - 86400 * 2
_DAYS: Final = tuple(Day)
_WHOLE_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow:
    """
    When a rule holds.

    Attributes:
        days: Days of the week, Monday being 0; None for all.
        begin: Minute of the day at which it begins.
        end: Minute of the day before which it ends; on the next day, if that is not
            later than *begin*.
        zone: On whose clock.
        not_before: Microseconds since 1970, or None.
        not_after: Microseconds since 1970, or None.
    """

    days: frozenset[int] | None
    begin: int
    end: int
    zone: ZoneInfo
    not_before: int | None
    not_after: int | None

    def holds(self, at: int) -> bool:
        """Return whether an instant, in microseconds since 1970, lies within it."""
        if self.not_before is not None and at < self.not_before:
            return False
        if self.not_after is not None and at >= self.not_after:
            return False
        if self.days is None and (self.begin, self.end) == (0, _WHOLE_DAY):
            return True
        minute, day = _on_the_wall(self.zone, at // 1_000_000)
        if self.begin < self.end:
            return self.begin <= minute < self.end and self._on(day)
        if minute >= self.begin:
            return self._on(day)
        return minute < self.end and self._on((day - 1) % 7)

    def _on(self, day: int) -> bool:
        return self.days is None or day in self.days

    def stated(self) -> list[object]:
        """Return it in a form that can be hashed."""
        days = None if self.days is None else sorted(self.days)
        span = [self.begin, self.end, self.not_before, self.not_after]
        return [days, *span, self.zone.key]


@lru_cache(maxsize=256)
def _on_the_wall(zone: ZoneInfo, second: int) -> tuple[int, int]:
    """Return minute of the day and day of the week; many windows ask for the same."""
    shown = _EPOCH + timedelta(seconds=max(min(second, _LATEST), 0))
    local = shown.astimezone(zone)
    return local.hour * 60 + local.minute, local.weekday()


def read_window(section: TimeSection, path: Path) -> TimeWindow:
    """
    Return the window that a section of a policy file means.

    Raises:
        InvalidInputError: It is empty, or holds an instant or zone that is none.
    """
    begin, end = _minute(section.from_), _minute(section.to)
    if begin == end or begin == _WHOLE_DAY:
        raise policy_fault("from and to must differ.", (*path, "to"))
    not_before = _instant(section.not_before, (*path, "not_before"))
    not_after = _instant(section.not_after, (*path, "not_after"))
    if None not in (not_before, not_after) and (not_before or 0) >= (not_after or 0):
        raise policy_fault(
            "not_after must be later than not_before.", (*path, "not_after")
        )
    days = None
    if section.days is not None and len(set(section.days)) < len(_DAYS):
        days = frozenset(_DAYS.index(day) for day in section.days)
    return TimeWindow(
        days=days,
        begin=begin,
        end=end,
        zone=_zone(section.zone, (*path, "zone")),
        not_before=not_before,
        not_after=not_after,
    )


def _minute(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _instant(text: str, path: Path) -> int | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise policy_fault(
            "The time must be ISO 8601, such as 2030-01-31T12:00:00Z.", path
        ) from None
    if found.tzinfo is None:
        raise policy_fault("The time must have a UTC offset, or Z.", path)
    try:
        return (found - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise policy_fault("The time must lie in the years 1 to 9999.", path) from None


def _zone(name: str, path: Path) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise policy_fault(
            f"Unknown time zone {name!r}. Use an IANA name, such as Europe/Vienna.",
            path,
        ) from None

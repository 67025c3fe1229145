# SPDX-License-Identifier: MIT
"""What a row of the benchmarks finds: a figure beside its goal, or why not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """
    A figure of today.

    Attributes:
        what: What was measured, in a few words.

        value: In *unit*.

        unit: ``x`` for a ratio; else as it is written behind a number.

        goal: In *unit*.

        is_floor: Whether *value* shall be the goal or more, rather than or less.

        note: What else was seen, or how the figure falls short of the goal's words.
    """

    what: str
    value: float
    unit: str
    goal: float
    is_floor: bool
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached, with the value as it was measured."""
        if self.is_floor:
            return self.value >= self.goal
        return self.value <= self.goal


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Something that could not be measured, and why."""

    what: str
    why: str


Finding = Figure | Absent


def at_least(
    goal: float, what: str, value: float, unit: str = "x", note: str = ""
) -> Figure:
    """Return a figure that shall be large."""
    return Figure(
        what=what, value=value, unit=unit, goal=goal, is_floor=True, note=note
    )


def at_most(
    goal: float, what: str, value: float, unit: str = "x", note: str = ""
) -> Figure:
    """Return a figure that shall be small."""
    return Figure(
        what=what, value=value, unit=unit, goal=goal, is_floor=False, note=note
    )

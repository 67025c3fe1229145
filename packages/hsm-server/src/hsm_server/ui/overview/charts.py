# SPDX-License-Identifier: MIT
"""Line charts as points of an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 240
HEIGHT: Final = 64
_MOST_POINTS: Final = 60
_STEP: Final = WIDTH / (_MOST_POINTS - 1)


@dataclass(frozen=True, slots=True)
class Chart:
    """
    A line chart and its values as text.

    Attributes:
        title: Title, with the unit.
        now: The newest value, as text.
        most: The maximum, as text.
        line: ``points`` of the line; empty where there are fewer than two.
        area: ``points`` of the area below the line.
    """

    title: str
    now: str
    most: str
    line: str
    area: str


def chart(title: str, values: Sequence[float]) -> Chart:
    """
    Return the chart of values, newest last.

    The newest is at the right edge; the maximum is at the top.

    Args:
        title: Title, with the unit.

        values: Not negative. Only the last 60 are shown.
    """
    shown = list(values)[-_MOST_POINTS:]
    top = max(shown, default=0.0)
    begin = WIDTH - (len(shown) - 1) * _STEP
    points = [
        f"{begin + index * _STEP:.1f},{_height(value, top):.1f}"
        for index, value in enumerate(shown)
    ]
    line = " ".join(points) if len(points) > 1 else ""
    area = f"{begin:.1f},{HEIGHT} {line} {WIDTH},{HEIGHT}" if line else ""
    return Chart(title, _short(shown[-1] if shown else 0.0), _short(top), line, area)


def _height(value: float, top: float) -> float:
    # A line of 2 units must fit between both edges.
    return HEIGHT - 2 - (value / top if top > 0 else 0.0) * (HEIGHT - 4)


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

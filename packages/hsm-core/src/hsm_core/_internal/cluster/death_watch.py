# SPDX-License-Identifier: MIT
"""Death watch: which nodes have not beaten for too long, by the observer's own time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec


class Pace(msgspec.Struct, frozen=True):
    """
    Intervals of a membership, in seconds.

    Attributes:
        beat: Between two beats.
        gap: Who has not looked for so long may have been stopped itself, and begins
            again.
        dead: A node whose beat has not changed for so long is fenced.
    """

    beat: float = 0.5
    gap: float = 1.5
    dead: float = 3.0


PACE: Final = Pace()

Beat: TypeAlias = tuple[str, int, int]
"""Process, epoch and beat of a node."""


class DeathWatch:
    """
    Beats of the other nodes, as one observer has seen them.

    No clocks are compared: a node is dead when its beat was seen unchanged for several
    seconds of the observer's monotonic clock. Time in which the observer did not look,
    or had no connection, does not count.

    Args:
        pace: How long that is.
    """

    def __init__(self, pace: Pace = PACE) -> None:
        self._pace = pace
        self._seen: dict[str, tuple[Beat, float]] = {}
        self._looked_at: float | None = None

    def restart(self) -> None:
        """Begin again, as after a lost connection."""
        self._seen.clear()
        self._looked_at = None

    def observe(
        self, beats: Mapping[str, Beat], began: float, ended: float
    ) -> list[str]:
        """
        Note the beats of the other nodes, and return the nodes that are dead.

        Args:
            beats: By the name of the node.

            began: Instant of the observer's monotonic clock before they were read.

            ended: Instant after that.
        """
        if self._looked_at is not None and began - self._looked_at > self._pace.gap:
            self._seen.clear()
        self._looked_at = ended
        before, self._seen = self._seen, {}
        for node, beat in beats.items():
            known = before.get(node)
            is_same = known is not None and known[0] == beat
            self._seen[node] = known if known and is_same else (beat, ended)
        dead = self._pace.dead
        return [node for node, (_, at) in self._seen.items() if began - at >= dead]

# SPDX-License-Identifier: MIT
"""Schedule status: the schedulers' findings of their last pass over all keys."""

from __future__ import annotations

from dataclasses import dataclass

from hsm_core.operations import ScheduleStatus


@dataclass(slots=True)
class Schedule:
    """
    Written by schedulers, read by status queries; each value is replaced.

    Attributes:
        rotating: Number of keys with automatic rotation.
        rotations_due: Number of those that are due and not rotated yet.
        destructions: Number of keys with a scheduled destruction.
        destructions_due: Number of those that are due.
        held: Number of those delayed by a clock jump.
        left_out_seconds: Wall time that does not count, in seconds.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0

    def status(self) -> ScheduleStatus:
        """Return the values as a status."""
        return ScheduleStatus(
            rotating=self.rotating,
            rotations_due=self.rotations_due,
            destructions=self.destructions,
            destructions_due=self.destructions_due,
            held=self.held,
            left_out_seconds=self.left_out_seconds,
        )

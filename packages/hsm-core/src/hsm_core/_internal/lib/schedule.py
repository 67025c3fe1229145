# SPDX-License-Identifier: MIT
"""What the schedulers found when they last looked at every key, for all to see."""

from __future__ import annotations

from dataclasses import dataclass

from hsm_core.operations import ScheduleStatus


@dataclass(slots=True)
class Schedule:
    """
    Written by schedulers, read by whoever tells the status; each value is replaced.

    Attributes:
        rotating: Keys that the HSM rotates by itself.
        rotations_due: Those of them that are due, and could not be rotated yet.
        destructions: Keys that wait for their destruction.
        destructions_due: Those of them whose time is over.
        held: Those of these that wait because the clock leapt.
        left_out_seconds: How much of the wall clock's time does not count.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0

    def status(self) -> ScheduleStatus:
        """Return the values in the form that is told."""
        return ScheduleStatus(
            rotating=self.rotating,
            rotations_due=self.rotations_due,
            destructions=self.destructions,
            destructions_due=self.destructions_due,
            held=self.held,
            left_out_seconds=self.left_out_seconds,
        )

# SPDX-License-Identifier: MIT
"""Runs simulations: one seed, one life of an HSM over a year or more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.simulation.actors import PEOPLE, act
from tests.simulation.oracle import ViolationError
from tests.simulation.surroundings import YEAR
from tests.simulation.world import World

STEPS: Final = 28
"""How much happens in one life."""

_LOOKED_AT: Final = 40


@dataclass(frozen=True, slots=True)
class Life:
    """
    What one seed came to.

    Attributes:
        years: How much time passed.
        points: How often each point was reached.
    """

    seed: int
    years: float
    crashes: int
    points: dict[str, int]


class FailedLifeError(AssertionError):
    """A life in which something was not as it must be; its text tells the story."""


def simulate(
    seed: int, *, steps: int = STEPS, tell: Callable[[str], None] | None = None
) -> Life:
    """
    Live the life of a seed.

    Raises:
        FailedLifeError: Something was not as it must be.
    """
    story: list[str] = []

    def note(line: str) -> None:
        story.append(line)
        if tell is not None:
            tell(line)

    world = World(seed, note)
    try:
        with world:
            for _ in range(steps):
                act(world)
            world.go_on(max(0.0, YEAR - world.time.passed))
            _look_back(world)
    except Exception as error:
        raise FailedLifeError(_report(seed, story, error)) from error
    return Life(seed, world.time.passed / YEAR, world.crashes, world.points)


def _look_back(world: World) -> None:
    """At the end all is done that is due, and all that was made is what it must be."""
    if world.has_good_clock and not world.was_long_off:
        for _ in range(3):
            world.go_on(3700)
        late = world.oracle.overdue()
        if late:
            raise ViolationError(f"The HSM should have done something of {late}.")
    world.restart()
    for _ in range(3):
        world.go_on(3700)
    world.oracle.check_ledger()
    items = world.oracle.items
    for item in world.rng.sample(items, min(len(items), _LOOKED_AT)):
        world.process(item, PEOPLE[2])
    world.restart()


def _report(seed: int, story: list[str], error: Exception) -> str:
    return "\n".join(
        [
            *story[-60:],
            f"seed {seed}: {type(error).__name__}: {error}",
            f"To see it again: python -m tests.simulation --seed {seed}",
        ]
    )

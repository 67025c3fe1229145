# SPDX-License-Identifier: MIT
"""
Histories of concurrent steps on one approval, and whether they are linearizable.

A history is linearizable if its steps can be put in an order that respects which was
over before which began, and in which a small sequential model gives the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LATE = "reserved, and expired meanwhile"
_OPEN = frozenset({"pending", "granted"})


@dataclass(frozen=True)
class Step:
    """
    One step and its answer.

    Attributes:
        kind: ``approve``, ``deny``, ``cancel``, ``execute`` or ``expire``.
        who: Who made it.
        answer: State that was answered, ``done``, ``refused``, or ``lost``: the power
            went before there was one, and it was done or was not.
        began: When, by a counter that all threads share.
        ended: The same.
    """

    kind: str
    who: str
    answer: str
    began: int
    ended: int


@dataclass(frozen=True)
class Model:
    """The sequential model: an approval that ann asked for, for one use."""

    quorum: int
    state: str = "pending"
    granted: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def after(self, step: Step) -> Model | None:
        """Return the model after a step; None if it would have answered otherwise."""
        after, answer = getattr(self, f"_{step.kind}")(step.who)
        told = step.answer
        # What is reserved is between granted and consumed, and may be seen so.
        same = told == answer or (told == "reserved" and answer in _SEEN)
        return after if same else None

    def outcomes(self, step: Step) -> list[tuple[Model, list[Step]]]:
        """
        Return what may be after a step, and what then comes by itself.

        That is nothing if the step can't be. Of an execution that the power interrupted
        others may have seen that the approval was reserved, until it was given back.
        """
        if step.answer != "lost":
            after = self.after(step)
            return [] if after is None else [(after, [])]
        done = getattr(self, f"_{step.kind}")(step.who)[0]
        found: list[tuple[Model, list[Step]]] = [(self, []), (done, [])]
        if step.kind == "execute" and done.state == "consumed" != self.state:
            back = Step("release", step.who, "passed", step.began, step.ended)
            found.append((self._moved("reserved"), [back]))
        return found

    def _approve(self, who: str) -> tuple[Model, str]:
        if who == "ann" or who in self.denied:
            return self, "refused"
        if who in self.granted:
            return self, "reserved" if self.state == _LATE else self.state
        if self.state not in _OPEN:
            return self, "refused"
        granted = self.granted | {who}
        state = "granted" if len(granted) >= self.quorum else "pending"
        return Model(self.quorum, state, granted, self.denied), state

    def _deny(self, who: str) -> tuple[Model, str]:
        if who == "ann" or who in self.granted:
            return self, "refused"
        if who in self.denied:
            return self, self.state
        if self.state not in _OPEN:
            return self, "refused"
        denied = self.denied | {who}
        return Model(self.quorum, "denied", self.granted, denied), "denied"

    def _cancel(self, who: str) -> tuple[Model, str]:
        if who != "ann":
            return self, "refused"
        if self.state in _OPEN:
            return self._moved("cancelled"), "cancelled"
        return self, self.state if self.state == "cancelled" else "refused"

    def _execute(self, who: str) -> tuple[Model, str]:
        if who == "ann" and self.state == "granted":
            return self._moved("consumed"), "done"
        return self, "refused"

    def _expire(self, who: str) -> tuple[Model, str]:
        if self.state == "reserved":
            return self._moved(_LATE), "passed"
        return (self._moved("expired") if self.state in _OPEN else self), "passed"

    def _release(self, who: str) -> tuple[Model, str]:
        return self._moved("expired" if self.state == _LATE else "granted"), "passed"

    def _moved(self, state: str) -> Model:
        return Model(self.quorum, state, self.granted, self.denied)


_SEEN = frozenset({"granted", "consumed"})


def is_linearizable(steps: Sequence[Step], model: Model, final: str) -> bool:
    """Return whether some order explains all answers, and the state at the end."""
    if not steps:
        return model.state == final
    first_end = min(step.ended for step in steps)
    for place, step in enumerate(steps):
        if step.began > first_end:
            continue  # Another one was over before it began.
        rest = [*steps[:place], *steps[place + 1 :]]
        if any(
            is_linearizable([*rest, *more], after, final)
            for after, more in model.outcomes(step)
        ):
            return True
    return False

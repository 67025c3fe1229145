# SPDX-License-Identifier: MIT
"""
Linearizability of the uses and changes of one key.

A history is linearizable if its calls can be put in an order that respects which was
over before which began, and in which one key that lives alone gives the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

NEVER: Final = float("inf")
UNKNOWN: Final = "unknown"
"""Answer of a call that was made or not, and perhaps is made later."""

KINDS: Final = ("sign", "rotate", "suspend", "resume")


@dataclass(frozen=True)
class Call:
    """
    One call and its answer.

    Attributes:
        kind: One of `KINDS`.
        answer: Version that signed, ``ok``, ``refused`` (the key's state does not
            permit it) or `UNKNOWN`.
        began: When, by a clock that all nodes share.
        ended: The same; `NEVER` for an unknown answer.
        node: Which node was asked.
    """

    kind: str
    answer: str
    began: float
    ended: float
    node: str = field(default="", compare=False)


class Key(NamedTuple):
    """State of a key: its current version, and whether that is suspended."""

    version: int = 1
    is_suspended: bool = False

    def after(self, kind: str) -> tuple[Key, str]:
        """Return the state after a call, and its answer."""
        if kind == "resume":
            if not self.is_suspended:
                return self, "refused"
            return Key(self.version), "ok"
        if self.is_suspended:
            return self, "refused"
        if kind == "sign":
            return self, str(self.version)
        if kind == "rotate":
            return Key(self.version + 1), "ok"
        return Key(self.version, is_suspended=True), "ok"


_State: TypeAlias = tuple[frozenset[int], Key]


def is_linearizable(calls: Sequence[Call]) -> bool:
    """Return whether calls of one key have a right order."""
    # A use without an answer changes nothing and says nothing.
    calls = [c for c in calls if c.kind != "sign" or c.answer != UNKNOWN]
    known = frozenset(n for n, c in enumerate(calls) if c.answer != UNKNOWN)
    pending: list[_State] = [(frozenset(range(len(calls))), Key())]
    seen: set[_State] = set(pending)
    while pending:
        left, key = pending.pop()
        if not left & known:
            return True
        first = min(calls[n].ended for n in left)
        for number in left:
            call = calls[number]
            if call.began > first:
                continue
            after, answer = key.after(call.kind)
            if call.answer not in {answer, UNKNOWN}:
                continue
            state = left - {number}, after
            if state not in seen:
                seen.add(state)
                pending.append(state)
    return False

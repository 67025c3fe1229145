# SPDX-License-Identifier: MIT
"""
Distribution of TLS states from the TLS manager to all front ends.

A state is a sealed memory file with private keys. It is passed on as a descriptor and
never read here.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hsm_server.ipc.control import UseTLS, UsingTLS
from hsm_server.processes.child_process import ChildProcess
from hsm_server.system.secret_handover import is_sealed

_LONGEST_SECONDS: Final = 5.0
"""Time limit of a front end, which is then restarted."""

_MOST_QUEUED: Final = 4
"""Start value; a restarted TLS manager waits for its own response."""


@dataclass(frozen=True, slots=True)
class _Edition:
    """
    Distributed state.

    Attributes:
        generation: Generation of the TLS manager.
        serial: Number of this distribution, unique per state.
    """

    generation: int
    descriptor: int
    serial: int


class Distribution:
    """
    Distribution of one state after the other.

    A state that no front end accepts is not in force. Where some accept it and others
    reject it, the others are restarted, so a compromised front end cannot block a new
    certificate.

    Args:
        front_ends: The front ends. A new one receives the newest state; one that ends
            is no longer awaited.

        answer: Called with the generation that all use, or with the reason that none
            does.
    """

    def __init__(
        self,
        front_ends: Sequence[ChildProcess],
        answer: Callable[[int, str], None],
    ) -> None:
        self._front_ends = front_ends
        self._answer = answer
        self._in_force: _Edition | None = None
        self._under_way: _Edition | None = None
        self._queue: deque[tuple[int, int]] = deque()
        self._waiting: set[ChildProcess] = set()
        self._refusals: dict[ChildProcess, str] = {}
        self._is_asked = self._is_used = False
        self._timer: asyncio.TimerHandle | None = None
        self._serial = 0

    @property
    def newest(self) -> int | None:
        """Descriptor of the newest state that is given out, if there is one."""
        edition = self._under_way or self._in_force
        return None if edition is None else edition.descriptor

    def publish(self, generation: int, descriptor: int) -> None:
        """
        Distribute a state to all front ends.

        Args:
            generation: Generation of the state.

            descriptor: Sealed file; this object closes it.
        """
        if not is_sealed(descriptor):
            os.close(descriptor)
            self._answer(generation, "The published TLS state is not sealed.")
            return
        if len(self._queue) >= _MOST_QUEUED:
            os.close(descriptor)
            self._answer(generation, "The published TLS state is too large.")
            return
        self._queue.append((generation, descriptor))
        self._go_on()

    def greet(self, front_end: ChildProcess) -> bool:
        """Send the newest state to a new front end; return whether there is one."""
        edition = self._under_way or self._in_force
        if edition is None:
            return False
        if edition is self._under_way:
            self._waiting.add(front_end)
        front_end.tell(UseTLS(edition.serial), edition.descriptor)
        return True

    def note(self, front_end: ChildProcess, message: UsingTLS) -> None:
        """Take an answer, if one is expected."""
        edition = self._under_way
        if edition is None or message.serial != edition.serial:
            return
        if front_end not in self._waiting:
            return
        if message.error:
            self._refusals[front_end] = message.error
        else:
            self._is_used = True
        self._waiting.discard(front_end)
        self._end_if_answered()

    def forget(self, front_end: ChildProcess) -> None:
        """Expect no answer of a front end, whose end it may be."""
        self._waiting.discard(front_end)
        self._refusals.pop(front_end, None)
        self._end_if_answered()

    def close(self) -> None:
        """Stop distributing, and discard all states."""
        self._stop_clock()
        self._waiting.clear()
        editions = (self._in_force, self._under_way)
        kept = {edition.descriptor for edition in editions if edition is not None}
        for descriptor in (*kept, *(queued for _, queued in self._queue)):
            os.close(descriptor)
        self._queue.clear()
        self._in_force = self._under_way = None

    def _go_on(self) -> None:
        if self._under_way is None and self._queue:
            self._give(*self._queue.popleft())

    def _give(self, generation: int, descriptor: int) -> None:
        self._serial += 1
        edition = _Edition(generation, descriptor, self._serial)
        self._under_way = edition
        self._waiting = {child for child in self._front_ends if child.is_ready}
        self._refusals.clear()
        self._is_asked, self._is_used = bool(self._waiting), False
        self._stop_clock()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LONGEST_SECONDS, self._replace_silent)
        for child in self._waiting:
            child.tell(UseTLS(edition.serial), descriptor)
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        edition = self._under_way
        if edition is None or self._waiting:
            return
        self._stop_clock()
        self._under_way = None
        if self._is_asked and not self._is_used and self._in_force is not None:
            self._drop(edition)
        else:
            self._put_in_force(edition)
        self._go_on()

    def _drop(self, edition: _Edition) -> None:
        """Keep the former state, which all front ends still use."""
        os.close(edition.descriptor)
        error = next(
            iter(self._refusals.values()), "No front end uses the new TLS state."
        )
        self._answer(edition.generation, error)

    def _put_in_force(self, edition: _Edition) -> None:
        """Restart the front ends that rejected a state which others use."""
        former, self._in_force = self._in_force, edition
        if former is not None:
            os.close(former.descriptor)
        # Before anybody relies on it.
        for child, error in list(self._refusals.items()):
            child.replace(
                f"The process {child.slot} rejected the new TLS state: {error}"
            )
        self._answer(edition.generation, "")

    def _replace_silent(self) -> None:
        """Restart front ends that did not respond; their state is unknown."""
        for child in list(self._waiting):
            child.replace(f"The process {child.slot} did not confirm its TLS state.")

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

# SPDX-License-Identifier: MIT
"""Generators of steps that are decided without I/O, and their execution."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

S = TypeVar("S")
R = TypeVar("R")


def run_steps(steps: Generator[S, Any, R], take: Callable[[S], object]) -> R:
    """
    Return the value of a generator of steps.

    Args:
        steps: Yields each step, and gets its result or the exception that it raised.

        take: Executes one step.

    Raises:
        Exception: *steps* does not handle an exception of a step.
    """
    try:
        step = next(steps)
        while True:
            try:
                answer = take(step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


async def run_async_steps(
    steps: Generator[S, Any, R], take: Callable[[S], Awaitable[object]]
) -> R:
    """Return the value of a generator whose steps are awaited; see `run_steps`."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await take(step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result

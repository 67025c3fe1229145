# SPDX-License-Identifier: MIT
"""Paced iteration: waits for the next page of a live view with a heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def with_pauses(
    items: AsyncGenerator[T, None],
    pause: Callable[[], float],
    *,
    ends: asyncio.Future[None] | None = None,
) -> AsyncGenerator[T | None, None]:
    """
    Yield the items of a generator, and None after a pause without items.

    The generator is closed at the end.

    Args:
        items: None of them is None.

        pause: Returns how long to wait before a None, in seconds; what it raises ends
            the generator.

        ends: The generator ends when this is done.
    """
    # Cancelling a generator's step ends it, so that one step waits through all
    # pauses.
    step: asyncio.Future[T | None] | None = None
    try:
        while ends is None or not ends.done():
            step = step or asyncio.ensure_future(anext(items, None))
            waited: set[asyncio.Future[Any]] = {step} if ends is None else {step, ends}
            await asyncio.wait(
                waited, timeout=pause(), return_when=asyncio.FIRST_COMPLETED
            )
            if step.done():
                item, step = step.result(), None
                if item is None:
                    return
                yield item
            elif ends is None or not ends.done():
                yield None
    finally:
        if step is not None:
            await _give_up(step)
        await items.aclose()


async def _give_up(step: asyncio.Future[Any]) -> None:
    """Cancel a step, and wait until it is at its end."""
    step.add_done_callback(_forget)
    step.cancel()
    await asyncio.wait({step})


def _forget(step: asyncio.Future[Any]) -> None:
    """Consume the exception of an abandoned task."""
    if not step.cancelled():
        step.exception()

# SPDX-License-Identifier: MIT
"""Background tasks that go on after an unexpected exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

_AGAIN_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


async def keep_running(
    run: Callable[[], Awaitable[object]], note: Callable[[Exception], object]
) -> None:
    """
    Run a task until it ends, and begin it again after an unexpected exception.

    Args:
        run: Begins it.

        note: Called with each exception. The pause after it doubles, up to a minute,
            until a run has lasted for a minute.
    """
    now = asyncio.get_running_loop().time
    seconds = _AGAIN_SECONDS
    while True:
        began = now()
        try:
            await run()
            return
        except Exception as error:
            note(error)
        if now() - began >= _LONGEST_SECONDS:
            seconds = _AGAIN_SECONDS
        await asyncio.sleep(seconds)
        seconds = min(_LONGEST_SECONDS, 2 * seconds)

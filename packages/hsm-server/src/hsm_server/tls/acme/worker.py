# SPDX-License-Identifier: MIT
"""Blocking calls in threads that a shutdown does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from hsm_server.tls.acme.failures import Failure, FailureKind

_LONGEST_SECONDS: Final = 90.0

P = ParamSpec("P")
T = TypeVar("T")


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call a function in a thread of its own, and return what comes of it.

    Who is cancelled goes on at once. The thread then ends when its call does, and does
    not keep the process from ending: `asyncio.to_thread` would.

    Raises:
        Failure: It takes too long; or what the function raises.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not answer.done():
            outcome()

    def run() -> None:
        try:
            found = function(*args, **kwargs)
        except Exception as error:
            failed = error
            outcome = lambda: answer.set_exception(failed)  # noqa: E731
        else:
            outcome = lambda: answer.set_result(found)  # noqa: E731
        # Nobody may be there any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="acme", daemon=True).start()
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            return await answer
    except TimeoutError:
        raise Failure(FailureKind.TOO_SLOW, "The CA did not finish in time.") from None

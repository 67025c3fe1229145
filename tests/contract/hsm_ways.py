# SPDX-License-Identifier: MIT
"""The ways to reach an HSM that the contract suite runs over."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Caller
from hsm_core.operations import Operation
from hsm_core.protocols import HSM, AsyncHSM, Clock
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from tests.self_tests import open_tested

R = TypeVar("R")
Connect: TypeAlias = Callable[[Caller], HSM]

_HAS_SERVER = importlib.util.find_spec("hsm_server") is not None
_HAS_CLIENT = importlib.util.find_spec("hsm_cli") is not None

WAYS = (
    *("pipeline", "fake", "async"),
    *(("ipc",) if _HAS_SERVER else ()),
    *(("http",) if _HAS_SERVER and _HAS_CLIENT else ()),
)
"""Where server and client are not installed there is nothing of theirs to run over."""


def filesystem_hsm(folder: Path, clock: Clock | None = None) -> OpenHSM:
    """Open an HSM on disk with fixed keys."""
    settings = Settings(key_dir=folder / "keys", audit_log=folder / "audit.log")
    return open_tested(settings, clock=clock)


@contextmanager
def disk_session(folder: Path) -> Iterator[Session]:
    """Open an HSM on disk, and give a session."""
    with filesystem_hsm(folder) as gateway:
        yield Session(gateway.act_as(caller()))


class _BlockingHSM:
    """An `AsyncHSM` seen from another thread."""

    def __init__(self, hsm: AsyncHSM, loop: asyncio.AbstractEventLoop) -> None:
        self._hsm = hsm
        self._loop = loop

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute it on the loop, and wait."""

        async def work() -> R:
            return await self._hsm.execute(
                operation,
                idempotency_key=idempotency_key,
                approval_id=approval_id,
                expected_generation=expected_generation,
            )

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def connect(way: str, folder: Path) -> Iterator[Connect]:
    """Give a function that returns the HSM as a caller sees it, reached this way."""
    with ExitStack() as stack:
        match way:
            case "pipeline":
                yield stack.enter_context(filesystem_hsm(folder)).act_as
            case "fake":
                yield stack.enter_context(memory_hsm()).act_as
            case "async":
                gateway = open_async(stack.enter_context(filesystem_hsm(folder)))
                loop = stack.enter_context(running_loop())
                yield lambda caller: _BlockingHSM(gateway.act_as(caller), loop)
            case "ipc":
                from tests.e2e.ipc_serving import serve_over_ipc

                gateway = open_async(stack.enter_context(filesystem_hsm(folder)))
                yield stack.enter_context(serve_over_ipc(gateway))
            case _:
                from tests.e2e.serving import serve_and_connect

                gateway = open_async(stack.enter_context(memory_hsm()))
                yield stack.enter_context(serve_and_connect(gateway, folder))

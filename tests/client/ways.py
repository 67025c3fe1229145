# SPDX-License-Identifier: MIT
"""Ways to reach a server: the blocking client, and the one of an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from hsm_client import RemoteHSM
from hsm_client.aio import AsyncRemoteHSM
from hsm_core.errors import HSMError
from hsm_core.model import AuditEntry
from hsm_core.operations import ListAuditEvents, Operation

R = TypeVar("R")


class InLoop:
    """
    Client of an event loop, used from threads.

    Args:
        endpoint: As of the client.

        arguments: As of the client; *pause* is called without waiting for it.
    """

    def __init__(self, endpoint: str, **arguments: Any) -> None:
        pause = arguments.pop("pause")

        async def rest(seconds: float) -> None:
            pause(seconds)

        self.client = AsyncRemoteHSM(endpoint, pause=rest, **arguments)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def execute(self, operation: Operation[R], /, **options: Any) -> R:
        """Execute an operation in the loop."""
        return self._run(self.client.execute(operation, **options))

    def follow(
        self,
        operation: ListAuditEvents,
        /,
        *,
        on_interruption: Callable[[HSMError], None] | None = None,
    ) -> Generator[AuditEntry, None, None]:
        """Follow the audit log in the loop."""
        view = self.client.follow(operation, on_interruption=on_interruption)

        async def following() -> AuditEntry:
            return await anext(view)

        try:
            with suppress(StopAsyncIteration):
                while True:
                    yield self._run(following())
        finally:
            self._run(view.aclose())

    def close(self) -> None:
        """Close the client."""
        self._run(self.client.close())

    def end(self) -> None:
        """Close the client, then its loop."""
        try:
            self.close()
            self._run(self._loop.shutdown_default_executor())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)


Way: TypeAlias = RemoteHSM | InLoop

Remote: TypeAlias = Callable[..., Way]
"""Makes clients of the stub, with other arguments where they are given."""

WAYS = {"blocking": RemoteHSM, "event loop": InLoop}

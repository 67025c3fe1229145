# SPDX-License-Identifier: MIT
"""Where changes of TLS from several sides meet, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from hsm_server.tls.state import TLSState


class Board:
    """
    Holds the state in force.

    Files, staples and challenges change independently of each other, and each change
    must neither wait for nor undo another.

    Args:
        state: The first, in force when everybody who serves has it.

        publish: Gives a state to everybody who serves, and returns when they use it;
            raises if somebody can't, and nobody uses it any more then.
    """

    def __init__(
        self, state: TLSState, publish: Callable[[TLSState], Awaitable[None]]
    ) -> None:
        self._state = state
        self._publish = publish
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def state(self) -> TLSState:
        """The state in force."""
        return self._state

    async def change(self, edit: Callable[[TLSState], TLSState]) -> None:
        """
        Put another state in force; return when everybody who serves uses it.

        Args:
            edit: Returns the state in force, changed; or the same for no change.

        Raises:
            HSMError: It can't be used; the former one is in force.
        """
        async with self._lock:
            edited = edit(self._state)
            if edited == self._state:
                return
            state = msgspec.structs.replace(
                edited, generation=self._state.generation + 1
            )
            await self._publish(state)
            self._state = state
            self._changed.set()
            self._changed = asyncio.Event()

    async def past(self, generation: int) -> TLSState:
        """Return the state in force, once its generation is another than this one."""
        while self._state.generation == generation:
            await self._changed.wait()
        return self._state

# SPDX-License-Identifier: MIT
"""TLS board: serialises changes of the TLS state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from hsm_server.tls.state import TLSState


class Board:
    """
    Holder of the state in force.

    Files, staples and challenges change independently. No change may wait for another
    or undo it.

    Args:
        state: The initial state, in force when all front ends have it.

        publish: Distributes a state to all front ends and returns when they use it;
            raises if one cannot, and then none uses it.
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

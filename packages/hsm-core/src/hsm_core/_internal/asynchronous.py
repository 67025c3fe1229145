# SPDX-License-Identifier: MIT
"""
The pipeline under an event loop.

Quick operations are computed where they are (a thread hop costs more than a signature);
others and mutations go to bounded pools, slow ones to one of their own; nobody waits
for the disk on the loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Final, TypeVar

from hsm_core._internal.admission import checked_caller
from hsm_core._internal.gate import Gate
from hsm_core._internal.pipeline import Pipeline, Request
from hsm_core._internal.refusals import Refusals
from hsm_core._internal.uses import NoRoomError
from hsm_core.errors import (
    AuditUnavailableError,
    OverloadedError,
    UnavailableError,
)
from hsm_core.model import Caller
from hsm_core.operations import Effect, Operation
from hsm_core.protocols import AuditTicket

__all__ = ["AsyncBoundHSM", "AsyncGateway", "Lane", "Pools"]

R = TypeVar("R")
_MOST_WAITING: Final = 1024
_MOST_SLOW: Final = 64
_SLOW_THREADS: Final = 2
_CHANGES: Final = frozenset({Effect.MUTATION, Effect.USE})


class Lane(Enum):
    """Where operations wait that an event loop does not compute itself."""

    CHANGES = "changes"
    READS = "reads"
    SLOW = "slow"


class Pools:
    """
    Bounded threads: a pool for changes and long uses, one for long reads, a slow one.

    So a revocation waits neither behind somebody's verification of the trail nor behind
    a signature that takes a second. Slow work gets fewer threads than there are cores,
    where there are several, so that it never has the machine for itself.

    Args:
        threads: Threads of the pools for changes and reads, each.

        most_waiting: How much may wait or run in both together.

        most_slow: How much may wait or run in the slow one.
    """

    def __init__(
        self,
        threads: int,
        *,
        most_waiting: int = _MOST_WAITING,
        most_slow: int = _MOST_SLOW,
    ) -> None:
        self.changes = ThreadPoolExecutor(threads, "hsm-core-changes")
        self.reads = ThreadPoolExecutor(threads, "hsm-core-reads")
        self.slow = ThreadPoolExecutor(_slow_threads(), "hsm-core-slow")
        self._most_waiting = most_waiting
        self._most_slow = most_slow
        self._waiting = 0
        self._waiting_slowly = 0
        self._is_closed = False

    async def run(self, work: Callable[[], R], lane: Lane) -> R:
        """
        Run *work* on a pool; called on one event loop only.

        Raises:
            OverloadedError: Too much is waiting already.
            UnavailableError: The pools were closed before it was begun.
        """
        if lane is Lane.SLOW:
            return await self._run_slowly(work)
        if self._waiting >= self._most_waiting:
            raise OverloadedError
        pool = self.changes if lane is Lane.CHANGES else self.reads
        self._waiting += 1
        try:
            return await self._run_on(pool, work)
        finally:
            self._waiting -= 1

    async def _run_slowly(self, work: Callable[[], R]) -> R:
        if self._waiting_slowly >= self._most_slow:
            raise OverloadedError
        self._waiting_slowly += 1
        try:
            return await self._run_on(self.slow, work)
        finally:
            self._waiting_slowly -= 1

    async def _run_on(self, pool: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
            raise UnavailableError("The HSM is closed.") from None

    def close(self) -> None:
        """Finish what runs, give up what was not begun, and let the threads end."""
        self._is_closed = True
        for pool in (self.changes, self.reads, self.slow):
            pool.shutdown(wait=True, cancel_futures=True)


def _slow_threads() -> int:
    cores = len(os.sched_getaffinity(0))
    return max(1, min(_SLOW_THREADS, cores - 1))


class AsyncGateway:
    """
    `AsyncHSMGateway` round a pipeline.

    Args:
        pipeline: Where operations are executed.

        refusals: Where refusals are recorded.

        pools: Bounded threads for slow operations.

        gate: Counts what is under way.

        timeout_seconds: How long an answer waits for the trail.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        refusals: Refusals,
        pools: Pools,
        gate: Gate,
        *,
        timeout_seconds: float,
    ) -> None:
        self._pipeline = pipeline
        self._refusals = refusals
        self._pools = pools
        self._gate = gate
        self._timeout_seconds = timeout_seconds

    def act_as(self, caller: Caller, /) -> AsyncBoundHSM:
        """Return the HSM as this caller sees it."""
        return AsyncBoundHSM(self, caller)

    async def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """See `HSMGateway.record_refusal`."""
        ticket = self._refusals.record(caller, code, kind=kind, key_id=key_id)
        if ticket is not None:
            with suppress(AuditUnavailableError):
                await self._durable(ticket)

    async def execute(self, request: Request) -> object:
        """Execute one request without holding the loop."""
        with self._gate.passage():
            if not self._pipeline.is_quick(request.operation):
                return await self._hand_over(request)
            try:
                computed = self._pipeline.compute(request, at_once=True)
            except NoRoomError:
                return await self._hand_over(request)
            ticket = self._pipeline.begin_record([computed])
            if isinstance(ticket, AuditUnavailableError):
                raise ticket
            if ticket is not None:
                await self._durable(ticket)
            return computed.outcome.get()

    async def _hand_over(self, request: Request) -> object:
        operation = request.operation
        if self._pipeline.is_slow(operation):
            lane = Lane.SLOW
        else:
            lane = Lane.CHANGES if operation.effect in _CHANGES else Lane.READS
        return await self._pools.run(partial(self._pipeline.execute, request), lane)

    async def _durable(self, ticket: AuditTicket) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                # What the medium says stays inside; its sentence may be told.
                is_ours = isinstance(error, AuditUnavailableError)
                unavailable = AuditUnavailableError(str(error) if is_ours else "")
                unavailable.__cause__ = error
                done.set_exception(unavailable)

        def tell(error: BaseException | None) -> None:
            loop.call_soon_threadsafe(settle, error)

        ticket.add_done_callback(tell)
        try:
            await asyncio.wait_for(done, self._timeout_seconds)
        except TimeoutError as error:
            raise AuditUnavailableError from error


class AsyncBoundHSM:
    """`AsyncHSM` for one caller, in this process."""

    def __init__(self, gateway: AsyncGateway, caller: Caller) -> None:
        self._gateway = gateway
        self._caller = checked_caller(caller)

    async def execute(
        self, operation: Operation[R], /, *, idempotency_key: str | None = None
    ) -> R:
        """Execute one operation; see `HSM.execute`."""
        request = Request(self._caller, operation, idempotency_key)
        result: R = await self._gateway.execute(request)  # type: ignore[assignment]
        return result

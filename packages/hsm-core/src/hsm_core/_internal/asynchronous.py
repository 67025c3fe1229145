# SPDX-License-Identifier: MIT
"""
The pipeline under an event loop.

Quick operations are computed where they are (a thread hop costs more than a signature);
slow ones and mutations go to the bounded pool; nobody waits for the disk on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from hsm_core._internal.admission import checked_caller
from hsm_core._internal.gate import Gate
from hsm_core._internal.pipeline import Pipeline, Request
from hsm_core._internal.refusals import Refusals
from hsm_core.errors import AuditUnavailableError, OverloadedError
from hsm_core.model import Caller
from hsm_core.operations import Effect, Operation
from hsm_core.protocols import AuditTicket

__all__ = ["AsyncBoundHSM", "AsyncGateway", "Pools"]

R = TypeVar("R")
_MOST_WAITING: Final = 1024
_CHANGES: Final = frozenset({Effect.MUTATION, Effect.USE})


class Pools:
    """
    Bounded threads: one pool for changes and long uses, one for long reads.

    So a revocation does not wait behind somebody's verification of the trail.

    Args:
        threads: Threads of each pool.
    """

    def __init__(self, threads: int) -> None:
        self.changes = ThreadPoolExecutor(threads, "hsm-core-changes")
        self.reads = ThreadPoolExecutor(threads, "hsm-core-reads")
        self._waiting = 0

    async def run(self, work: Callable[[], R], *, is_change: bool) -> R:
        """
        Run *work* on a pool; called on one event loop only.

        Raises:
            OverloadedError: Too much is waiting already.
        """
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError
        pool = self.changes if is_change else self.reads
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what runs, and let the threads end."""
        self.changes.shutdown(wait=True)
        self.reads.shutdown(wait=True)


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
                is_change = request.operation.effect in _CHANGES
                work = partial(self._pipeline.execute, request)
                return await self._pools.run(work, is_change=is_change)
            computed = self._pipeline.compute(request)
            ticket = self._pipeline.begin_record([computed])
            if isinstance(ticket, AuditUnavailableError):
                raise ticket
            if ticket is not None:
                await self._durable(ticket)
            return computed.outcome.get()

    async def _durable(self, ticket: AuditTicket) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            elif isinstance(error, AuditUnavailableError):
                done.set_exception(error)
            else:
                unavailable = AuditUnavailableError()
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

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
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from hsm_core._internal.audit.medium import GroupRefusedError
from hsm_core._internal.handlers.base import Speed
from hsm_core._internal.keyring.stored_keys import FollowedFeed
from hsm_core._internal.keyring.use_counters import NoRoomError
from hsm_core._internal.lib.concurrency import Gate
from hsm_core._internal.pipeline.authorisation import checked_caller
from hsm_core._internal.pipeline.durability import DurabilityWaits
from hsm_core._internal.pipeline.live_views import LiveViews
from hsm_core._internal.pipeline.outcome import Outcome
from hsm_core._internal.pipeline.pipeline import Pipeline
from hsm_core._internal.pipeline.refusals import Refusals
from hsm_core._internal.policy.facts import SystemPrincipal, system_caller
from hsm_core._internal.policy.in_force import Recogniser
from hsm_core.errors import (
    AuditUnavailableError,
    HSMError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
)
from hsm_core.model import Caller, PolicyIdentity, TokenClaims
from hsm_core.operations import (
    AuditPage,
    Effect,
    HSMStatus,
    ListAuditEvents,
    Operation,
    Status,
)
from hsm_core.protocols import AuditTicket, Request

R = TypeVar("R")
_MOST_WAITING: Final = 1024
_MOST_SLOW: Final = 64
_SLOW_THREADS: Final = 2
_CATCHING_UP_SECONDS: Final = 1.8
_CHANGES: Final = frozenset({Effect.CONSENT, Effect.MUTATION, Effect.USE})


class Lane(Enum):
    """Where operations wait that an event loop does not compute itself."""

    CHANGES = "changes"
    READS = "reads"
    SLOW = "slow"


class _Queue(msgspec.Struct):
    most: int
    waiting: int = 0


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
        self._queue = _Queue(most_waiting)
        self._slow_queue = _Queue(most_slow)
        self._is_closed = False

    async def run(self, work: Callable[[], R], lane: Lane) -> R:
        """
        Run *work* on a pool; called on one event loop only.

        Raises:
            OverloadedError: Too much is waiting already.
            UnavailableError: The pools were closed before it was begun.
        """
        queue = self._slow_queue if lane is Lane.SLOW else self._queue
        if queue.waiting >= queue.most:
            raise OverloadedError
        pools = {Lane.CHANGES: self.changes, Lane.READS: self.reads}
        queue.waiting += 1
        try:
            return await self._run_on(pools.get(lane, self.slow), work)
        finally:
            queue.waiting -= 1

    async def _run_on(self, pool: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        job = _Job(work)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, job)
        except asyncio.CancelledError:
            job.forget()
            if not self._is_closed:
                raise
            raise UnavailableError("The HSM is closed.") from None

    def close(self) -> None:
        """Finish what runs, give up what was not begun, and let the threads end."""
        self._is_closed = True
        for pool in (self.changes, self.reads, self.slow):
            pool.shutdown(wait=True, cancel_futures=True)


class _Job(Generic[R]):
    """
    Work that may wait for a thread.

    A pool keeps what was cancelled until a thread comes to it: that must not hold
    megabytes of somebody's request.
    """

    def __init__(self, work: Callable[[], R]) -> None:
        self._work: Callable[[], R] | None = work

    def __call__(self) -> R:
        """Do it, unless it was cancelled."""
        work = self._work
        if work is None:
            raise CancelledError
        return work()

    def forget(self) -> None:
        """Let go of work that nobody waits for."""
        self._work = None


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

        followers: The live views of the trail.

        recogniser: Knows people by their certificates.

        timeout_seconds: How long an answer waits for the trail.

        feed: Changes of all nodes of a cluster; None on a single machine.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        refusals: Refusals,
        pools: Pools,
        gate: Gate,
        followers: LiveViews,
        recogniser: Recogniser,
        *,
        timeout_seconds: float,
        feed: FollowedFeed | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._refusals = refusals
        self._pools = pools
        self._gate = gate
        self._followers = followers
        self._recogniser = recogniser
        self._waits = DurabilityWaits(timeout_seconds)
        self._feed = feed
        self._catching_up: asyncio.Task[object] | None = None

    @property
    def revision(self) -> int:
        """See `AsyncHSMGateway.revision`."""
        return 0 if self._feed is None else self._feed.revision

    def act_as(self, caller: Caller, /) -> AsyncBoundHSM:
        """Return the HSM as this caller sees it."""
        return AsyncBoundHSM(self, caller)

    def asks_for_single_use(self) -> bool:
        """See `HSMGateway.asks_for_single_use`."""
        return self._recogniser.asks_for_single_use

    def identify(self, caller: Caller, /) -> PolicyIdentity | None:
        """See `HSMGateway.identify`."""
        return self._recogniser.identify(caller)

    def identify_token(self, token: TokenClaims, /) -> PolicyIdentity | None:
        """See `HSMGateway.identify_token`."""
        return self._recogniser.identify_token(token)

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
        await self._settled(
            self._refusals.record(caller, code, kind=kind, key_id=key_id)
        )

    async def record_visit(self, caller: Caller, /, *, kind: str) -> None:
        """See `HSMGateway.record_visit`."""
        await self._settled(self._refusals.record_visit(caller, kind=kind))

    async def _settled(self, ticket: AuditTicket | None) -> None:
        """Wait until a record is durable, or can't be."""
        if ticket is None:
            return
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: AuditUnavailableError | None) -> None:
            if not told.done():
                told.set_result(None)

        self._waits.add(ticket, settle, lambda: None)
        await told

    async def execute(self, request: Request) -> Any:
        """Execute one request without holding the loop: a batch of one."""
        (answer,) = self.execute_many([request])
        return await answer

    async def status(self) -> HSMStatus:
        """See `AsyncHSMGateway.status`."""
        request = Request(system_caller(SystemPrincipal.HEALTH), Status())
        group = _Group(self._gate, self._refused)
        answer = self._begin(request, group)
        self._record(group)
        found: HSMStatus = await answer
        return found

    def follow(
        self, caller: Caller, operation: ListAuditEvents
    ) -> AsyncGenerator[AuditPage, None]:
        """Return a live view of the trail for a caller; see `LiveHSM.follow`."""
        return self._followers.pages(
            operation,
            lambda sent: self.execute(Request(caller, sent)),
            partial(self._pools.run, lane=Lane.READS),
        )

    def execute_many(self, requests: Sequence[Request], /) -> list[asyncio.Future[Any]]:
        """See `AsyncHSMGateway.execute_many`."""
        group = _Group(self._gate, self._refused)
        answers = [self._admit(request, group) for request in requests]
        self._record(group)
        return answers

    def _admit(self, request: Request, group: _Group) -> asyncio.Future[Any]:
        """Check the caller of a request, and begin it."""
        try:
            if self._feed is not None and request.revision > self._feed.revision:
                return self._after_catching_up(request, self._feed)
            answer = self._by_plan(request, group)
            if answer is not None:
                return answer
            caller = checked_caller(request.caller)
            request = msgspec.structs.replace(request, caller=caller)
            return self._begin(request, group)
        except Exception as error:
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def _after_catching_up(
        self, request: Request, feed: FollowedFeed
    ) -> asyncio.Future[Any]:
        """Begin a request when this node has applied what its client has seen."""
        revision = request.revision
        request = msgspec.structs.replace(request, revision=0)

        async def execute() -> Any:
            await self._catch_up(feed, revision)
            return await self.execute(request)

        self._gate.enter()
        task = asyncio.get_running_loop().create_task(execute())
        task.add_done_callback(lambda _: self._gate.leave())
        return task

    async def _catch_up(self, feed: FollowedFeed, revision: int) -> None:
        """
        Apply all changes. Then a revision above them is nobody's, and not waited for.

        Raises:
            OverloadedError: It took too long; nothing was done.
            HSMError: The changes can't be read, or are not those that were followed.
        """
        try:
            async with asyncio.timeout(_CATCHING_UP_SECONDS):
                # One that runs already may have begun before the change was made.
                if self._catching_up is not None:
                    await asyncio.wait([self._catching_up])
                if feed.revision < revision:
                    await asyncio.shield(self._begin_catching_up(feed))
        except TimeoutError:
            raise OverloadedError(
                "This node of the cluster has not yet applied the changes that the "
                "client has seen. Try again later.",
                revision=revision,
            ) from None

    def _begin_catching_up(self, feed: FollowedFeed) -> asyncio.Task[object]:
        """Read the changes, one thread at a time for all requests that wait."""
        task = self._catching_up
        if task is None:
            reading = self._pools.run(feed.catch_up, Lane.CHANGES)
            task = asyncio.get_running_loop().create_task(reading)
            self._catching_up = task
            task.add_done_callback(self._end_catching_up)
        return task

    def _end_catching_up(self, task: asyncio.Task[object]) -> None:
        self._catching_up = None
        if not task.cancelled():
            task.exception()  # Who waited for it may have gone.

    def _by_plan(self, request: Request, group: _Group) -> asyncio.Future[Any] | None:
        """Compute a quick use by its plan; its caller was checked before."""
        self._gate.enter()
        try:
            outcome = self._pipeline.plans.run(request, at_once=True)
            if outcome is not None:
                return group.add(request, outcome)
        except BaseException:
            self._gate.leave()
            raise
        self._gate.leave()
        return None

    def _begin(self, request: Request, group: _Group) -> asyncio.Future[Any]:
        """Compute a quick request, or hand over another."""
        speed = self._pipeline.speed_of(request.operation)
        self._gate.enter()
        try:
            # What is not planned asks the database of a cluster.
            if speed is Speed.QUICK and self._feed is None:
                with suppress(NoRoomError):
                    outcome = self._pipeline.compute(request, at_once=True)
                    return group.add(request, outcome)
            task = asyncio.get_running_loop().create_task(self._hand_over(request))
        except BaseException:
            self._gate.leave()
            raise
        task.add_done_callback(lambda _: self._gate.leave())
        return task

    def _record(self, group: _Group) -> None:
        """Append the records of a group; its answers go out when they are durable."""
        try:
            ticket = self._pipeline.begin_record(group.outcomes)
        except AuditUnavailableError as error:
            is_ours = isinstance(error.__cause__, InvalidInputError)
            if is_ours and len(group.outcomes) > 1:
                # What one of them is can't be recorded; the others are no worse.
                for alone in group.apart():
                    self._record(alone)
            else:
                group.settle(error)
            return
        except BaseException:
            group.abandon()
            raise
        for request, answer in group.take_moved():
            self._decide_again(request, answer)
        if ticket is None:
            group.settle(None)
        else:
            self._waits.add(ticket, group.settle, group.abandon)

    def _decide_again(self, request: Request, answer: asyncio.Future[Any]) -> None:
        """Answer from a pool a use whose key changed before it was recorded."""
        task = asyncio.get_running_loop().create_task(self._hand_over(request))

        def answered(done: asyncio.Task[object]) -> None:
            self._gate.leave()
            # Taken even if nobody waits for it: else the event loop logs it.
            error = None if done.cancelled() else done.exception()
            if answer.done():
                return
            if done.cancelled():
                answer.cancel()
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        task.add_done_callback(answered)

    def _refused(self, group: _Group) -> None:
        """Decide uses again of which something changed, and record the rest again."""
        rest = _Group(self._gate, self._refused)
        for outcome, request, answer in group.take_all():
            if outcome.draft is not None and outcome.draft.subjects:
                self._decide_again(request, answer)
            else:
                rest.put(outcome, request, answer)
        if rest.outcomes:
            self._record(rest)

    async def _hand_over(self, request: Request) -> object:
        operation = request.operation
        if self._pipeline.speed_of(operation) is Speed.SLOW:
            lane = Lane.SLOW
        else:
            lane = Lane.CHANGES if operation.effect in _CHANGES else Lane.READS
        work = partial(self._pipeline.execute, request, time.monotonic())
        try:
            return await self._pools.run(work, lane)
        except HSMError as error:
            _drop_frames(error)
            raise


def _drop_frames(error: Exception) -> None:
    """Drop the frames of a refusal, which would keep a payload in memory."""
    if isinstance(error, HSMError):
        error.__traceback__ = None


class _Group:
    """
    Answers that wait for the same append, on one event loop.

    Args:
        gate: Is left for each answer that is settled.

        refused: Called instead, where the group's records were refused.
    """

    def __init__(self, gate: Gate, refused: Callable[[_Group], None]) -> None:
        self.outcomes: list[Outcome] = []
        self._requests: list[Request] = []
        self._answers: list[asyncio.Future[Any]] = []
        self._gate = gate
        self._refused = refused

    def add(self, request: Request, outcome: Outcome) -> asyncio.Future[Any]:
        """Take in what was computed, and return the future of its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.put(outcome, request, answer)
        return answer

    def put(
        self, outcome: Outcome, request: Request, answer: asyncio.Future[Any]
    ) -> None:
        """Take in what waits for an answer."""
        self.outcomes.append(outcome)
        self._requests.append(request)
        self._answers.append(answer)

    def take_all(self) -> list[tuple[Outcome, Request, asyncio.Future[Any]]]:
        """Let go of all that wait for an answer."""
        group = list(zip(self.outcomes, self._requests, self._answers, strict=False))
        self.outcomes, self._requests, self._answers = [], [], []
        return group

    def apart(self) -> list[_Group]:
        """Return a group for each answer."""
        groups = []
        for member in self.take_all():
            group = _Group(self._gate, self._refused)
            group.put(*member)
            groups.append(group)
        return groups

    def take_moved(self) -> list[tuple[Request, asyncio.Future[Any]]]:
        """Let go of the uses that stood no more when they were to be recorded."""
        if not any(outcome.has_moved for outcome in self.outcomes):
            return []
        group = list(zip(self.outcomes, self._requests, self._answers, strict=True))
        stand = [member for member in group if not member[0].has_moved]
        self.outcomes = [outcome for outcome, _, _ in stand]
        self._requests = [request for _, request, _ in stand]
        self._answers = [answer for _, _, answer in stand]
        return [(request, answer) for o, request, answer in group if o.has_moved]

    def settle(self, error: AuditUnavailableError | None) -> None:
        """Give all answers, or *error* in the place of those that have a record."""
        if isinstance(error, GroupRefusedError):
            self._refused(self)
            return
        answers, self._answers = self._answers, []
        for outcome, answer in zip(self.outcomes, answers, strict=False):
            self._gate.leave()
            if answer.done():
                continue
            withheld = error is not None and outcome.draft is not None
            found = error if withheld else outcome.error
            if found is None:
                answer.set_result(outcome.result)
            else:
                _drop_frames(found)
                answer.set_exception(found)

    def abandon(self) -> None:
        """Leave the gate for answers that nobody waits for."""
        answers, self._answers = self._answers, []
        for _ in answers:
            self._gate.leave()


class AsyncBoundHSM:
    """`LiveHSM` for one caller, in this process."""

    def __init__(self, gateway: AsyncGateway, caller: Caller) -> None:
        self._gateway = gateway
        self._caller = checked_caller(caller)

    async def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation; see `HSM.execute` and `Request`."""
        request = Request(
            self._caller, operation, idempotency_key, approval_id, expected_generation
        )
        result: R = await self._gateway.execute(request)
        return result

    def follow(self, operation: ListAuditEvents, /) -> AsyncGenerator[AuditPage, None]:
        """Return a live view of the trail; see `LiveHSM.follow`."""
        return self._gateway.follow(self._caller, operation)

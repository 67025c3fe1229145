# SPDX-License-Identifier: MIT
"""Vault's side of its connections to front ends, which it does not trust."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core.error_records import error_record
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    OverloadedError,
    error_classes,
)
from hsm_core.model import Caller
from hsm_core.operations import OPERATIONS, ListAuditEvents, Operation
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.protocols import Request as CoreRequest
from hsm_core.rest import REQUEST_CODES
from hsm_server.__about__ import __version__
from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import (
    MAX_WAITING,
    PROTOCOL,
    Answer,
    Cancel,
    Chunk,
    FromFrontEnd,
    Hello,
    Limits,
    Purpose,
    Request,
    packed,
)
from hsm_server.ipc.payloads import pack, unpack_operation
from hsm_server.ipc.requests import Assemblies, IndividualRequests, Outbox
from hsm_server.limits.buckets import Quota
from hsm_server.limits.guard import ClusterLimits
from hsm_server.vault.gatekeeper import Authenticated, Gatekeeper

__all__ = ["Dependencies", "VaultService"]


_HELLO: Final = packed(Hello(PROTOCOL, __version__))
_BATCH: Final = 32
_ERROR_CODES: Final = frozenset(error_classes())
_KINDS: Final = frozenset(operation.__name__ for operation in OPERATIONS)
_SPENDING: Final = frozenset(
    {Purpose.EXECUTE, Purpose.REFUSE, Purpose.FOLLOW, Purpose.SIGN_IN}
)
"""Purposes that consume a single-use token; the others only authenticate."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """
    Dependencies: callbacks for events without a response.

    Attributes:
        on_violation: Called with the reason of a closed front-end connection.
        on_unexpected: Called with an unexpected exception; its request fails.
    """

    on_violation: Callable[[str], None]
    on_unexpected: Callable[[BaseException], None]


class _Violation(Exception):  # noqa: N818 (it is no error of ours)
    """Protocol violation by a front end."""


class FrontEnd:
    """
    Connection to one front end.

    Args:
        end: Connected socket; closed at the end.

        peer_uid: User of the front-end process.

        gateway: The HSM.

        gatekeeper: Authenticates visitors.

        longest: Longest operation, packed, in bytes.

        dependencies: Callbacks for events without a response.

        on_end: Called with this object when the connection has ended.
    """

    def __init__(
        self,
        end: socket.socket,
        peer_uid: int,
        gateway: AsyncHSMGateway,
        gatekeeper: Gatekeeper,
        longest: int,
        dependencies: Dependencies,
        on_end: Callable[[FrontEnd], None],
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._assemblies = Assemblies(longest)
        self._dependencies = dependencies
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._greeted = self._is_executing = False
        self._last_id = 0
        self._asking: set[int] = set()
        self._ready: dict[int, CoreRequest] = {}
        self._quotas: dict[int, Quota] = {}
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._recording: set[asyncio.Task[Answer]] = set()
        self._channel: Channel[FromFrontEnd] = Channel(
            end,
            FromFrontEnd,
            self._take,
            self._on_lost,
            peer_uid=peer_uid,
            is_paced=True,
        )
        self._outbox = Outbox(self._channel, longest)
        self._individual = IndividualRequests(gateway, gatekeeper, self._outbox)
        self._channel.send(_HELLO)

    def send_limits(self, found: ClusterLimits) -> None:
        """Tell it what its address limits depend on."""
        lockouts = dict(found.lockouts)
        self._channel.send(packed(Limits(found.divisor, lockouts)))

    def close(self) -> None:
        """End it; what was not begun is not done."""
        self._channel.close()

    def _on_lost(self, reason: str) -> None:
        self._ready.clear()
        self._quotas.clear()
        for future in list(self._waiting.values()):
            future.cancel()
        self._outbox.clear()
        self._assemblies.clear()
        self._on_end(self)
        if reason not in {"closed", "gone"}:
            self._dependencies.on_violation(reason)

    def _take(self, frames: list[FromFrontEnd]) -> None:
        """Take all frames in, and execute together what they ask for."""
        try:
            for frame in frames:
                if self._channel.is_open:
                    self._accept(frame)
        except _Violation as violation:
            self._channel.close(str(violation))
        if not self._is_executing:
            self._execute()

    def _accept(self, frame: FromFrontEnd) -> None:
        if not self._greeted:
            if not isinstance(frame, Hello) or frame.protocol != PROTOCOL:
                raise _Violation("another protocol")
            self._greeted = True
            return
        match frame:
            case Chunk():
                if frame.id not in self._assemblies:
                    self._check_next(frame.id)
                    if self._assemblies.is_full:
                        raise _Violation("too many requests at one time")
                self._assemblies.add(frame.id, frame.data)
            case Request():
                self._begin(frame)
            case Cancel():
                self._cancel(frame.id)
            case Hello():
                raise _Violation("a second greeting")

    def _check_next(self, number: int) -> None:
        if number <= self._last_id:
            raise _Violation("a repeated id")
        self._last_id = number

    def _cancel(self, number: int) -> None:
        if number > self._last_id:
            raise _Violation("an id that was never used")
        self._ready.pop(number, None)
        self._quotas.pop(number, None)
        future = self._waiting.get(number)
        if future is not None:
            future.cancel()
        elif not self._outbox.cancel(number):
            self._assemblies.drop(number)

    def _begin(self, frame: Request) -> None:
        """Begin a request, or have it executed with others, or answer it."""
        if frame.in_chunks != (frame.id in self._assemblies):
            raise _Violation("chunks without a request, or the reverse")
        if not frame.in_chunks:
            self._check_next(frame.id)
        if frame.payload and not (frame.in_chunks and frame.purpose is Purpose.EXECUTE):
            raise _Violation("a payload without chunks")
        if frame.purpose is Purpose.REFUSE and not _is_refusal(frame):
            raise _Violation("a refusal that is not a failure")
        try:
            if self._under_way >= MAX_WAITING:
                raise OverloadedError
            rest = b"" if frame.payload else frame.operation
            self._sort(frame, self._assemblies.complete(frame.id, rest))
        except Exception as error:
            self._fail(frame, error)
        if frame.id not in self._ready and frame.id not in self._asking:
            self._assemblies.drop(frame.id)

    def _fail(self, frame: Request, error: Exception) -> None:
        """Answer a request that was not begun."""
        if isinstance(error, AuthenticationError):
            failing = self._individual.fail(frame.id, frame.visitor, error)
            self._record(frame.id, failing)
        else:
            self._send_error(frame.id, "", error)

    @property
    def _under_way(self) -> int:
        begun = len(self._ready) + len(self._waiting) + len(self._recording)
        return begun + len(self._outbox)

    def _sort(self, frame: Request, whole: bytes) -> None:
        """
        Begin a request by its purpose; *whole* is its operation or its payload.

        Raises:
            HSMError: It is answered with this error.
        """
        if frame.purpose is Purpose.STATUS:
            self._record(frame.id, self._individual.status(frame))
            return
        if frame.purpose is Purpose.PUBLIC_KEYS:
            self._outbox.send(Answer(frame.id, result=self._gatekeeper.public_keys()))
            return
        keeper, visitor = self._gatekeeper, frame.visitor
        spends = frame.purpose in _SPENDING
        if keeper.asks_database(visitor, spends=spends):
            self._asking.add(frame.id)
            sorting = self._sort_aside(frame, whole, spends=spends)
            task = self._waiting[frame.id] = self._loop.create_task(sorting)
            task.add_done_callback(partial(self._end_asking, frame.id))
        else:
            found = keeper.authenticate(visitor, spends=spends)
            self._sort_authenticated(frame, whole, found)

    async def _sort_aside(self, frame: Request, whole: bytes, *, spends: bool) -> None:
        """Begin a request whose credential the database of a cluster has to know."""
        try:
            found = await self._gatekeeper.authenticated(frame.visitor, spends=spends)
            self._sort_authenticated(frame, whole, found)
        except Exception as error:
            self._fail(frame, error)

    def _end_asking(self, number: int, task: asyncio.Task[None]) -> None:
        """Execute a request that was authenticated, or forget it."""
        self._asking.discard(number)
        if self._waiting.get(number) is task:
            del self._waiting[number]
        if number not in self._ready:
            self._assemblies.drop(number)
        if not self._is_executing:
            self._execute()

    def _sort_authenticated(
        self, frame: Request, whole: bytes, found: Authenticated
    ) -> None:
        """Begin a request of an authenticated visitor; see `_sort`."""
        caller = found.caller
        match frame.purpose:
            case Purpose.EXECUTE:
                sent = unpack_operation(frame, whole)
                if self._charge(frame, caller, sent):
                    self._ready[frame.id] = CoreRequest(
                        caller,
                        sent,
                        frame.idempotency_key,
                        frame.approval_id,
                        frame.expected_generation,
                        found.check,
                        frame.visitor.revision,
                    )
            case Purpose.GREET:
                self._outbox.send(Answer(frame.id, caller.principal))
            case Purpose.REFUSE:
                if self._charge(frame, caller, None):
                    self._record(frame.id, self._individual.refuse(frame, caller))
            case Purpose.FOLLOW:
                view = wire.decode_packed(whole, ListAuditEvents)
                if self._charge(frame, caller, view):
                    self._follow(frame, caller, view)
            case Purpose.WHO:
                who = self._gatekeeper.who(frame.visitor, found)
                self._outbox.send(
                    Answer(frame.id, who.principal, wire.encode_packed(who))
                )
            case Purpose.SIGN_IN:
                self._record(frame.id, self._individual.sign_in(frame, caller))
            case Purpose.STATUS | Purpose.PUBLIC_KEYS:
                raise AssertionError("They need no visitor.")
            case Purpose.SIGN_OUT:
                self._record(frame.id, self._individual.sign_out(frame, caller))

    def _charge(
        self, frame: Request, caller: Caller, operation: Operation[Any] | None
    ) -> bool:
        """Charge a caller, or answer that they have asked for too much."""
        quota = self._gatekeeper.charge(caller, operation)
        if quota is None:
            return True
        if quota.wait_seconds:
            error = error_record(quota.error())
            self._outbox.send(
                Answer(frame.id, caller.principal, error=error, quota=quota)
            )
            return False
        if frame.purpose is Purpose.EXECUTE:
            self._quotas[frame.id] = quota
        return True

    def _execute(self) -> None:
        """Execute together what is ready, but let others have their turn, too."""
        self._is_executing = False
        numbers = list(islice(self._ready, _BATCH))
        if not numbers:
            return
        batch = [self._ready.pop(number) for number in numbers]
        if self._ready:
            self._is_executing = True
            self._loop.call_soon(self._execute)
        try:
            futures = self._gateway.execute_many(batch)
        except Exception as error:
            for number in numbers:
                self._assemblies.drop(number)
                self._quotas.pop(number, None)
                self._send_error(number, "", error)
            return
        for number, asked, future in zip(numbers, batch, futures, strict=True):
            self._waiting[number] = future
            quota = self._quotas.pop(number, None)
            answer = Answer(number, asked.caller.principal, quota=quota)
            field = asked.operation.route.raw_response
            future.add_done_callback(partial(self._answer, answer, field))

    def _record(self, number: int, work: Coroutine[Any, Any, Answer]) -> None:
        """Start an audit record, whether or not a caller waits for it."""
        task = self._loop.create_task(work)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        task.add_done_callback(partial(self._conclude, number, ""))

    def _follow(self, frame: Request, caller: Caller, view: ListAuditEvents) -> None:
        task = self._loop.create_task(self._individual.follow(frame, caller, view))
        self._waiting[frame.id] = task
        task.add_done_callback(partial(self._conclude, frame.id, caller.principal))

    def _conclude(
        self, number: int, principal: str, task: asyncio.Future[Answer]
    ) -> None:
        self._waiting.pop(number, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._outbox.send(task.result())
        else:
            self._send_error(number, principal, error)

    def _answer(self, answer: Answer, field: str, future: asyncio.Future[Any]) -> None:
        number, principal, quota = answer.id, answer.principal, answer.quota
        self._waiting.pop(number, None)
        self._assemblies.drop(number)
        if future.cancelled() or not self._channel.is_open:
            return
        error = future.exception()
        if error is not None:
            self._send_error(number, principal, error, quota)
            return
        try:
            sent = pack(future.result(), field)
        except Exception as failure:
            self._send_error(number, principal, failure, quota)
            return
        answer = msgspec.structs.replace(
            answer,
            result=sent.packed,
            payload=sent.field,
            revision=self._gateway.revision,
        )
        self._outbox.send(answer, sent)

    def _send_error(
        self,
        number: int,
        principal: str,
        error: BaseException,
        quota: Quota | None = None,
    ) -> None:
        if not isinstance(error, HSMError):
            self._dependencies.on_unexpected(error)
            error = HSMError()
        record = error_record(error)
        revision = self._gateway.revision
        self._outbox.send(
            Answer(number, principal, error=record, quota=quota, revision=revision)
        )


def _is_refusal(frame: Request) -> bool:
    """Return whether the record is a failure: front ends cannot record success."""
    is_code = frame.code in REQUEST_CODES or frame.code in _ERROR_CODES
    return is_code and frame.kind in _KINDS


class VaultService:
    """
    Executor of the front ends' requests.

    Args:
        gateway: The HSM; the caller closes it.

        gatekeeper: Authenticates visitors.

        longest: Longest operation, packed, in bytes.

        dependencies: Callbacks for events without a response.
    """

    def __init__(
        self,
        gateway: AsyncHSMGateway,
        gatekeeper: Gatekeeper,
        longest: int,
        dependencies: Dependencies,
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._longest = longest
        self._dependencies = dependencies
        self._limits: ClusterLimits | None = None
        self._connections: set[FrontEnd] = set()
        self._named: dict[str, FrontEnd] = {}

    def connect(self, end: socket.socket, peer_uid: int, *, slot: str = "") -> None:
        """
        Serve a front end that runs as this user, until its connection ends.

        Args:
            end: Connected socket, which is closed then.

            peer_uid: The user.

            slot: Name of the front end, whose former connection ends now: so one that
                was taken over can't pile them up. Without a name there is no former.
        """
        connection = FrontEnd(
            end,
            peer_uid,
            self._gateway,
            self._gatekeeper,
            self._longest,
            self._dependencies,
            self._connections.discard,
        )
        self._connections.add(connection)
        if self._limits is not None:
            connection.send_limits(self._limits)
        if slot:
            former = self._named.pop(slot, None)
            self._named[slot] = connection
            if former is not None:
                former.close()

    def send_limits(self, found: ClusterLimits) -> None:
        """Tell all front ends what their address limits depend on."""
        self._limits = msgspec.structs.replace(found, lockouts={})
        for connection in list(self._connections):
            connection.send_limits(found)

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.close()

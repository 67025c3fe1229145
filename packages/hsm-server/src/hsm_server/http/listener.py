# SPDX-License-Identifier: MIT
"""Listener: accepts connections, checks client revocation, and drains."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web
from cryptography import x509

from hsm_server.config.settings import HTTPLimits
from hsm_server.config.tls import StatusCheck
from hsm_server.http.connection import Connection
from hsm_server.http.fast_path import FAST_PATH
from hsm_server.http.state import IN_FLIGHT, LOGGER, METRICS, SETTINGS, SOURCES
from hsm_server.limits.guard import peer_of
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.adapter import ATTEMPT, AdapterContext
from hsm_server.tls.handshakes import Attempt, Outcome, channel_of
from hsm_server.tls.ocsp.client_check import ClientCheck, Ruling, subjects_of
from hsm_server.tls.ocsp.fetch import Responders
from hsm_server.tls.state import SystemClock


class Admission:
    """
    Admission of connections: checks client certificates by OCSP.

    Create it inside the event loop that uses it.

    Args:
        is_hard: Whether to reject clients if no responder answers.

        metrics: Counts queries and rejections.

        on_refusal: Called with the reason of each rejection.
    """

    def __init__(
        self, *, is_hard: bool, metrics: Metrics, on_refusal: Callable[[str], None]
    ) -> None:
        clock = SystemClock()
        self._metrics = metrics
        self._on_refusal = on_refusal
        self._responders = Responders(clock)
        self._check = ClientCheck(
            self._responders,
            clock,
            is_hard=is_hard,
            count=lambda result: metrics.count_ocsp("client", result),
        )
        self._running = asyncio.create_task(self._check.run())

    async def close(self) -> None:
        """Stop all checks."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._responders.close()

    def needs_check(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a client has shown a certificate."""
        return bool(_chain_of(transport))

    async def admit(
        self, transport: asyncio.BaseTransport, connection: Connection
    ) -> Callable[[], None] | None:
        """
        Check a client, within 5 seconds; return None if it is rejected.

        An accepted client is checked again later, and its connection retired once its
        certificate is revoked. Call the returned function when the connection ends.
        """
        subjects = subjects_of(_chain_of(transport))
        ruling = await self._check.judge(subjects)
        if not self._check.lets_in(ruling):
            self._refuse(ruling)
            return None

        def end(ruling: Ruling) -> None:
            self._refuse(ruling)
            connection.retire()

        return self._check.follow(subjects, end)

    def _refuse(self, ruling: Ruling) -> None:
        self._metrics.count_refused_client(ruling)
        self._on_refusal(ruling)


def _chain_of(transport: asyncio.BaseTransport) -> Sequence[x509.Certificate]:
    channel = channel_of(transport)
    return channel.verified_chain() if channel is not None else ()


_ALERT_SECONDS: Final = 1.0
"""Time for a rejected client to read the reason."""

_CANCEL_SECONDS: Final = 1.0
"""Time for cancelled requests to react at the end of the drain."""

_LINGER_SECONDS: Final = 5.0
"""Time to drain the rest of a rejected body, so that the response arrives."""

_RESERVED_DESCRIPTORS: Final = 64
"""Descriptors reserved for stores, audit log and log."""

_RETRY_SECONDS: Final = 0.1
"""Pause after a failed accept."""

_QUIET_SECONDS: Final = 60.0
"""Minimum interval between log lines about rejected connections, per reason."""


class Listener:
    """
    Server of an application on a socket, from start to drain.

    aiohttp's runner drops requests that a client is still sending at shutdown, so the
    listener waits for requests in flight first.

    Args:
        app: From `create_app`.

        bound: Listening sockets.

        context: TLS context, or None in tests. After a change of its client rules,
            connections that it no longer accepts are closed.

    Attributes:
        context: TLS context of new connections; may be replaced at any time.
    """

    def __init__(
        self,
        app: web.Application,
        bound: Sequence[socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        self.context = context
        self._app = app
        self._bound = bound
        self._options = _connection_options(app[SETTINGS].limits)
        self._fast_path = app.get(FAST_PATH)
        # Abandoned requests are not executed.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=_CANCEL_SECONDS,
            **self._options,
        )
        self._maximum = _most_connections(app[SETTINGS].limits)
        self._maximum_per_address = app[SETTINGS].limits.max_connections_per_address
        self._connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._quiet_until: dict[str, float] = {}
        self._admission: Admission | None = None
        if isinstance(context, AdapterContext):
            context.on_new_rules = self._retire_old

    async def start(self) -> None:
        """Accept connections."""
        await self._runner.setup()
        self._admission = self._begin_admission()
        for bound in self._bound:
            bound.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(bound)))

    def _begin_admission(self) -> Admission | None:
        """Return the client revocation checks, if the TLS state requires them."""
        context = self.context
        rules = context.state.client if isinstance(context, AdapterContext) else None
        if rules is None or rules.status_check is StatusCheck.OFF:
            return None
        return Admission(
            is_hard=rules.status_check is StatusCheck.HARD,
            metrics=self._app[METRICS],
            on_refusal=lambda why: self._warn("client certificate refused", reason=why),
        )

    async def stop(self, seconds: float) -> bool:
        """
        Stop accepting, answer requests in flight, close; return whether all had time.

        Args:
            seconds: Time limit for requests in flight.
        """
        await self._stop_accepting()
        if self._runner.server is None:
            return True
        in_flight = self._app[IN_FLIGHT]
        in_flight.begin_drain()
        # A request that has arrived starts before its connection counts as idle.
        await asyncio.sleep(0)
        for connection in self._connections.copy():
            if connection not in in_flight:
                connection.retire()
        answered = await in_flight.drain(seconds)
        await self._runner.cleanup()
        if self._admission is not None:
            await self._admission.close()
        return answered

    @property
    def _manager(self) -> web.Server:
        if self._runner.server is None:
            raise RuntimeError("The listener is not started.")
        return self._runner.server

    async def _accept(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # A busy front end leaves the next connection to another one: all accept
            # from the same socket, and the first to wake would take all that wait.
            await asyncio.sleep(0)
            try:
                accepted, _ = await loop.sock_accept(bound)
            except OSError as error:
                self._warn("accepting fails", error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if len(self._connections) >= self._maximum:
                accepted.close()
                self._warn("too many connections", maximum=self._maximum)
                continue
            source = _address_of(accepted)
            address = peer_of(source)
            # A trusted proxy may connect for many users.
            is_proxy = self._app[SOURCES].is_trusted(source)
            is_full = self._by_address[address] >= self._maximum_per_address
            if is_full and not is_proxy:
                accepted.close()
                self._warn("too many connections from one address")
                continue
            self._by_address[address] += 1
            connection = Connection(
                self._manager,
                self._app,
                self._fast_path,
                partial(self._forget, address),
                self._is_current,
                self._admission,
                loop=loop,
                **self._options,
            )
            self._connections.add(connection)
            task = asyncio.create_task(self._open(accepted, connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        """Pass a socket to its connection, after the handshake."""
        loop, context, attempt = asyncio.get_running_loop(), self.context, Attempt()
        ATTEMPT.set(attempt)
        limits = self._app[SETTINGS].limits
        try:
            async with asyncio.timeout(None) as deadline:
                attempt.on_failure = lambda: deadline.reschedule(
                    loop.time() + _ALERT_SECONDS
                )
                await loop.connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=context,
                    ssl_handshake_timeout=limits.handshake_timeout_seconds
                    if context
                    else None,
                    ssl_shutdown_timeout=_CANCEL_SECONDS if context else None,
                )
        except OSError as error:
            # A failed handshake is no error of the server.
            connection.forget()
            attempt.outcome = attempt.outcome or Outcome.by_error(error)
        except BaseException:
            connection.forget()
            raise
        finally:
            # The context of this task has the attempt: no reference cycle may stay.
            attempt.on_failure = lambda: None
        self._tell_of(attempt)

    def _tell_of(self, attempt: Attempt) -> None:
        """Count a handshake, and log a rejection."""
        outcome = attempt.outcome
        if outcome is None:
            return
        self._app[METRICS].count_handshake(outcome.name, outcome.group)
        if outcome.is_refusal:
            self._warn("handshake refused", reason=outcome.name)

    def _is_current(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a client is still accepted; one without certificate is."""
        channel, context = channel_of(transport), self.context
        if channel is None or not isinstance(context, AdapterContext):
            return True
        return channel.rules == context.state.client or not channel.verified_chain()

    def _retire_old(self) -> None:
        """Close connections that older rules accepted, once they are idle."""
        for connection in self._connections.copy():
            connection.retire_unless_current()

    def _forget(self, address: str, connection: Connection) -> None:
        """Remove a connection from the count; may be called twice."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def _stop_accepting(self) -> None:
        tasks = [*self._handshakes, *self._accepting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for bound in self._bound:
            bound.close()

    def _warn(self, event: str, **fields: Any) -> None:
        now, why = asyncio.get_running_loop().time(), f"{event} {fields.get('reason')}"
        if now >= self._quiet_until.get(why, 0.0):
            self._quiet_until[why] = now + _QUIET_SECONDS
            self._app[LOGGER].warning(event, **fields)


def _address_of(accepted: socket.socket) -> str:
    """Return the peer address of a connection, or an empty text."""
    try:
        peer = accepted.getpeername()
    except OSError:
        return ""
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def _most_connections(limits: HTTPLimits) -> int:
    """Return the maximum number of connections; leaves descriptors for other uses."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.max_connections
    return max(1, min(limits.max_connections, soft - _RESERVED_DESCRIPTORS))


def _connection_options(limits: HTTPLimits) -> dict[str, Any]:
    return {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": limits.keepalive_seconds,
        "lingering_time": _LINGER_SECONDS,
        "max_field_size": limits.header_bytes,
        "max_line_size": limits.line_bytes,
    }

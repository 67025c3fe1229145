# SPDX-License-Identifier: MIT
"""Client revocation checks between handshake and first request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cryptography import x509

from hsm_server.http.connection import Connection
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.handshakes import channel_of
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
        Return None if a client may not go on; it takes 5 seconds at most.

        Otherwise it is followed from now on, and retired when it may go on no more;
        what is returned is to be called when the connection has ended.
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

# SPDX-License-Identifier: MIT
"""
TLS state: one immutable value that determines handshakes.

The TLS manager serialises its changes, reports faults as alarms, and passes each state
to the front ends in a sealed memory file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec
from cryptography import x509
from msgspec import Meta, MsgspecError

from hsm_core.model import Line, Record
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import StatusCheck
from hsm_server.system.secret_handover import read_sealed, seal
from hsm_server.tls.certificates import ends_at, kind_of

if TYPE_CHECKING:
    # The command checks a state, and has neither.
    from hsm_server.observability.logs import Logger
    from hsm_server.observability.metrics import Metrics


class ServerPair(Record, frozen=True, kw_only=True):
    """
    Server certificate and its private key.

    Attributes:
        chain: DER, server certificate first, without the root.
        key: Private key, PKCS#8 in DER; secret.
        issuer: Issuer certificate, DER, or empty if unknown. It verifies OCSP responses
            and is not sent.
        staple: OCSP response about the server certificate, DER, or empty.
    """

    chain: Annotated[tuple[bytes, ...], Meta(min_length=1)]
    key: bytes
    issuer: bytes = b""
    staple: bytes = b""


class ClientRules(Record, frozen=True, kw_only=True):
    """
    Client certificate rules.

    Attributes:
        is_required: Whether to reject connections without a certificate.
        authorities: CA certificates, DER; empty if the last one was withdrawn, and then
            no client is accepted.
        revocation_lists: CRLs, DER; if any, each issuer in a chain needs one.
        status_check: Whether OCSP is checked too.
    """

    is_required: bool = True
    authorities: tuple[bytes, ...]
    revocation_lists: tuple[bytes, ...] = ()
    status_check: StatusCheck = StatusCheck.OFF


class Challenge(Record, frozen=True, kw_only=True):
    """
    Pending TLS-ALPN-01 challenge.

    Attributes:
        name: Server name that the CA will request: lower case, an A-label or, for an
            address, its reverse pointer.
        pair: Certificate for the challenge.

    Standard:
        RFC 8737, section 3.
    """

    name: Line
    pair: ServerPair


class TLSState(Record, frozen=True, kw_only=True):
    """
    TLS state of the listener.

    Attributes:
        generation: Increases with every change.
        pairs: Certificates, at most one per key type.
        client: Client certificate rules; None requests no certificate.
        challenges: Pending ACME challenges, for connections that request only those.
    """

    generation: Annotated[int, Meta(ge=0)]
    pairs: Annotated[tuple[ServerPair, ...], Meta(min_length=1)]
    client: ClientRules | None = None
    challenges: tuple[Challenge, ...] = ()


def with_staples(
    pairs: Sequence[ServerPair], staples: Mapping[bytes, bytes]
) -> tuple[ServerPair, ...]:
    """Return pairs with the staples of their certificates, where there are some."""
    return tuple(
        msgspec.structs.replace(pair, staple=staples.get(pair.chain[0], pair.staple))
        for pair in pairs
    )


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(TLSState)


def pack_state(state: TLSState) -> bytes:
    """Return a state as MessagePack; private keys are in it."""
    return _ENCODER.encode(state)


def read_state(data: bytes) -> TLSState:
    """Return the state that `pack_state` has written."""
    return _DECODER.decode(data)


class ActiveState:
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
        Put another state in force; return when all front ends use it.

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


def seal_state(state: TLSState) -> int:
    """
    Return the descriptor of a sealed file with a state; the caller closes it.

    Raises:
        ListenError: There is no room for it.
    """
    try:
        return seal("ferrohsm-tls", pack_state(state))
    except (OSError, ValueError):
        raise ListenError(
            "The certificates and keys are too large for the TLS state."
        ) from None


def unseal_state(descriptor: int) -> TLSState:
    """
    Return the state in a sealed file, which stays open.

    Raises:
        ListenError: There is none.
    """
    try:
        return read_state(read_sealed(descriptor))
    except (OSError, ValueError, MsgspecError):
        raise ListenError("The TLS state is malformed.") from None


def ends_by_kind(state: TLSState) -> dict[str, float]:
    """Return until when each certificate is valid, in Unix time, by kind of key."""
    return {
        kind_of(x509.load_der_x509_certificate(pair.chain[0])): ends_at(
            pair.chain
        ).timestamp()
        for pair in state.pairs
    }


class Alarms:
    """
    One alarm per part, such as ``files``.

    Args:
        logger: Logs start, change and end of alarms.

        metrics: Show active alarms, and count starts and changes.

        on_change: Called when the first alarm begins and when the last ends.
    """

    def __init__(
        self,
        logger: Logger,
        metrics: Metrics,
        on_change: Callable[[bool], object] = bool,
    ) -> None:
        self._logger = logger
        self._metrics = metrics
        self._on_change = on_change
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """The complaint of each part that has one."""
        return dict(self._reasons)

    def watch(self, part: str) -> None:
        """Show a part from now on; nothing is known to be wrong with it."""
        self._metrics.show_tls_alarm(part, is_on=False)

    def begin(self, part: str, reason: str) -> None:
        """
        Start or change an alarm; an unchanged one is not logged again.

        Args:
            part: Name of the part, of a small set: it is a label of metrics.

            reason: A sentence for people, without secrets.
        """
        if self._reasons.get(part) == reason:
            return
        is_first = not self._reasons
        self._reasons[part] = reason
        self._logger.error("tls alarm", part=part, reason=reason)
        self._metrics.count_tls_alarm(part)
        self._metrics.show_tls_alarm(part, is_on=True)
        if is_first:
            self._on_change(True)

    def report(self, part: str, reason: str) -> None:
        """Begin or change the alarm of a part; end it if there is no reason."""
        if reason:
            self.begin(part, reason)
        else:
            self.end(part)

    def end(self, part: str) -> None:
        """End the alarm."""
        if self._reasons.pop(part, None) is not None:
            self._logger.info("tls alarm over", part=part)
            self._metrics.show_tls_alarm(part, is_on=False)
            if not self._reasons:
                self._on_change(False)


class Clock(Protocol):
    """Clock interface of this package."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""

    def seconds(self) -> float:
        """Return seconds of a clock that only runs, from any beginning."""

    async def sleep(self, seconds: float) -> None:
        """Wait; not below zero."""


class SystemClock:
    """Clock of this machine and event loop."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """Return seconds since the machine was started."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is done, and give up the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

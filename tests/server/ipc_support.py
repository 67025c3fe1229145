# SPDX-License-Identifier: MIT
"""Vaults, front ends and raw ends of their connections, for the tests of `ipc`."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Role
from hsm_core.operations import ListAuditEvents, Operation
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.testing import caller, memory_hsm
from hsm_server.config.settings import TokenRules
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.ipc.frames import (
    HEADER_BYTES,
    PROTOCOL,
    Answer,
    FromFrontEnd,
    FromVault,
    Hello,
    Purpose,
    Request,
    packed,
)
from hsm_server.ipc.front_end import Dependencies, VaultService
from hsm_server.ipc.remote_vault import RemoteVault
from hsm_server.vault.access import VaultAccess, Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.server.support import PATIENCE, SECRET, mint

HELLO: Final = packed(Hello(PROTOCOL, "test"))
LONGEST: Final = 4 * 1024 * 1024

FRONT: Final[Any] = FromVault
"""What a raw front end reads."""

BACK: Final[Any] = FromFrontEnd
"""What a raw vault reads."""


def framed(body: bytes) -> bytes:
    """Return bytes with their length before them."""
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def visitor(token: str | None = None, **fields: Any) -> Visitor:
    """Return a visitor, by default one with a good token."""
    return Visitor(credential=mint() if token is None else token, **fields)


def asks(number: int, operation: Operation[Any], who: Visitor | None = None) -> Request:
    """Return a request to execute an operation."""
    data = wire.encode_packed(operation)
    return Request(number, Purpose.EXECUTE, who or visitor(), data)


def result(answer: Answer, kind: Any) -> Any:
    """Return the result in an answer."""
    assert answer.error is None, answer.error.code
    return wire.decode_packed(answer.result, kind)


class Raw:
    """An end of a connection that may send anything."""

    def __init__(self, end: socket.socket, reads: Any) -> None:
        self.socket = end
        self._decoder = msgspec.msgpack.Decoder(reads)

    async def open(self) -> "Raw":
        """Begin to read."""
        self._reader, self.writer = await asyncio.open_unix_connection(
            sock=self.socket, limit=2**20
        )
        return self

    async def send(self, *frames: Any) -> None:
        """Send frames, or bytes as they are, in one piece."""
        parts = (f if isinstance(f, bytes) else packed(f) for f in frames)
        with contextlib.suppress(ConnectionError):
            self.writer.write(b"".join(parts))
            await self.writer.drain()

    async def receive(self) -> Any:
        """Return the next frame; None at the end."""
        async with asyncio.timeout(PATIENCE):
            try:
                head = await self._reader.readexactly(HEADER_BYTES)
                body = await self._reader.readexactly(int.from_bytes(head, "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            return self._decoder.decode(body)

    async def answer(self) -> Answer:
        """Return the next frame, which must be an answer."""
        frame = await self.receive()
        assert isinstance(frame, Answer), frame
        return frame

    async def rest(self) -> list[Any]:
        """Return all frames that come until the other side ends the connection."""
        frames = []
        while (frame := await self.receive()) is not None:
            frames.append(frame)
        return frames

    def close(self) -> None:
        """End the connection."""
        self.writer.close()


class Bench:
    """A vault, and what is connected with it."""

    def __init__(self, gateway: AsyncHSMGateway, longest: int = LONGEST) -> None:
        self.hsm: OpenHSM
        self.failures = 0
        self.violations: list[str] = []
        self.unexpected: list[BaseException] = []
        self.troubles: list[str] = []
        self.gatekeeper = Gatekeeper(
            gateway,
            TokenTrust.of_secret(SECRET, TokenRules()),
            self._count,
            FlooredClock(),
        )
        dependencies = Dependencies(self.violations.append, self.unexpected.append)
        self.service = VaultService(gateway, self.gatekeeper, longest, dependencies)
        self._remotes: list[RemoteVault] = []
        self._raws: list[Raw] = []

    def _count(self) -> None:
        self.failures += 1

    def end(self, peer_uid: int | None = None, slot: str = "") -> socket.socket:
        """Connect somebody, and return their end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        uid = os.geteuid() if peer_uid is None else peer_uid
        self.service.connect(theirs, uid, slot=slot)
        return ours

    def front_end(self) -> RemoteVault:
        """Connect a front end of ours."""
        vault = RemoteVault(self.troubles.append)
        vault.attach(self.end())
        self._remotes.append(vault)
        return vault

    async def raw(self, *, greet: bool = True, slot: str = "") -> Raw:
        """Connect somebody who sends what they like."""
        raw = await Raw(self.end(slot=slot), FRONT).open()
        self._raws.append(raw)
        assert isinstance(await raw.receive(), Hello)
        if greet:
            await raw.send(HELLO)
        return raw

    async def close(self) -> None:
        """End everything."""
        for remote in self._remotes:
            remote.close()
        for raw in self._raws:
            raw.close()
        self.service.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def open_bench(
    gateway: AsyncHSMGateway | None = None, *, longest: int = LONGEST
) -> AsyncIterator[Bench]:
    """Open a vault over an HSM in memory, or over *gateway*."""
    with memory_hsm() as hsm:
        bench = Bench(gateway or open_async(hsm), longest)
        bench.hsm = hsm
        try:
            yield bench
        finally:
            await bench.close()


def events(hsm: OpenHSM) -> Sequence[Any]:
    """Return what is on record, the newest first."""
    auditor = caller(Role.AUDITOR, principal="reader")
    page = hsm.act_as(auditor).execute(ListAuditEvents(limit=1000))
    return [item.event for item in page.items]


def recorded(hsm: OpenHSM, kind: str) -> list[tuple[str, str]]:
    """Return by whom and with which code something is on record."""
    found = [event for event in events(hsm) if event.kind == kind]
    return [(e.caller.principal if e.caller else "", e.code) for e in found]


class OverSockets:
    """Puts sockets between front end and vault, and remembers both ends."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.unexpected: list[BaseException] = []

    def __call__(self, gateway: AsyncHSMGateway, gatekeeper: Gatekeeper) -> VaultAccess:
        """Return the front end's side."""
        dependencies = Dependencies(self.violations.append, self.unexpected.append)
        self.service = VaultService(gateway, gatekeeper, LONGEST, dependencies)
        self.vault = RemoteVault(lambda event: None)
        ours, theirs = socket.socketpair()
        self.service.connect(theirs, os.getuid())
        self.vault.attach(ours)
        return self.vault

    def close(self) -> None:
        """End the connection, and see that nothing was wrong with it."""
        self.vault.close()
        self.service.close()
        assert [] == self.violations
        assert [] == self.unexpected

# SPDX-License-Identifier: MIT
"""A front end whose vault is silent, lost, strange or replaced by another."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm
from hsm_core.error_records import error_record
from hsm_server.ipc.frames import (
    CHUNK_BYTES,
    MAX_WAITING,
    Answer,
    Cancel,
    Chunk,
    Event,
    Hello,
    Request,
    packed,
)
from hsm_server.ipc.remote_vault import RemoteVault
from hsm_server.vault.access import Visitor
from tests.server.ipc_support import BACK, HELLO, Raw
from tests.server.support import PATIENCE, until

WHO = Visitor(credential="t")
RANDOM = ops.GenerateRandom(length=4)
CREATE = ops.CreateKey(algorithm=Algorithm.ED25519)
VIEW = ops.ListAuditEvents(ascending=True, follow=True)
PAGE = ops.AuditPage(items=(), next_seq=1, head_seq=0, head_hash="")


class Scripted:
    """A front end, and vaults that do what a test says."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.known: list[str] = []
        self.remote = RemoteVault(self.troubles.append)
        self._raws: list[Raw] = []

    async def attach(self, *, greet: bool = True) -> Raw:
        """Attach a vault that knows the front end's version."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.remote.attach(ours)
        raw = await Raw(theirs, BACK).open()
        self._raws.append(raw)
        assert isinstance(await raw.receive(), Hello)
        if greet:
            await raw.send(HELLO)
        return raw

    def ask(self, operation: ops.Operation[Any] = RANDOM) -> asyncio.Future[Any]:
        """Begin an operation."""
        return asyncio.ensure_future(
            self.remote.execute(
                WHO, operation, idempotency_key=None, known=self.known.append
            )
        )

    def close(self) -> None:
        """End everything."""
        self.remote.close()
        for raw in self._raws:
            raw.close()


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """Give a front end without a vault."""
    opened = Scripted()
    yield opened
    opened.close()


def told(number: int, data: bytes) -> Answer:
    """Return an answer that holds these random bytes."""
    return Answer(number, "bob", wire.encode_packed(ops.RandomBytes(random=data)))


async def request(raw: Raw) -> Request:
    """Return the next request."""
    frame = await raw.receive()
    assert isinstance(frame, Request)
    return frame


class TestAnswers:
    async def test_an_answer_that_nobody_waits_for(self, scripted: Scripted) -> None:
        """What was given up may be answered all the same, to nobody."""
        raw = await scripted.attach()
        first = scripted.ask()
        number = (await request(raw)).id
        first.cancel()
        assert Cancel(number) == await raw.receive()

        second = scripted.ask()
        await raw.send(
            Chunk(number, b"x"), told(number, b"first"), told(number, b"first")
        )
        await raw.send(told((await request(raw)).id, b"second"))

        assert b"second" == bytes((await second).random)

    @pytest.mark.parametrize(
        "frame",
        [
            told(9, b""),
            Chunk(9, b""),
            HELLO,
            Event(1, "", b""),
            Answer(1, in_chunks=True),
            Cancel(1),
            b"\x40\0\0\0",
            b"\0\0\0\0",
        ],
        ids=lambda frame: type(frame).__name__,
    )
    async def test_what_no_vault_sends(self, scripted: Scripted, frame: Any) -> None:
        """A frame out of order ends the connection, and what waits is given up."""
        raw = await scripted.attach()
        asked = scripted.ask()
        await request(raw)

        await raw.send(frame)

        with pytest.raises(errors.UnavailableError):
            await asked
        assert 1 == len(scripted.troubles)

    async def test_another_version(self, scripted: Scripted) -> None:
        """A vault of another version is no vault."""
        raw = await scripted.attach(greet=False)

        await raw.send(packed(Hello(2, "next")))
        await until(lambda: scripted.troubles)

        with pytest.raises(errors.UnavailableError):
            await scripted.ask()

    async def test_a_flood(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer that never ends is not kept."""
        monkeypatch.setattr("hsm_server.ipc.remote_vault._MOST_ANSWER_BYTES", 1_000_000)
        raw = await scripted.attach()
        asked = scripted.ask()
        number = (await request(raw)).id

        await raw.send(*[Chunk(number, b"x" * CHUNK_BYTES)] * 20)

        with pytest.raises(errors.UnavailableError):
            await asked

    async def test_too_many_wait(self, scripted: Scripted) -> None:
        """No more wait than the vault would take."""
        await scripted.attach()
        asked = [scripted.ask() for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)

        with pytest.raises(errors.OverloadedError):
            await scripted.ask()

        scripted.remote.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {errors.UnavailableError} == {type(error) for error in found}


class TestSilence:
    async def test_what_waits(self, scripted: Scripted) -> None:
        """A vault that says nothing is busy: it may execute what it was sent."""
        raw = await scripted.attach()
        asked, change = scripted.ask(), scripted.ask(CREATE)
        numbers = [(await request(raw)).id for _ in range(2)]
        await asyncio.sleep(1.5)
        later = scripted.ask()
        numbers.append((await request(raw)).id)
        waits = not (asked.done() or change.done() or later.done())
        await raw.send(told(numbers[0], b"late"), told(numbers[2], b"too"))

        assert waits
        assert b"late" == bytes((await asked).random)
        assert b"too" == bytes((await later).random)
        assert [] == scripted.troubles
        raw.close()
        with pytest.raises(errors.OutcomeUnknownError):
            await change

    async def test_a_long_operation_on_its_way(self, scripted: Scripted) -> None:
        """What was not sent to its end when the vault is lost, nobody has begun."""
        ours, theirs = socket.socketpair()
        scripted.remote.attach(ours)
        operation = ops.ImportKey(
            algorithm="aes", wrapping_key_id="w", wrapped=b"x" * 4_000_000
        )
        asked = scripted.ask(operation)
        await asyncio.sleep(0.1)
        theirs.close()

        async with asyncio.timeout(PATIENCE):
            with pytest.raises(errors.UnavailableError) as caught:
                await asked

        assert errors.UnavailableError is type(caught.value)


class TestLoss:
    async def test_what_waits(self, scripted: Scripted) -> None:
        """With the connection all that waits is given up at once."""
        raw = await scripted.attach()
        asked, change = scripted.ask(), scripted.ask(CREATE)
        await request(raw)

        raw.close()

        with pytest.raises(errors.OutcomeUnknownError):
            await change
        with pytest.raises(errors.UnavailableError):
            await asked
        told = ["the connection to the vault ended: gone"]
        assert told == scripted.troubles

    async def test_a_new_vault(self, scripted: Scripted) -> None:
        """No answer of the old connection is given on the new one."""
        old = await scripted.attach()
        first = scripted.ask()
        number = (await request(old)).id

        new = await scripted.attach()
        second = scripted.ask()
        assert number == (await request(new)).id
        await old.send(told(number, b"old"))
        await asyncio.sleep(0.05)
        assert not second.done()
        await new.send(told(number, b"new"))

        with pytest.raises(errors.UnavailableError):
            await first
        assert b"new" == bytes((await second).random)
        assert [] == scripted.troubles


class TestCancelling:
    async def test_an_answered_request(self, scripted: Scripted) -> None:
        """Of what was answered nothing is cancelled."""
        raw = await scripted.attach()
        asked = scripted.ask()
        await raw.send(told((await request(raw)).id, b"x"))
        await asked

        scripted.ask()

        assert isinstance(await raw.receive(), Request)

    async def test_half_an_operation(self, scripted: Scripted) -> None:
        """An operation that is given up on its way is forgotten by the vault."""
        raw = await scripted.attach()
        operation = ops.ImportKey(
            algorithm="aes", wrapping_key_id="w", wrapped=b"x" * 20_000_000
        )
        asked = scripted.ask(operation)
        await asyncio.sleep(0)

        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        found = [await raw.receive()]
        while not isinstance(found[-1], Cancel):
            found.append(await raw.receive())

        *chunks, last = found
        assert chunks
        assert all(isinstance(chunk, Chunk) for chunk in chunks)
        assert {last.id} == {chunk.id for chunk in chunks}


class TestEvents:
    async def test_pages_and_the_end(self, scripted: Scripted) -> None:
        """Pages come in order, then the error that ends the view."""
        raw = await scripted.attach()
        pages = scripted.remote.follow(WHO, VIEW, known=scripted.known.append)
        first = asyncio.ensure_future(anext(pages))
        number = (await request(raw)).id
        data = wire.encode_packed(PAGE)
        record = error_record(errors.AuditUnavailableError())

        await raw.send(
            Event(number, "bob", data),
            Chunk(number, data[:3]),
            Event(number, "bob", data[3:], in_chunks=True),
            Answer(number, error=record),
        )

        assert PAGE == await first
        assert PAGE == await anext(pages)
        with pytest.raises(errors.AuditUnavailableError):
            await anext(pages)
        assert ["bob", "bob"] == scripted.known

    async def test_closing(self, scripted: Scripted) -> None:
        """Who closes a view tells the vault."""
        raw = await scripted.attach()
        pages = scripted.remote.follow(WHO, VIEW, known=scripted.known.append)
        first = asyncio.ensure_future(anext(pages))
        number = (await request(raw)).id
        await raw.send(Event(number, "bob", wire.encode_packed(PAGE)))
        await first

        await pages.aclose()

        assert Cancel(number) == await raw.receive()

    async def test_a_slow_reader(self, scripted: Scripted) -> None:
        """Who reads too slowly gets what was kept, and then an error."""
        raw = await scripted.attach()
        pages = scripted.remote.follow(WHO, VIEW, known=scripted.known.append)
        first = asyncio.ensure_future(anext(pages))
        number = (await request(raw)).id
        event = Event(number, "bob", wire.encode_packed(PAGE))
        await raw.send(event)
        await first

        await raw.send(*[event] * 200)
        assert Cancel(number) == await raw.receive()
        seen = 0
        with contextlib.suppress(errors.OverloadedError):
            async for _ in pages:
                seen += 1
            pytest.fail("The view goes on.")

        assert 64 == seen

# SPDX-License-Identifier: MIT
"""The vault's side: batches, cancelling, errors, and what is kept in memory."""

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.errors import AuthenticationError, OverloadedError
from hsm_core.model import Caller
from hsm_core.protocols import Request as CoreRequest
from hsm_server.ipc.frames import (
    CHUNK_BYTES,
    MAX_WAITING,
    Answer,
    Cancel,
    Chunk,
    Purpose,
    Request,
)
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Authenticated
from tests.server.ipc_support import LONGEST, Bench, asks, open_bench, result, visitor
from tests.server.support import until

RANDOM = ops.GenerateRandom(length=4)
OUTBOX = "hsm_server.ipc.requests"
PIECE_BYTES = 256 * 1024


class Stub:
    """A gateway that answers when a test says so."""

    revision = 0

    def __init__(self) -> None:
        self.batches: list[list[CoreRequest]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.refusals: list[str] = []
        self.error: Exception | None = None
        self.may_record = asyncio.Event()
        self.may_record.set()
        self.pages: list[Any] = []

    @property
    def lengths(self) -> list[list[int]]:
        """How many random bytes were asked for, batch by batch."""
        found: list[Any] = [[a.operation for a in batch] for batch in self.batches]
        return [[operation.length for operation in batch] for batch in found]

    def execute_many(
        self, requests: Sequence[CoreRequest], /
    ) -> list[asyncio.Future[Any]]:
        """Begin requests that a test will answer."""
        if self.error is not None:
            raise self.error
        self.batches.append(list(requests))
        loop = asyncio.get_running_loop()
        begun: list[asyncio.Future[Any]] = [loop.create_future() for _ in requests]
        self.futures += begun
        return begun

    async def record_refusal(
        self, caller: Caller, code: str, /, *, kind: str = "", key_id: str = ""
    ) -> None:
        """Note a refusal, when that is allowed."""
        await self.may_record.wait()
        self.refusals.append(code)

    def asks_for_single_use(self) -> bool:
        """Ask for nothing."""
        return False

    def act_as(self, caller: Caller, /) -> Any:
        """Give a view whose pages a test has chosen."""

        async def follow(operation: Any) -> AsyncIterator[Any]:
            for page in self.pages:
                yield page

        return SimpleNamespace(follow=follow)


@pytest.fixture
async def stub() -> Stub:
    """Give a gateway that answers when told to."""
    return Stub()


@pytest.fixture
async def bench(stub: Stub) -> AsyncIterator[Bench]:
    """Give a vault over that gateway."""
    gateway: Any = stub
    async with open_bench(gateway) as opened:
        yield opened


class TestBatches:
    async def test_what_arrives_together(self, bench: Bench, stub: Stub) -> None:
        """Requests that arrive together are executed together, in order."""
        raw = await bench.raw()

        await raw.send(*(asks(n, ops.GenerateRandom(length=n)) for n in range(1, 9)))
        await until(lambda: stub.batches)

        assert [list(range(1, 9))] == stub.lengths

    async def test_others_get_their_turn(self, bench: Bench, stub: Stub) -> None:
        """Very many requests are executed in parts, between which others are heard."""
        raw, other = await bench.raw(), await bench.raw()
        who = visitor()

        await raw.send(*(asks(n, RANDOM, who) for n in range(1, 301)))
        await other.send(asks(1, ops.GenerateRandom(length=9), who))
        await until(lambda: len(stub.futures) == 301)

        assert max(map(len, stub.lengths)) <= 32
        assert stub.lengths.index([9]) < len(stub.lengths) - 1

    async def test_an_error_in_the_middle(self, bench: Bench, stub: Stub) -> None:
        """A request that can't be executed leaves the others of its batch alone."""
        raw = await bench.raw()
        wrong = Request(2, Purpose.EXECUTE, visitor(), b"\xc1")

        await raw.send(asks(1, RANDOM), wrong, asks(3, RANDOM))
        await until(lambda: stub.batches)
        for future in stub.futures:
            future.set_result(ops.RandomBytes(random=b"r"))
        answers = [await raw.answer() for _ in range(3)]

        assert [2, 1, 3] == [answer.id for answer in answers]
        codes = [answer.error.code for answer in answers if answer.error]
        assert [errors.MalformedError.code] == codes

    async def test_the_gateway_fails(self, bench: Bench, stub: Stub) -> None:
        """What nobody thought of is told, and each request has its answer."""
        raw = await bench.raw()
        stub.error = LookupError("secret")

        await raw.send(asks(1, RANDOM), asks(2, RANDOM))
        answers = [await raw.answer() for _ in range(2)]
        stub.error = None
        await raw.send(asks(3, RANDOM))
        await until(lambda: stub.batches)

        for answer in answers:
            assert answer.error is not None
            assert errors.HSMError.code == answer.error.code
            assert "secret" not in answer.error.message
        assert [LookupError] * 2 == [type(error) for error in bench.unexpected]

    async def test_the_gatekeeper_fails(
        self, bench: Bench, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An exception on the way to a batch is the answer to one request alone."""
        raw = await bench.raw()
        good, calls = bench.gatekeeper.authenticate, iter([False, True, False])

        def authenticate(who: Any, *, spends: bool) -> Authenticated:
            if next(calls):
                raise ZeroDivisionError
            return good(who, spends=spends)

        monkeypatch.setattr(bench.gatekeeper, "authenticate", authenticate)
        await raw.send(*(asks(n, RANDOM) for n in (1, 2, 3)))
        answer = await raw.answer()
        await until(lambda: stub.batches)

        assert 2 == answer.id
        assert [2] == [len(batch) for batch in stub.batches]
        assert [ZeroDivisionError] == [type(error) for error in bench.unexpected]

    async def test_a_result_that_can_not_be_written(
        self, bench: Bench, stub: Stub
    ) -> None:
        """A result that is no record is an error of ours, and is answered."""
        raw = await bench.raw()
        await raw.send(asks(1, RANDOM))
        await until(lambda: stub.futures)

        stub.futures[0].set_result(object())
        answer = await raw.answer()

        assert answer.error is not None
        assert 1 == len(bench.unexpected)

    async def test_a_violation_in_the_middle(self, bench: Bench, stub: Stub) -> None:
        """Nothing is executed of what came together with a violation."""
        raw = await bench.raw()

        await raw.send(asks(1, RANDOM), asks(1, RANDOM))

        assert [] == await raw.rest()
        assert [] == stub.batches
        assert ["a repeated id"] == bench.violations


class TestCancelling:
    async def test_what_waits(self, bench: Bench, stub: Stub) -> None:
        """A request that is cancelled is given up, and not answered."""
        raw = await bench.raw()
        await raw.send(asks(1, RANDOM), asks(2, RANDOM))
        await until(lambda: stub.futures)

        await raw.send(Cancel(1))
        await until(stub.futures[0].cancelled)
        stub.futures[1].set_result(ops.RandomBytes(random=b"r"))

        assert 2 == (await raw.answer()).id

    async def test_in_the_same_breath(self, bench: Bench, stub: Stub) -> None:
        """A request that is cancelled before it is begun is never done."""
        raw = await bench.raw()

        await raw.send(
            asks(1, RANDOM), Cancel(1), asks(2, ops.GenerateRandom(length=2))
        )
        await until(lambda: stub.batches)

        assert [[2]] == stub.lengths

    async def test_pieces(self, bench: Bench) -> None:
        """Pieces of what is cancelled are forgotten, as often as that happens."""
        raw = await bench.raw()
        piece = b"x" * PIECE_BYTES

        for number in range(1, 20):
            await raw.send(*[Chunk(number, piece)] * 12, Cancel(number))
        await raw.send(
            Chunk(20, piece), Request(20, Purpose.GREET, visitor(), b"", True)
        )

        assert "alice" == (await raw.answer()).principal

    async def test_a_failure_is_on_record(self, bench: Bench, stub: Stub) -> None:
        """Who guesses credentials and cancels is counted and recorded all the same."""
        raw = await bench.raw()
        stub.may_record.clear()

        for number in range(1, 6):
            await raw.send(asks(number, RANDOM, visitor("guess")), Cancel(number))
        await until(lambda: bench.failures == 5)
        raw.close()
        await asyncio.sleep(0.05)
        stub.may_record.set()
        await until(lambda: len(stub.refusals) == 5)

        assert [AuthenticationError.code] * 5 == stub.refusals

    async def test_the_end(self, bench: Bench, stub: Stub) -> None:
        """What waits for a front end that is gone is given up."""
        raw = await bench.raw()
        await raw.send(asks(1, RANDOM))
        await until(lambda: stub.futures)

        raw.close()
        await until(stub.futures[0].cancelled)

        assert [] == bench.violations

    async def test_a_long_answer(self, bench: Bench, stub: Stub) -> None:
        """Of a long answer that is cancelled, the rest is not sent."""
        raw = await bench.raw()
        await raw.send(asks(1, RANDOM), asks(2, RANDOM))
        await until(lambda: len(stub.futures) == 2)
        long = ops.RandomBytes(random=b"r" * 256 * CHUNK_BYTES)

        stub.futures[0].set_result(long)
        await asyncio.sleep(0.05)
        await raw.send(Cancel(1))
        await asyncio.sleep(0.05)
        stub.futures[1].set_result(ops.RandomBytes(random=b"r"))
        frames = [await raw.receive()]
        while frames[-1].id == 1:
            frames.append(await raw.receive())

        assert len(frames) < 128


class TestBounds:
    async def test_too_many_requests(self, bench: Bench, stub: Stub) -> None:
        """More requests than may wait are refused, and so are their pieces."""
        raw = await bench.raw()
        who = visitor()
        for start in range(1, MAX_WAITING, 256):
            await raw.send(*(asks(n, RANDOM, who) for n in range(start, start + 256)))
        await until(lambda: len(stub.futures) == MAX_WAITING)

        for number in range(MAX_WAITING + 1, MAX_WAITING + 21):
            chunks = [Chunk(number, b"x" * PIECE_BYTES)] * 12
            last = Request(number, Purpose.GREET, who, b"", True)
            await raw.send(*chunks, last)
            answer = await raw.answer()
            assert answer.error is not None
            assert OverloadedError.code == answer.error.code

        stub.futures[0].set_result(ops.RandomBytes(random=b"r"))
        assert 1 == (await raw.answer()).id
        # Nothing of what was refused takes room.
        number = MAX_WAITING + 30
        await raw.send(
            *[Chunk(number, b"x" * PIECE_BYTES)] * 12,
            Request(number, Purpose.GREET, who, b"", True),
        )
        assert "alice" == (await raw.answer()).principal

    async def test_too_many_bytes(self, bench: Bench, stub: Stub) -> None:
        """Operations under way count by their size until they are answered."""
        raw, who = await bench.raw(), visitor()
        long = wire.encode_packed(
            ops.Encrypt(key_id="k", plaintext=b"x" * (LONGEST - 1000))
        )

        async def send(number: int) -> None:
            pieces = range(0, len(long), CHUNK_BYTES)
            for at in pieces[:-1]:
                await raw.send(Chunk(number, long[at : at + CHUNK_BYTES]))
            rest = long[pieces[-1] :]
            await raw.send(Request(number, Purpose.EXECUTE, who, rest, True))

        for number in range(1, 9):
            await send(number)
        await until(lambda: len(stub.futures) == 8)
        await send(9)
        refused = await raw.answer()
        stub.futures[0].set_result(ops.RandomBytes(random=b"r"))
        answered = await raw.answer()
        await send(10)
        await until(lambda: len(stub.futures) == 9)

        assert refused.error is not None
        assert (9, OverloadedError.code) == (refused.id, refused.error.code)
        assert 1 == answered.id

    async def test_unread_answers(
        self, bench: Bench, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who lets long answers pile up loses the connection, and they are freed."""
        monkeypatch.setattr(f"{OUTBOX}._MOST_OWED", 0)
        raw = await bench.raw()
        who = visitor()
        await raw.send(*(asks(n, RANDOM, who) for n in range(1, 41)))
        await until(lambda: len(stub.futures) == 40)

        done = 0
        for future in stub.futures:
            if not future.done():
                future.set_result(ops.RandomBytes(random=bytes(LONGEST // 2)))
                done += 1
            await asyncio.sleep(0)
        await until(lambda: bench.violations)

        assert ["reads nothing"] == bench.violations
        assert done <= 8 * 2 + 2
        stub.futures.clear()

        def is_freed() -> bool:
            gc.collect()
            return not any(isinstance(found, Answer) for found in gc.get_objects())

        await until(is_freed)

    async def test_unread_short_answers(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A front end that reads nothing is not read either, so little is kept."""
        monkeypatch.setattr("hsm_server.ipc.channel._MUCH_UNSENT", 100_000)
        monkeypatch.setattr("hsm_server.ipc.channel._FEW_UNSENT", 10_000)
        raw = await bench.raw()
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        numbers = itertools.count(1)

        with contextlib.suppress(TimeoutError):
            while True:
                asked = [
                    Request(next(numbers), Purpose.PUBLIC_KEYS, Visitor())
                    for _ in range(1000)
                ]
                async with asyncio.timeout(0.5):
                    await raw.send(*asked)

        assert [] == bench.violations
        # It can't even send what it likes.
        assert raw.writer.transport.get_write_buffer_size() > 0

    async def test_long_answers_let_short_ones_pass(
        self, bench: Bench, stub: Stub
    ) -> None:
        """A short answer does not wait for the end of a long one before it."""
        raw, who = await bench.raw(), visitor()
        await raw.send(asks(1, RANDOM, who), asks(2, RANDOM, who))
        await until(lambda: len(stub.futures) == 2)
        data = bytes(range(256)) * 40_000

        stub.futures[0].set_result(ops.RandomBytes(random=data))
        stub.futures[1].set_result(ops.RandomBytes(random=b"short"))
        frames: list[Any] = []
        while not frames or frames[-1].id == 2 or not isinstance(frames[-1], Answer):
            frames.append(await raw.receive())

        short = next(f for f in frames if f.id == 2)
        assert frames.index(short) < len(frames) - 1
        pieces = [f.data for f in frames if isinstance(f, Chunk)]
        assert data == b"".join(pieces)
        assert ops.RandomBytes(random=b"") == result(frames[-1], ops.RandomBytes)
        assert (True, "random") == (frames[-1].in_chunks, frames[-1].payload)


async def test_one_connection_for_each_front_end(bench: Bench, stub: Stub) -> None:
    """A new connection of a front end ends its former one, and nobody else's."""
    former, other = await bench.raw(slot="front1"), await bench.raw(slot="front2")
    await former.send(asks(1, RANDOM))
    await until(lambda: stub.futures)

    new = await bench.raw(slot="front1")

    assert [] == await former.rest()
    assert stub.futures[0].cancelled()
    for raw in (new, other):
        await raw.send(Request(1, Purpose.GREET, visitor()))
        assert "alice" == (await raw.answer()).principal
    assert [] == bench.violations

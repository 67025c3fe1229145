# SPDX-License-Identifier: MIT
"""Limits of connections: their number, and the time for a request's head."""

import asyncio
import contextlib
import io
import os
import resource
import socket
from collections.abc import AsyncIterator

import pytest

from hsm_core.factory import open_async
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import HTTPLimits, LogFormat, LogLevel, ServerSettings
from hsm_server.http import listener
from hsm_server.identity.clock import FlooredClock
from hsm_server.observability.logs import make_logger
from tests.server.support import API, local_app, open_api

WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = WHOLE[:-2]


@contextlib.asynccontextmanager
async def connected(
    api: API,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection."""
    reader, writer = await asyncio.open_connection(*api.address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_answered(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Send a request; return whether an answer, or the end, came."""
    try:
        writer.write(WHOLE)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    (length,) = [
        int(line.split(b":")[1])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length:")
    ]
    await reader.readexactly(length)
    return head.startswith(b"HTTP/1.1 200")


def limited(**limits: float) -> ServerSettings:
    """Return settings with these limits."""
    values = {"head_timeout_seconds": 0.3, **limits}
    return ServerSettings(limits=HTTPLimits(**values))  # type: ignore[arg-type]


async def test_a_later_head_has_its_own_time() -> None:
    """Silence between requests is allowed, half a head after one is not."""
    async with open_api(limited()) as api, connected(api) as (reader, writer):
        assert await is_answered(reader, writer)
        await asyncio.sleep(0.6)
        assert await is_answered(reader, writer)
        writer.write(HALF)

        assert b"" == await asyncio.wait_for(reader.read(), 60)


async def test_a_slow_body_is_no_slow_head() -> None:
    """The time for the head does not run while a body comes."""
    async with open_api(limited()) as api, connected(api) as (reader, writer):
        writer.write(
            b"POST /api/v1/random HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        )
        for _ in range(4):
            await asyncio.sleep(0.15)
            writer.write(b"x")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)

    assert head.startswith(b"HTTP/1.1 401")


async def test_connections_are_limited() -> None:
    """One too many is closed at once; when another ends there is room again."""
    settings = limited(max_connections=2, head_timeout_seconds=30)
    async with open_api(settings) as api, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(connected(api))
        second = await stack.enter_async_context(connected(api))
        assert await is_answered(*first)
        assert await is_answered(*second)
        async with connected(api) as third:
            assert not await is_answered(*third)
        async with connected(api) as third:
            assert not await is_answered(*third)
        assert await is_answered(*first)
        second[1].close()
        await second[1].wait_closed()
        await asyncio.sleep(0.1)
        async with connected(api) as third:
            assert await is_answered(*third)
        warnings = [line for line in api.log if line["event"] == "too many connections"]

    assert [2] == [line["maximum"] for line in warnings]


async def test_connections_of_one_address_are_limited() -> None:
    """Nobody takes all connections; what is not even TLS is forgotten when it ends."""
    settings = limited(max_connections_per_address=1, head_timeout_seconds=30)
    async with open_api(settings) as api:
        async with connected(api) as first:
            assert await is_answered(*first)
            async with connected(api) as second:
                assert not await is_answered(*second)
        for _ in range(3):
            await asyncio.sleep(0.1)
            async with connected(api) as again:
                assert await is_answered(*again)
        events = [line["event"] for line in api.log]

    assert 1 == events.count("too many connections from one address")


async def test_what_waits_is_left_to_others_too() -> None:
    """Two that accept from one socket, as front ends do, share what has arrived."""
    taken: list[socket.socket] = []
    logger = make_logger(io.StringIO(), LogLevel.DEBUG, LogFormat.JSON)
    with contextlib.ExitStack() as stack:
        hsm = stack.enter_context(memory_hsm())
        bound = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other = stack.enter_context(bound.dup())
        for _ in range(20):
            stack.enter_context(socket.create_connection(bound.getsockname()))
        app = local_app(open_async(hsm), ServerSettings(), logger, FlooredClock())
        mine = listener.Listener(app, [bound], None)
        loop = asyncio.get_running_loop()
        loop.add_reader(other, lambda: taken.append(other.accept()[0]))
        await mine.start()
        async with asyncio.timeout(60):
            while len(taken) + len(mine._connections) < 20:  # noqa: SLF001 (whose they are)
                await asyncio.sleep(0)
        loop.remove_reader(other)
        mine_too = len(mine._connections)  # noqa: SLF001 (as above)
        for accepted in taken:
            accepted.close()
        await asyncio.sleep(0.05)  # the last one is open by then
        await mine.stop(1.0)

    assert min(len(taken), mine_too) >= 5


async def test_connections_leave_descriptors_to_the_stores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where few files may be open, fewer connections are accepted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/proc/self/fd")) + 48
    monkeypatch.setattr(listener, "_RESERVED_DESCRIPTORS", few - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        async with open_api(limited(head_timeout_seconds=30)) as api:
            async with connected(api) as first, connected(api) as second:
                assert await is_answered(*first)
                assert not await is_answered(*second)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


IDLE, SLOW = 300, 50
HEAD_SECONDS = 1.5


async def drip(api: API) -> float:
    """Send a byte of a head now and then; return after how long it was ended."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(*api.address)
    began = loop.time()
    head = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    ending = asyncio.create_task(reader.read())
    for at in range(10_000):
        writer.write(head[at : at + 1] or b"a")
        await asyncio.wait({ending}, timeout=0.1)
        if ending.done():
            break
    writer.close()
    return loop.time() - began


async def test_idle_and_slow_connections_stop_nobody() -> None:
    """Requests are answered beside them; they are ended, and nothing stays behind."""
    settings = limited(head_timeout_seconds=HEAD_SECONDS, max_connections=500)
    async with open_api(settings) as api:
        await _with_idle_and_slow(api)


async def _with_idle_and_slow(api: API) -> None:
    idle = [await asyncio.open_connection(*api.address) for _ in range(IDLE)]
    slow = [asyncio.create_task(drip(api)) for _ in range(SLOW)]
    try:
        answers = [await api.send("GET", "/status") for _ in range(20)]
        ended = await asyncio.wait_for(asyncio.gather(*slow), timeout=60)
        rests = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in idle)), timeout=60
        )
        after = await api.send("GET", "/status")
    finally:
        for _, writer in idle:
            writer.close()

    assert {200} == {answer.status for answer in [*answers, after]}
    assert all(seconds >= HEAD_SECONDS / 2 for seconds in ended)
    assert {b""} == set(rests)
    assert 0 == api.unexpected

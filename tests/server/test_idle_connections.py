# SPDX-License-Identifier: MIT
"""Connections that do nothing, or nearly nothing, stop nobody's service."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from hsm_server.config.settings import HTTPLimits, ServerSettings
from tests.server.support import API, open_api

IDLE, SLOW = 300, 50
HEAD_SECONDS = 1.5


@pytest.fixture
async def limited() -> AsyncIterator[API]:
    """Give a server that waits for a head for a short time."""
    limits = HTTPLimits(head_timeout_seconds=HEAD_SECONDS, max_connections=500)
    async with open_api(ServerSettings(limits=limits)) as api:
        yield api


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


async def test_idle_and_slow_connections_stop_nobody(limited: API) -> None:
    """Requests are answered beside them; they are ended, and nothing stays behind."""
    idle = [await asyncio.open_connection(*limited.address) for _ in range(IDLE)]
    slow = [asyncio.create_task(drip(limited)) for _ in range(SLOW)]
    try:
        answers = [await limited.send("GET", "/status") for _ in range(20)]
        ended = await asyncio.wait_for(asyncio.gather(*slow), timeout=60)
        rests = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in idle)), timeout=60
        )
        after = await limited.send("GET", "/status")
    finally:
        for _, writer in idle:
            writer.close()

    assert {200} == {answer.status for answer in [*answers, after]}
    assert all(seconds >= HEAD_SECONDS / 2 for seconds in ended)
    assert {b""} == set(rests)
    assert 0 == limited.unexpected


async def test_more_than_there_is_room_for_are_turned_away(limited: API) -> None:
    """Beyond the limit nothing is held; room that comes back is used."""
    await limited.send("GET", "/status")
    idle = [await asyncio.open_connection(*limited.address) for _ in range(520)]
    try:
        known = await limited.send("GET", "/status")
        rests = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in idle)), timeout=60
        )
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(*limited.address)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
    finally:
        for _, writer in idle:
            writer.close()

    assert 200 == known.status
    assert {b""} == set(rests)
    assert answer.startswith(b"HTTP/1.1 200 ")

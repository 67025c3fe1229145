# SPDX-License-Identifier: MIT
"""`hsm_client.aio`: what only an event loop asks for, and both clients' end."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from hsm_client import RemoteHSM
from hsm_client.aio import AsyncRemoteHSM
from hsm_core import operations as ops
from hsm_core.errors import ConfigurationError
from tests.client.certificates import Certificates
from tests.client.stub import TOKEN, Stub


def client(stub: Stub, certificates: Certificates, **changes: Any) -> AsyncRemoteHSM:
    """Return a client of the stub."""
    arguments: dict[str, Any] = {"token": lambda: TOKEN, "ca_bundle": certificates.ca}
    return AsyncRemoteHSM(stub.endpoint, **{**arguments, **changes})


async def test_many_tasks(stub: Stub, certificates: Certificates) -> None:
    """Tasks share one client, and its connections are used again."""
    async with client(stub, certificates) as hsm:
        for _ in range(2):
            made = await asyncio.gather(
                *(hsm.execute(ops.GenerateRandom(length=16)) for _ in range(12))
            )
            assert 12 == len({answer.random for answer in made})

        assert "<AsyncRemoteHSM>" == repr(hsm)


async def test_cancelled(stub: Stub, certificates: Certificates) -> None:
    """A task that is cancelled leaves a client that works."""
    asked, done = threading.Event(), threading.Event()

    def silence(handler: Any, request: Any) -> None:
        asked.set()
        done.wait(60)
        handler.hang_up()

    stub.faults.append(silence)
    async with client(stub, certificates) as hsm:
        waiting = asyncio.create_task(hsm.execute(ops.Status()))
        await asyncio.to_thread(asked.wait, 60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        done.set()

        assert "operational" == (await hsm.execute(ops.Status())).state


async def test_token_that_takes_long(stub: Stub, certificates: Certificates) -> None:
    """A token that has to be fetched does not hold up the loop."""
    loop_thread = threading.get_ident()
    threads = []

    def fetch() -> str:
        threads.append(threading.get_ident())
        return TOKEN

    async with client(stub, certificates, token=fetch) as hsm:
        await hsm.execute(ops.Status())

    assert [True] == [thread != loop_thread for thread in threads]


@pytest.mark.parametrize("kind", [RemoteHSM, AsyncRemoteHSM])
def test_dropped(kind: type[RemoteHSM | AsyncRemoteHSM]) -> None:
    """A client that nobody holds is freed at once, and its connections with it."""
    hsm = kind("https://localhost", token=lambda: TOKEN)
    seen = weakref.ref(hsm)
    gc.disable()
    try:
        del hsm

        assert None is seen()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "endpoint", ["http://localhost", "https://", "https://a b", "https://x:1?y"]
)
def test_endpoint(endpoint: str) -> None:
    """An endpoint that is none is refused before there is a loop."""
    with pytest.raises(ConfigurationError, match="endpoint"):
        AsyncRemoteHSM(endpoint, token=lambda: TOKEN)

# SPDX-License-Identifier: MIT
"""Clients of a cluster behind a load balancer read what they have written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from hsm_core.algorithms import Algorithm
from hsm_core.factory import open_async
from hsm_core.session import Session
from tests.client.ways import WAYS, InLoop
from tests.contract.hsm_ways import running_loop
from tests.core.node_support import nodes_of
from tests.e2e.certificates import make_authority
from tests.e2e.serving import SECRET, serving
from tests.e2e.tokens import mint

_PIECE: Final = 64 * 1024


class Balancer:
    """
    TCP load balancer that a test points at one node after the other.

    Attributes:
        target: Port of the node that gets new connections.
    """

    def __init__(self) -> None:
        self.target = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        """Listen, and return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def turn_to(self, port: int) -> None:
        """Send everything to another node from now on."""
        self.target = port
        for writer in list(self._open):
            writer.close()
        while self._open:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Listen no more."""
        await self.turn_to(0)
        if self._server is not None:
            self._server.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._open.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            self._open.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextmanager
def balanced(
    url: str, folder: Path
) -> Iterator[tuple[str, Path, list[Callable[[], None]]]]:
    """Give an endpoint, its CA, and functions that turn it to either node."""
    authority = make_authority(folder / "certificates")
    pair = authority.issue("server", server=True)
    with ExitStack() as stack:
        nodes = stack.enter_context(nodes_of(url))
        loop = stack.enter_context(running_loop())
        ports = [
            stack.enter_context(serving(open_async(node.hsm), pair, loop))
            for node in nodes
        ]
        balancer = Balancer()
        port = asyncio.run_coroutine_threadsafe(balancer.start(), loop).result()

        def turning(target: int) -> Callable[[], None]:
            work = balancer.turn_to
            return lambda: asyncio.run_coroutine_threadsafe(work(target), loop).result()

        # The second node hears of no change by itself.
        nodes[1].changes.close()
        try:
            yield (
                f"https://127.0.0.1:{port}",
                authority.bundle,
                list(map(turning, ports)),
            )
        finally:
            asyncio.run_coroutine_threadsafe(balancer.stop(), loop).result()


@pytest.mark.parametrize("way", WAYS)
def test_a_client_reads_what_it_has_written(
    database: str, tmp_path: Path, way: str
) -> None:
    """Another node lists a key as this client has left it, and as others knew it."""
    token = mint(SECRET, "alice", ["Administrator"])
    with (
        balanced(database, tmp_path) as (endpoint, bundle, turns),
        ExitStack() as stack,
    ):

        def client() -> Session:
            made = WAYS[way](
                endpoint,
                token=lambda: token,
                ca_bundle=bundle,
                timeout_seconds=30,
                pause=lambda seconds: None,
            )
            stack.callback(made.end if isinstance(made, InLoop) else made.close)
            return Session(made)

        def listed(session: Session) -> list[str]:
            return [row.description for row in session.keys()]

        turn_to_first, turn_to_second = turns
        writer, reader = client(), client()
        turn_to_first()
        key = writer.create_key(Algorithm.ED25519, description="old")
        turn_to_second()
        assert ["old"] == listed(writer)
        turn_to_first()
        writer.update(key.key_id, description="new")
        turn_to_second()

        assert ["old"] == listed(reader)
        assert ["new"] == listed(writer)
        assert ["new"] == listed(reader)

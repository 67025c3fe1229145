# SPDX-License-Identifier: MIT
"""
Certificates that are replaced all the time, under load: no request fails.

``FERROHSM_TLS_RELOAD_SECONDS`` says how long that goes on, on each event loop; 3 by
default.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import signal
import ssl
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.certificates import Pair
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site
from tests.support import require_service

SECONDS = float(os.environ.get("FERROHSM_TLS_RELOAD_SECONDS", "3"))
EVERY_SECONDS = 0.05
PAIRS = 4
LOOPS = ["asyncio", "uvloop"]


class Turning:
    """A folder whose pair is another one at each turn, as a link that is replaced."""

    def __init__(self, site: Site) -> None:
        folder = site.folder / "turning"
        folder.mkdir(mode=0o700)
        self._link = folder / "current"
        self._targets = itertools.cycle(self._issue(site, folder))
        self.turn()
        site.server_pair = Pair(self._link / "cert.pem", self._link / "key.pem")

    @staticmethod
    def _issue(site: Site, folder: Path) -> list[Path]:
        targets = []
        for number in range(PAIRS):
            target = folder / str(number)
            target.mkdir(mode=0o700)
            issued = site.authority.issue(f"server-{number}", server=True)
            issued.certificate.rename(target / "cert.pem")
            issued.key.rename(target / "key.pem")
            targets.append(target)
        return targets

    def turn(self) -> None:
        """Let another pair be the current one, both files at one instant."""
        new = self._link.with_name("new")
        new.symlink_to(next(self._targets))
        new.replace(self._link)

    async def go_on(self, supervisor: int) -> None:
        """Turn again and again, and ask for a reload now and then."""
        for number in itertools.count():
            await asyncio.sleep(EVERY_SECONDS)
            self.turn()
            if number % 5 == 0:
                os.kill(supervisor, signal.SIGHUP)


class Load:
    """Clients of several kinds, and what became of their requests."""

    def __init__(self, site: Site, port: int) -> None:
        self._context = site.context
        self._port = port
        token = site.token("ada", "operator")
        self._head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.seen: set[str] = set()
        self.is_over = asyncio.Event()

    async def keep_alive(self) -> None:
        """Send requests over one connection until the end."""
        reader, writer = await self._connect()
        while not self.is_over.is_set():
            await self._ask("kept", reader, writer)
        await self._close(writer)

    async def connect_anew(self) -> None:
        """Send each request over a connection of its own, until the end."""
        while not self.is_over.is_set():
            reader, writer = await self._connect()
            await self._ask("new", reader, writer)
            await self._close(writer)

    async def hold(self) -> None:
        """Send one request that is not finished before the end."""
        body = json.dumps({"algorithm": "Ed25519", "name": "held"}).encode()
        reader, writer = await self._connect()
        writer.write(
            f"POST /api/v1/keys HTTP/1.1\r\n{self._head}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "\r\n".encode()
            + body[:-1]
        )
        await self.is_over.wait()
        writer.write(body[-1:])
        await self._take("held", reader, b"HTTP/1.1 201")
        await self._close(writer)

    async def guard(self, name: str, work: asyncio.Task[None]) -> None:
        """Note how some work fails, if it does."""
        try:
            await work
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            self.failures.append(f"{name}: {type(error).__name__} {error}")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
        )
        channel = writer.get_extra_info("ssl_object")
        assert isinstance(channel, ssl.SSLObject)
        shown = channel.getpeercert(binary_form=True) or b""
        self.seen.add(hashlib.sha256(shown).hexdigest())
        return reader, writer

    @staticmethod
    async def _close(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _ask(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(f"GET /api/v1/status HTTP/1.1\r\n{self._head}\r\n".encode())
        await self._take(kind, reader, b"HTTP/1.1 200")

    async def _take(
        self, kind: str, reader: asyncio.StreamReader, expected: bytes
    ) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        (length,) = [
            int(line.split(b":")[1])
            for line in head.lower().splitlines()
            if line.startswith(b"content-length:")
        ]
        body = await reader.readexactly(length)
        if head.startswith(expected):
            self.answered[kind] += 1
        else:
            self.failures.append(f"{kind}: {head[:15]!r} {body[:200]!r}")


@pytest.fixture(params=LOOPS)
def server(
    request: pytest.FixtureRequest, site: Site
) -> Iterator[tuple[ServerProcess, Turning]]:
    """Give a server on each loop, which looks at its certificate all the time."""
    if request.param == "uvloop":
        require_service("The package uvloop", find_spec("uvloop"))
    turning = Turning(site)
    flags = ("--isolation", "process", "--workers", "2", "--event-loop", request.param)
    interval = ("--cert-reload-interval-secs", str(EVERY_SECONDS))
    with site.start(*flags, *interval) as running:
        yield running, turning
        assert 0 == running.stop()


async def test_no_request_fails(
    site: Site, server: tuple[ServerProcess, Turning]
) -> None:
    """
    Kept connections, new ones and a request that is held over all of it are served.
    """
    running, turning = server
    load = Load(site, running.port)
    kinds = [load.keep_alive] * 3 + [load.connect_anew] * 2 + [load.hold]
    clients = [load.guard(kind.__name__, asyncio.create_task(kind())) for kind in kinds]
    turns = asyncio.create_task(turning.go_on(running.pid))
    asyncio.get_running_loop().call_later(SECONDS, load.is_over.set)
    await asyncio.gather(*clients)
    turns.cancel()
    # What it has been doing in its last turn.
    await asyncio.wait([turns])

    assert [] == load.failures
    assert {"kept", "new", "held"} == set(load.answered)
    assert 1 == load.answered["held"]
    assert len(load.seen) >= 2
    assert "tls alarm" not in running.output
    assert "reload failed" not in running.output

# SPDX-License-Identifier: MIT
"""Clients that mean no good: slow, malformed, unknown, and many."""

import contextlib
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.e2e.https import Client, NoAnswerError
from tests.e2e.site import Site
from tests.faults.expectation import check

Hostile = Callable[[Site, int, random.Random], None]
"""Given the site, the port, and chance."""

_MANY: Final = 60
_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 10.0
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


def slow_heads(site: Site, port: int, chance: random.Random) -> None:
    """Many connections, each with a request that never ends."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(s) for s in _connected(site, port, _MANY)]
        until = time.monotonic() + _SECONDS
        for end in opened:
            _try_send(end, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        while time.monotonic() < until:
            for end in opened:
                _try_send(end, b"X-%d: slow\r\n" % chance.randrange(10**6))
            time.sleep(0.2)


def silent_connections(site: Site, port: int, chance: random.Random) -> None:
    """Many connections that say nothing, not even in TLS."""
    with contextlib.ExitStack() as stack:
        for _ in range(_MANY):
            stack.enter_context(_dial(port))
        time.sleep(_SECONDS)


def garbage(site: Site, port: int, chance: random.Random) -> None:
    """Bytes that are no TLS, and bytes in TLS that are no HTTP."""
    for _ in range(_MANY):
        with _dial(port) as end:
            _try_send(end, chance.randbytes(chance.choice([1, 5, 100, 20_000])))
    for end in _connected(site, port, 10):
        with end:
            _try_send(end, chance.randbytes(chance.choice([1, 100, 20_000])))
            _check_refused(_read_all(end))


def broken_handshakes(site: Site, port: int, chance: random.Random) -> None:
    """Handshakes that are cut off after the first flight, in order or by a reset."""
    for number in range(_MANY):
        outgoing = ssl.MemoryBIO()
        begun = site.context.wrap_bio(
            ssl.MemoryBIO(), outgoing, server_hostname="localhost"
        )
        with contextlib.suppress(ssl.SSLWantReadError):
            begun.do_handshake()
        hello = outgoing.read()
        with _dial(port) as end:
            _try_send(end, hello[: chance.choice([len(hello), 50])])
            if number % 2:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)


def strangers(site: Site, port: int, chance: random.Random) -> None:
    """A flood of requests under tokens that nobody has issued."""
    good = site.token("mallory", "operator")
    faults: list[str] = []

    def flood() -> None:
        until = time.monotonic() + _SECONDS
        with Client(port, site.context, good[:-4] + "AAAA", _ANSWER_SECONDS) as client:
            while time.monotonic() < until:
                try:
                    answer = client.request("GET", "/api/v1/keys?per_page=5")
                except NoAnswerError:
                    continue
                if answer.status != 401 and answer.status != 503:
                    faults.append(f"{answer.status} {answer.body!r}")

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not faults, "a stranger was answered", *faults[:3])


def huge_heads(site: Site, port: int, chance: random.Random) -> None:
    """Lines and fields that are longer than any that is served."""
    for head in (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**20,
        b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 2**17,
    ):
        for end in _connected(site, port, 3):
            with end:
                _try_send(end, head + b"\r\n\r\n")
                _check_refused(_read_all(end))


def huge_bodies(site: Site, port: int, chance: random.Random) -> None:
    """Bodies that are announced and don't come."""
    token = site.token("mallory", "operator")
    for length in (10**12, 2**20):
        for end in _connected(site, port, 5):
            with end:
                _try_send(
                    end,
                    b"POST /api/v1/random HTTP/1.1\r\nHost: localhost\r\n"
                    b"Authorization: Bearer %b\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n{" % (token.encode(), length),
                )
                if length > 2**20:
                    _check_refused(_read_all(end))


HOSTILE: Final[dict[str, Hostile]] = {
    "slow heads": slow_heads,
    "silent connections": silent_connections,
    "garbage": garbage,
    "broken handshakes": broken_handshakes,
    "strangers": strangers,
    "huge heads": huge_heads,
    "huge bodies": huge_bodies,
}
"""By name."""


def _dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS)


def _connected(site: Site, port: int, count: int) -> Iterator[ssl.SSLSocket]:
    for _ in range(count):
        yield site.context.wrap_socket(_dial(port), server_hostname="localhost")


def _try_send(end: socket.socket, data: bytes) -> None:
    # The server may have had enough already.
    with contextlib.suppress(OSError):
        end.sendall(data)


def _read_all(end: socket.socket) -> bytes:
    """Return what is answered until the server hangs up, or for long enough."""
    answer = b""
    with contextlib.suppress(OSError):
        while data := end.recv(65536):
            answer += data
            if b"\r\n\r\n" in answer:
                break
    return answer


def _check_refused(answer: bytes) -> None:
    """Check that the server hung up, or said that it is the client's fault."""
    check(
        not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")),
        "nonsense was not refused",
        answer[:200],
    )

# SPDX-License-Identifier: MIT
"""
Who asks for far too much: a process that floods a server, or holds its connections.

It is told what to do in JSON on its input, and tells in JSON on its output what came of
it: credentials don't belong on a command line.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

_HEAD: Final = "GET {path} HTTP/1.1\r\nHost: localhost\r\n"
_FORGED: Final = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJzdWIiOiJhZGEiLCJyb2xlcyI6WyJvcGVyYXRvciJdLCJleHAiOjQxMDI0NDQ4MDB9."
)
_REFRESH_SECONDS: Final = 40.0
"""How long a connection is idle before it asks once more: servers close others."""

_DRIP_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Flood:
    """
    Asks as fast as it is answered.

    Attributes:
        port: Of the server, on loopback.
        bundle: PEM file of who has signed its certificate.
        seconds: How long.
        connections: How many ask at one time, each for one thing after the other.
        addresses: Where they come from, in turn.
        tokens: What they show, in turn; without any, a forged one that is new each
            time.
        path: What they ask for.
    """

    port: int
    bundle: str
    seconds: float
    connections: int = 64
    addresses: tuple[str, ...] = ("127.0.0.1",)
    tokens: tuple[str, ...] = ()
    path: str = "/api/v1/status"


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """
    Holds connections until its input ends.

    Attributes:
        port: Of the server, on loopback.
        bundle: PEM file of who has signed its certificate.
        idle: How many ask once in a while.
        slow: How many send a byte of a head each second, and come again when they are
            cut off.
        addresses: Where they come from, in turn.
    """

    port: int
    bundle: str
    idle: int
    slow: int
    addresses: tuple[str, ...]


def begin(work: Flood | Crowd) -> subprocess.Popen[str]:
    """Start a process for it; its input is still open, and must be closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    told = json.dumps({"kind": type(work).__name__, **asdict(work)})
    process.stdin.write(told + "\n")
    process.stdin.flush()
    return process


def raise_descriptors() -> int:
    """Let this process, and those it starts, open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass
class _Line:
    """One connection, and what has come of an answer."""

    tls: ssl.SSLSocket
    address: str
    used: float = 0.0
    read: bytearray = field(default_factory=bytearray)

    def status(self, data: bytes) -> bytes:
        """Return the status of the answer that *data* completes, or nothing yet."""
        read = self.read
        read += data
        end = read.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head = read[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(read) < end + 4 + length:
            return b""
        found = bytes(read[9:12])
        read.clear()
        return found


class _Dialler:
    """Opens connections, each from the next address."""

    def __init__(self, port: int, bundle: str, addresses: tuple[str, ...]) -> None:
        self._server = ("127.0.0.1", port)
        self._context = ssl.create_default_context(cafile=bundle)
        self._context.check_hostname = False
        self._addresses = cycle(addresses)

    def open(self) -> _Line:
        """Return a connection after its handshake; reads and writes don't block."""
        address = next(self._addresses)
        bare = socket.create_connection(
            self._server, timeout=_LONGEST_SECONDS, source_address=(address, 0)
        )
        try:
            tls = self._context.wrap_socket(bare)
        except BaseException:
            bare.close()
            raise
        tls.setblocking(False)
        return _Line(tls, address, time.monotonic())


def _requests(flood: Flood) -> Iterator[bytes]:
    """Give the requests of a flood, one after the other, for ever."""
    head = _HEAD.format(path=flood.path) + "Authorization: Bearer "
    if flood.tokens:
        yield from cycle(f"{head}{token}\r\n\r\n".encode() for token in flood.tokens)
    start = f"{head}{_FORGED}".encode()
    for number in count(time.time_ns()):
        yield start + b"%043d\r\n\r\n" % number


def _flood(flood: Flood) -> dict[str, Any]:
    dialler = _Dialler(flood.port, flood.bundle, flood.addresses)
    requests, answers, lost = _requests(flood), Counter[str](), 0
    poll, lines = select.epoll(), dict[int, _Line]()

    def ask_anew() -> None:
        line = dialler.open()
        lines[line.tls.fileno()] = line
        poll.register(line.tls.fileno(), select.EPOLLIN)
        line.tls.send(next(requests))

    for _ in range(flood.connections):
        ask_anew()
    began = time.monotonic()
    until = began + flood.seconds
    while time.monotonic() < until:
        for number, _ in poll.poll(0.2):
            line = lines[number]
            try:
                data = line.tls.recv(65536)
                if data and (status := line.status(data)):
                    answers[status.decode()] += 1
                    line.tls.send(next(requests))
            except ssl.SSLWantReadError:
                continue
            except OSError:
                data = b""
            if not data:
                lost += 1
                del lines[number]
                line.tls.close()
                ask_anew()
    return {"answers": answers, "lost": lost, "seconds": time.monotonic() - began}


class _Holding:
    """The connections of a crowd."""

    def __init__(self, crowd: Crowd) -> None:
        self._dialler = _Dialler(crowd.port, crowd.bundle, crowd.addresses)
        self._once = (_HEAD.format(path="/livez") + "\r\n").encode()
        self._slowly = (_HEAD.format(path="/livez") + "X-Slow: ").encode()
        self.cut_off = 0
        self.refused = 0
        self.idle = [self._new(self._once) for _ in range(crowd.idle)]
        self.slow = [self._new(self._slowly) for _ in range(crowd.slow)]

    def _new(self, first: bytes) -> _Line | None:
        try:
            line = self._dialler.open()
            line.tls.send(first)
        except OSError:
            self.refused += 1
            return None
        return line

    def go_on(self) -> None:
        """Drip, and ask on connections that would be closed otherwise."""
        for at, line in enumerate(self.slow):
            if line is None or not _say(line, b"a"):
                self.cut_off += line is not None
                if line is not None:
                    line.tls.close()
                self.slow[at] = self._new(self._slowly)
        now = time.monotonic()
        for line in self.idle:
            if line is not None and now - line.used > _REFRESH_SECONDS:
                _say(line, self._once)
                line.used = now

    def alive(self) -> int:
        """Return how many idle connections are still open."""
        return sum(line is not None and _say(line, b"") for line in self.idle)


def _say(line: _Line, data: bytes) -> bool:
    """Read what is there and send something; return whether that was possible."""
    try:
        if data:
            line.tls.send(data)
        while line.tls.recv(65536):
            pass
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
    return False


def _hold(crowd: Crowd) -> dict[str, Any]:
    holding = _Holding(crowd)
    _tell({"refused": holding.refused})
    while not select.select([sys.stdin], [], [], _DRIP_SECONDS)[0]:
        holding.go_on()
    return {
        "idle": holding.alive(),
        "cut_off": holding.cut_off,
        "refused": holding.refused,
    }


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what is told on the input."""
    told = json.loads(sys.stdin.readline())
    kind = told.pop("kind")
    for name in ("addresses", "tokens"):
        if name in told:
            told[name] = tuple(told[name])
    done = _flood(Flood(**told)) if kind == "Flood" else _hold(Crowd(**told))
    _tell(done)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""
Malformed HTTP and JSON, sent to a real server over TLS, byte by byte as it was made.

Requests that the server takes are changed a little, or much: bytes are put in, left
out, doubled and swapped, numbers grow, JSON is nested, cut and made ambiguous, heads
take what two servers could read in two ways. A seed makes the same requests again. No
answer may be a 5xx but a 503 that says why, none may come late, whatever is answered is
a message of ours, and the server neither grows nor does what the trail does not tell.
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.e2e.tampered_requests import Bodies, changed_request

__all__ = ["Tally", "send_malformed"]

_THREADS: Final = 4
_LONGEST_SECONDS: Final = 5.0
_GIVEN_UP_SECONDS: Final = 20.0
_READ: Final = 1 << 16


@dataclass
class Tally:
    """
    What became of the requests.

    Attributes:
        answers: How often each status came; ``closed`` is an end without an answer.
        faults: What no answer may be, with the number of the request.
        slowest: Seconds until the end of the slowest.
    """

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, other: Tally) -> None:
        """Add what another has counted."""
        self.answers += other.answers
        self.faults += other.faults
        self.slowest = max(self.slowest, other.slowest)

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return self.answers.total()


def send_malformed(
    port: int,
    context: ssl.SSLContext,
    bodies: Bodies,
    *,
    count: int,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> Tally:
    """
    Send *count* requests, from several connections at one time.

    Args:
        port: Of the server.

        context: TLS, with a client certificate if the server wants one.

        bodies: What good requests are made of.

        count: How many.

        seed: Request *n* is made of this and *n* alone.

        tick: Is called now and then, in this thread.
    """
    tallies = [Tally() for _ in range(_THREADS)]
    threads = [
        threading.Thread(
            target=_send_some,
            args=(port, context, bodies, range(n, count, _THREADS), seed, tallies[n]),
        )
        for n in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.5)
        tick()
        time.sleep(0.1)
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _send_some(
    port: int,
    context: ssl.SSLContext,
    bodies: Bodies,
    numbers: Sequence[int],
    seed: int,
    tally: Tally,
) -> None:
    sender = _Sender(port, context)
    for number in numbers:
        data = changed_request(random.Random(f"{seed}-{number}"), bodies)
        began = time.monotonic()
        try:
            told = sender.send(data)
        except TimeoutError:
            tally.faults.append(f"{number}: no end after {_GIVEN_UP_SECONDS} s")
            told = b""
        seconds = time.monotonic() - began
        tally.slowest = max(tally.slowest, seconds)
        if seconds > _LONGEST_SECONDS:
            tally.faults.append(f"{number}: {seconds:.1f} s")
        statuses = list(_judge(told, number, tally.faults))
        tally.answers["+".join(statuses[:1]) or "closed"] += 1


class _Sender:
    """Opens a connection for each request, and goes on with the same session."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._session: ssl.SSLSession | None = None

    def send(self, data: bytes) -> bytes:
        """
        Send these bytes, say that nothing follows, and return all that comes back.

        Raises:
            TimeoutError: The server neither answers nor closes.
        """
        bare = socket.create_connection(("127.0.0.1", self._port), _GIVEN_UP_SECONDS)
        with self._context.wrap_socket(
            bare, server_hostname="localhost", session=self._session
        ) as channel:
            told = bytearray()
            try:
                channel.sendall(data)
                while piece := channel.recv(_READ):
                    told += piece
                    if _is_whole(bytes(told), is_bare=data.startswith(b"HEAD")):
                        break
            except TimeoutError:
                raise
            except OSError:
                pass  # It was closed while we were sending.
            self._session = channel.session
            return bytes(told)


def _is_whole(told: bytes, *, is_bare: bool) -> bool:
    """Whether the first answer has come, so that nobody waits for another."""
    head, end, body = told.partition(b"\r\n\r\n")
    if not end or b" 100 " in head.split(b"\r\n")[0]:
        return False
    if is_bare:
        return True
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return b" 304 " in head.split(b"\r\n")[0]


def _judge(told: bytes, number: int, faults: list[str]) -> Iterator[str]:
    """Give the status of the first answer; note what is wrong with it."""
    if not told:
        return
    head, _, body = told.partition(b"\r\n\r\n")
    line = head.split(b"\r\n")[0].decode("latin-1")
    if not line.startswith(("HTTP/1.1 ", "HTTP/1.0 ")):
        faults.append(f"{number}: answered {line[:40]!r}")
        return
    status = line[9:12]
    yield status
    if status == "100":
        return
    if b"x-request-id" not in head.lower() or b"nosniff" not in head.lower():
        faults.append(f"{number}: {status} without our headers")
    if status >= "400":
        _judge_problem(status, body, number, faults)


def _judge_problem(status: str, body: bytes, number: int, faults: list[str]) -> None:
    try:
        problem = json.loads(body)
        fits = str(problem["status"]) == status and problem["code"]
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        faults.append(f"{number}: {status} is no problem document: {body[:80]!r}")
    if status >= "500" and status != "503":
        faults.append(f"{number}: {status}")

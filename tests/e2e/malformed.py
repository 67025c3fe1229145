# SPDX-License-Identifier: MIT
"""
Malformed HTTP and JSON, sent to a real server over TLS, byte by byte as it was made.

Requests that the server takes are changed a little, or much: bytes are put in, left
out, doubled and swapped, numbers grow, JSON is nested, cut and made ambiguous, heads
take what two servers could read in two ways. A seed makes the same requests again. No
answer may be a 5xx but a 503 that says why, none may come late, and each is ours.
What is short of its end is filled up until it is answered.
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.e2e.tampered_requests import Bodies, Changed, changed_request

_THREADS: Final = 4
_LONGEST_SECONDS: Final = 30.0
_GIVEN_UP_SECONDS: Final = 60.0
_READ: Final = 1 << 16
_LENGTH: Final = b"content-length:"
_PATIENCE_SECONDS: Final = 0.2
_FILLING: Final = b"\r\n\r\n" + b"x" * (1 << 16)
_FILLINGS: Final = 400
"""More than any body may hold."""


@dataclass
class Tally:
    """
    What became of the requests.

    Attributes:
        answers: How often each status came; ``closed`` is an end without an answer.
        faults: What no answer may be, with the number of the request.
        slowest: Seconds until the answer that took longest.
        done: Request ids of what was answered with a success, but for reads.
    """

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    done: set[str] = field(default_factory=set)

    def add(self, other: Tally) -> None:
        """Add what another has counted."""
        self.answers += other.answers
        self.faults += other.faults
        self.slowest = max(self.slowest, other.slowest)
        self.done |= other.done

    def note(self, number: int, changed: Changed, told: bytes, seconds: float) -> None:
        """Judge what was told in answer to a request."""
        self.slowest = max(self.slowest, seconds)
        if seconds > _LONGEST_SECONDS:
            self.faults.append(f"{number}: {seconds:.1f} s")
        if not told:
            self.answers["closed"] += 1
            return
        head, _, body = told.partition(b"\r\n\r\n")
        if head[9:12] == b"100":
            head, _, body = body.partition(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        fields = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in rest)}
        status = line[9:12]
        self.answers[status] += 1
        if not line.startswith(("HTTP/1.1 ", "HTTP/1.0 ")):
            self.faults.append(f"{number}: answered {line[:40]!r}")
        elif "x-request-id" not in fields or "x-content-type-options" not in fields:
            self.faults.append(f"{number}: {status} without our headers")
        elif status >= "400":
            self._judge_problem(number, status, body, is_bare=changed.is_bare)
        elif status in {"200", "201"} and changed.is_recorded:
            self.done.add(fields["x-request-id"])

    def _judge_problem(
        self, number: int, status: str, body: bytes, *, is_bare: bool
    ) -> None:
        if status >= "500" and status != "503":
            self.faults.append(f"{number}: {status}")
        if is_bare:
            return
        try:
            problem = json.loads(body)
            # The pages of health answer in their own form.
            is_health = status == "503" and "uptime_seconds" in problem
            fits = is_health or str(problem["status"]) == status
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            self.faults.append(f"{number}: {status} is no problem: {body[:80]!r}")


def send_malformed(
    port: int,
    context: ssl.SSLContext,
    bodies: Bodies,
    *,
    numbers: Sequence[int],
    seed: int,
) -> Tally:
    """
    Send requests over several connections at one time.

    Args:
        port: Of the server.

        context: TLS, with a client certificate if the server wants one.

        bodies: What good requests are made of.

        numbers: Which requests; what each is depends on its number and the seed alone.

        seed: Of what is generated.
    """
    tallies = [Tally() for _ in range(_THREADS)]
    threads = [
        threading.Thread(
            target=_send_some,
            args=(port, context, bodies, numbers[n::_THREADS], seed, tallies[n]),
        )
        for n in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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
        changed = changed_request(random.Random(f"{seed}-{number}"), bodies)
        began = time.monotonic()
        try:
            told = sender.send(changed)
        except (TimeoutError, ConnectionError) as error:
            sender.close()
            tally.faults.append(f"{number}: {type(error).__name__}")
            told = b""
        tally.note(number, changed, told, time.monotonic() - began)
    sender.close()


class _Sender:
    """
    One connection after the other, each for as long as both sides can follow it.

    Args:
        port: Of the server.

        context: TLS.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._session: ssl.SSLSession | None = None
        self._channel: ssl.SSLSocket | None = None

    def close(self) -> None:
        """Close what is open."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def send(self, changed: Changed) -> bytes:
        """
        Send a request, and return its answer; empty if there was none.

        Raises:
            TimeoutError: The server neither answers nor closes.
            ConnectionError: It lets nobody in.
        """
        channel = self._channel or self._connect()
        told = _exchange(channel, changed)
        self._session = channel.session
        goes_on = changed.is_framed and _is_whole(told, is_bare=changed.is_bare)
        if (
            not goes_on
            or b"connection: close" in told.partition(b"\r\n\r\n")[0].lower()
        ):
            self.close()
        return told

    def _connect(self) -> ssl.SSLSocket:
        bare = socket.create_connection(("127.0.0.1", self._port), _GIVEN_UP_SECONDS)
        self._channel = self._context.wrap_socket(
            bare, server_hostname="localhost", session=self._session
        )
        return self._channel


def _exchange(channel: ssl.SSLSocket, changed: Changed) -> bytes:
    told = bytearray()
    until = time.monotonic() + _GIVEN_UP_SECONDS
    filled = 0
    channel.settimeout(_GIVEN_UP_SECONDS)
    try:
        channel.sendall(changed.data)
        while not _is_whole(bytes(told), is_bare=changed.is_bare):
            may_fill = not changed.is_framed and filled < _FILLINGS
            channel.settimeout(_PATIENCE_SECONDS if may_fill else _GIVEN_UP_SECONDS)
            try:
                piece = channel.recv(_READ)
            except TimeoutError:
                if not may_fill or time.monotonic() > until:
                    raise
                channel.settimeout(_GIVEN_UP_SECONDS)
                for _ in range(40):
                    channel.sendall(_FILLING)
                filled += 40
                continue
            if not piece:
                break
            told += piece
    except TimeoutError:
        raise
    except OSError:
        pass  # It was closed while we were sending.
    return bytes(told)


def _is_whole(told: bytes, *, is_bare: bool) -> bool:
    """Whether the first answer has come, so that nobody waits for another."""
    head, end, body = told.partition(b"\r\n\r\n")
    if not end:
        return False
    line, *rest = head.split(b"\r\n")
    if line[9:12] == b"100":
        return _is_whole(body, is_bare=is_bare)
    sizes = [x.partition(b":")[2] for x in rest if x.lower().startswith(_LENGTH)]
    # A live view has no length: that it begins is answer enough.
    return is_bare or not sizes or len(body) >= int(sizes[0])

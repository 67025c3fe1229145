# SPDX-License-Identifier: MIT
"""
Malformed HTTP and JSON, sent to a real server over TLS, byte by byte as it was made.

Valid requests are changed a little or much: bytes inserted, removed, doubled and
swapped, numbers changed, JSON nested, cut and made ambiguous, headers that two servers
could read differently. A seed repeats the same requests. No response may be a 5xx,
except a 503 with a reason, none may come late, and each must come from the server.
A request that lacks its end is completed until it is answered.
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.server.smuggling import CASES

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
_ODD_BYTES: Final = (b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x7f", b"\xff", b":")
_NUMBERS: Final = ("0", "-1", "1e999", "2147483648", "9" * 30, "0x10", "NaN", "1.5")
_TYPES: Final = (
    "application/json",
    "application/octet-stream",
    "application/json; charset=utf-16",
    "text/plain",
    "multipart/form-data; boundary=x",
    "",
)
_FIELDS: Final = (
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Content-Encoding: gzip",
    "Expect: 100-continue",
    "Expect: something",
    "Idempotency-Key: \xe9",
    "Idempotency-Key: a\r\nIdempotency-Key: b",
    "FerroHSM-Approval: none",
    "If-Match: 1",
    "If-None-Match: *",
    "Accept: application/octet-stream",
    "Accept: text/event-stream;q=x",
    "Last-Event-ID: -1",
    "X-Request-Id: " + "x" * 65,
    "Cookie: __Host-ferrohsm=x",
    "Range: bytes=0-1",
    "Upgrade: websocket",
    "Host: other",
    "X-Forwarded-For: 10.0.0.1",
)


@dataclass(frozen=True)
class Bodies:
    """
    What good requests are made of.

    Attributes:
        token: A bearer token.
        requests: Method, path and body as JSON has it, of requests that are taken.
            Whatever is no GET has a record.
    """

    token: str
    requests: tuple[tuple[str, str, Any], ...]


@dataclass(frozen=True)
class Changed:
    """
    A request as it is sent.

    Attributes:
        is_framed: Whether it ends where it says, so that another may follow.
    """

    data: bytes
    is_framed: bool

    @property
    def is_bare(self) -> bool:
        """Whether its answer has no body, whatever the head says."""
        return self.data.lstrip(b"\r\n").startswith(b"HEAD ")

    @property
    def is_recorded(self) -> bool:
        """Whether its success has a record."""
        return not self.data.lstrip().startswith((b"GET", b"HEAD", b"OPTIONS"))


def changed_request(chance: random.Random, bodies: Bodies) -> Changed:
    """Return a request that is probably wrong in some way."""
    if chance.random() < 0.1:
        case = chance.choice(list(CASES.values()))
        line = f"Authorization: Bearer {bodies.token}\r\n".encode()
        return Changed(case.replace(b"Content-Type", line + b"Content-Type", 1), False)
    method, path, tree = chance.choice(bodies.requests)
    body = _changed_body(chance, tree)
    head, is_framed = _changed_head(chance, method, path, body, bodies.token)
    data = head.encode("latin-1", "replace") + b"\r\n" + body
    if chance.random() < 0.35:
        return Changed(_changed_bytes(chance, data), False)
    return Changed(data, is_framed)


def _changed_head(
    chance: random.Random, method: str, path: str, body: bytes, token: str
) -> tuple[str, bool]:
    """Return a head without its last line end, and whether the body ends as it says."""
    if chance.random() < 0.1:
        method = chance.choice(_METHODS)
    if chance.random() < 0.25:
        path = _changed_path(chance, path)
    credential = f"Bearer {token}"
    if chance.random() < 0.1:
        credential = chance.choice(("Basic eDp5", f"Bearer {token[:-4]}", "Bearer", ""))
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: {credential}",
    ]
    is_framed = True
    if body or method in {"POST", "PUT", "PATCH"}:
        kind = "application/json"
        if chance.random() < 0.15:
            kind = chance.choice(_TYPES)
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(_FIELDS))
        is_framed = False
    return "".join(f"{line}\r\n" for line in lines), is_framed


def _changed_path(chance: random.Random, path: str) -> str:
    added = chance.choice(
        (
            *("?limit=-1", "?limit=1&limit=2", "?%ff=1", "?a=%", "?=", "?&&", "?x=%00"),
            *(
                "/../..",
                "/%2e%2e/",
                "//",
                "/%00",
                "/\xff",
                "#x",
                "?page=1e3",
                "/" * 300,
            ),
            "?" + "a=b&" * 80,
            "/" + "x" * 5000,
        )
    )
    at = chance.randrange(len(path)) if chance.random() < 0.3 else len(path)
    return path[:at] + added + path[at:]


def _changed_body(chance: random.Random, tree: Any) -> bytes:
    if tree is None:
        return b"" if chance.random() < 0.8 else b"{}"
    change = chance.random()
    if change < 0.45:
        tree = _changed_tree(chance, tree)
    text = json.dumps(tree, ensure_ascii=chance.random() < 0.5)
    if change > 0.75:
        text = chance.choice(_TEXTS)(chance, text)
    return text.encode("utf-8", "surrogatepass")


def _changed_tree(chance: random.Random, tree: Any) -> Any:
    """Return a tree in which one value is something else."""
    if isinstance(tree, dict) and tree and chance.random() < 0.9:
        name = chance.choice(list(tree))
        if chance.random() < 0.15:
            return {**tree, chance.choice((name + "_", "", "type", "\0")): 1}
        return {**tree, name: _changed_tree(chance, tree[name])}
    if isinstance(tree, list) and tree and chance.random() < 0.5:
        return [_changed_tree(chance, tree[0]), *tree[1:]] * chance.choice((1, 2, 2000))
    return chance.choice(
        (
            *(None, True, 0, -1, 2**53, 2**64, 1.5, 1e300, "", "\0", "\ud800", " "),
            *("a" * 70_000, "=" * 8, "\u202e", "QQ", [], {}, [[[]]], {"a": {"b": 1}}),
        )
    )


def _nested(chance: random.Random, text: str) -> str:
    depth = chance.choice((17, 200, 30_000))
    return "[" * depth + text + "]" * depth


def _cut(chance: random.Random, text: str) -> str:
    return text[: chance.randrange(len(text))]


def _doubled(chance: random.Random, text: str) -> str:
    return text[:-1] + "," + text[1:] if text.startswith("{") else text + text


def _numbered(chance: random.Random, text: str) -> str:
    return text[:-1] + f', "x": {chance.choice(_NUMBERS)}}}'


def _marked(chance: random.Random, text: str) -> str:
    return chance.choice(("\ufeff", "\0", " " * 5000, "//x\n", "'")) + text


_TEXTS: Final[tuple[Callable[[random.Random, str], str], ...]] = (
    *(_nested, _cut, _doubled, _numbered, _marked),
)


def _changed_bytes(chance: random.Random, data: bytes) -> bytes:
    """Put in, leave out, swap or double bytes, more often in the head."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = int(len(found) * chance.random() ** 2)
        match chance.randrange(4):
            case 0:
                found[at:at] = chance.choice(_ODD_BYTES)
            case 1:
                del found[at : at + chance.choice((1, 1, 2, 50))]
            case 2 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case _:
                found[at:at] = found[at : at + chance.choice((1, 10, 1000))]
    return bytes(found)


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

# SPDX-License-Identifier: MIT
"""Good requests, and what a generator makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
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
        return self.data.startswith(b"HEAD ")

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

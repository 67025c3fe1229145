# SPDX-License-Identifier: MIT
"""What two servers could read in two ways, byte by byte, and what every answer says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Final

import pytest

from hsm_server.http.responses import COMMON_HEADERS
from tests.server.smuggling import BEHIND, CASES, VALID
from tests.server.support import API, mint

_AT_ONCE: Final = 8
_SECONDS: Final = 30.0
_PIECE: Final = 5


@dataclass(frozen=True)
class Told:
    """What a connection has told until its end."""

    data: bytes

    @property
    def heads(self) -> list[str]:
        """The head of each answer; no body of ours looks like one."""
        parts = self.data.split(b"HTTP/1.")[1:]
        heads = [part.partition(b"\r\n\r\n")[0].decode() for part in parts]
        return [head for head in heads if head[:2] in {"0 ", "1 "}]

    @property
    def body(self) -> bytes:
        """The body of the first answer, and whatever follows."""
        return self.data.partition(b"\r\n\r\n")[2]


async def tell(api: API, data: bytes, piece: int = 1 << 20) -> Told:
    """Send these very bytes, piece by piece, and read until the server closes."""
    reader, writer = await asyncio.open_connection(*api.address)
    told = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            for start in range(0, len(data), piece):
                writer.write(data[start : start + piece])
                await asyncio.sleep(0)
            while data := await reader.read(1 << 16):
                told += data
    except ConnectionError:
        pass  # It was closed while we were sending.
    finally:
        writer.close()
    return Told(bytes(told))


def _signed(data: bytes) -> bytes:
    line = f"Authorization: Bearer {mint()}\r\n".encode()
    return data.replace(b"Content-Type", line + b"Content-Type", 1)


def _fault(told: Told) -> str:
    """Return what is wrong with how a case was refused; empty if nothing is."""
    if not told.data:
        return "no answer"
    if len(told.heads) != 1:
        return f"{len(told.heads)} answers"
    (head,) = told.heads
    if head[1:5] != " 400":
        return head.partition("\r\n")[0]
    missing = _missing(head)
    if missing:
        return f"no {missing}"
    return "" if "malformed" == json.loads(told.body)["code"] else "another code"


def _missing(head: str) -> set[str]:
    """Return what every answer has and this one has not."""
    lines = {line.lower() for line in head.split("\r\n")}
    names = {line.partition(":")[0] for line in lines}
    wanted = {f"{name}: {value}".lower() for name, value in COMMON_HEADERS.items()}
    return (wanted - lines) | ({"x-request-id", "content-type"} - names)


@pytest.mark.parametrize("piece", [1 << 20, _PIECE], ids=["whole", "in-pieces"])
async def test_what_is_ambiguous_ends_the_connection(api: API, piece: int) -> None:
    """Each case is refused in our form, and what stands behind it is not read."""
    some = asyncio.Semaphore(_AT_ONCE)

    async def judge(data: bytes) -> str:
        async with some:
            try:
                return _fault(await tell(api, _signed(data) + BEHIND, piece))
            except TimeoutError:
                return "still open"

    faults = await asyncio.gather(*map(judge, CASES.values()))

    # Who is still sending when the connection is closed may lose the answer.
    allowed = {""} if piece > _PIECE else {"", "no answer"}
    wrong = {n: f for n, f in zip(CASES, faults, strict=True) if f not in allowed}
    assert {} == wrong
    assert 100 <= len(CASES)
    assert 0 == api.unexpected


@pytest.mark.parametrize("piece", [1 << 20, _PIECE], ids=["whole", "in-pieces"])
@pytest.mark.parametrize("name", VALID)
async def test_what_is_unusual_is_one_request(api: API, name: str, piece: int) -> None:
    """What can be read in one way only is answered, and so is what follows."""
    last = BEHIND.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    told = await tell(api, _signed(VALID[name]) + last, piece)

    assert 2 == len(told.heads)
    assert told.heads[1].startswith("1 200")
    assert told.heads[0][2:5] in {"200", "404"}


async def test_requests_in_a_row_are_answered_in_order(api: API) -> None:
    """Who sends several at once gets their answers in the same order."""
    heads = [
        f"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: {n}\r\n" for n in range(20)
    ]
    heads[-1] += "Connection: close\r\n"

    told = await tell(api, "".join(f"{head}\r\n" for head in heads).encode())

    ids = [
        line.partition(": ")[2]
        for head in told.heads
        for line in head.split("\r\n")
        if line.startswith("X-Request-Id")
    ]
    assert [str(n) for n in range(20)] == ids


_CLOSE: Final = "\r\nHost: x\r\nConnection: close\r\n"
_JSON: Final = "Content-Type: application/json\r\n"
_ANSWERS: Final = {
    "200": "GET /livez HTTP/1.1" + _CLOSE,
    "201": f"POST /api/v1/keys HTTP/1.1{_CLOSE}{_JSON}Content-Length: 23",
    "202": f"DELETE /api/v1/keys/dual HTTP/1.1{_CLOSE}",
    "304": f"GET /api/v1/keys/dual HTTP/1.1{_CLOSE}If-None-Match: *\r\n",
    "400": f"GET /api/v1/keys?%ff HTTP/1.1{_CLOSE}",
    "401": f"GET /api/v1/keys HTTP/1.1{_CLOSE}Authorization: x\r\n",
    "404": f"GET /nothing HTTP/1.1{_CLOSE}",
    "404-key": f"GET /api/v1/keys/nothing HTTP/1.1{_CLOSE}",
    "405": f"TRACE /livez HTTP/1.1{_CLOSE}",
    "412": f'DELETE /api/v1/keys/dual HTTP/1.1{_CLOSE}If-Match: "7"\r\n',
    "413": f"POST /api/v1/keys HTTP/1.1{_CLOSE}{_JSON}Content-Length: 99999999\r\n",
    "415": f"POST /api/v1/keys HTTP/1.1{_CLOSE}Content-Type: a/b\r\n",
    "417": f"GET /livez HTTP/1.1{_CLOSE}Expect: more\r\n",
    "417-no-text": f"GET /nothing HTTP/1.1{_CLOSE}Expect: \xff\r\n",
    "417-route": f"GET /nothing HTTP/1.1{_CLOSE}Expect: more\r\n",
    "417-method": f"TRACE /livez HTTP/1.1{_CLOSE}Expect: more\r\n",
    "400-version-0.9": f"GET /livez HTTP/0.9{_CLOSE}",
    "400-version-2.0": f"GET /livez HTTP/2.0{_CLOSE}",
    "422": f"GET /api/v1/keys?limit=x HTTP/1.1{_CLOSE}",
}
"""A request for each way to answer, with the status that its name begins with."""


@pytest.mark.parametrize("name", _ANSWERS)
async def test_what_every_answer_says(api: API, name: str) -> None:
    """Whatever the status: nothing is cached, sniffed, framed or led elsewhere."""
    if name in {"202", "304", "412"}:
        await api.create("AES-256-GCM", name="dual", tags=["dual"])
    head = _ANSWERS[name].removesuffix("\r\n") + "\r\n"
    if "Authorization" not in head:
        head += f"Authorization: Bearer {mint()}\r\n"
    body = b'{"algorithm":"Ed25519"}' if name == "201" else b""

    told = await tell(api, head.encode("latin-1") + b"\r\n" + body)

    assert name[:3] == told.heads[0][2:5]
    assert 0 == api.unexpected
    assert _missing(told.heads[0]) <= ({"content-type"} if name == "304" else set())


async def test_an_answer_leads_to_its_record(api: API) -> None:
    """The request id of an answer, made by us or given, stands in the trail."""
    await api.create("Ed25519", name="k")
    answers = [
        await api.send("POST", "/keys/k/rotate"),
        await api.send("POST", "/keys/k/rotate", headers={"X-Request-Id": "mine.7"}),
        await api.send("POST", "/keys/k/rotate", headers={"X-Request-Id": "a b"}),
        await api.send("POST", "/keys/k/sign", body={"message": 1}),
        await api.send("GET", "/keys", token="none"),
        await api.send("GET", "/audit/events"),
    ]

    ids = [answer.headers["X-Request-Id"] for answer in answers]
    recorded = {event.get("request_id") for event in await api.events()}
    assert set(ids) <= recorded
    assert ("mine.7", len(ids)) == (ids[1], len(set(ids)))
    assert "a b" not in recorded

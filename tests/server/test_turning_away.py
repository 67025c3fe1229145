# SPDX-License-Identifier: MIT
"""The quickest answer: it says no less than the longer way, and is counted alike."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from hsm_server.config.settings import RateLimits, ServerSettings
from hsm_server.http import connection
from hsm_server.http.middleware import turn_away
from hsm_server.http.state import IN_FLIGHT, METRICS
from tests.server.support import API, mint, open_api

LIMITS = {
    "address": RateLimits(address_per_second=0.001, address_burst=1),
    "failures": RateLimits(free_failures=1),
}
PLAIN = b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer forged\r\n"
NAMED = b"X-Request-Id: from-a-test\r\n"


@dataclass(frozen=True)
class Raw:
    """One answer as it was sent."""

    status: str
    headers: dict[str, str]
    body: bytes


@pytest.fixture
async def limited() -> AsyncIterator[API]:
    """Give a server that turns this address away from the second failure on."""
    rates = RateLimits(address_per_second=0.001, address_burst=2, free_failures=0)
    async with open_api(ServerSettings(rates=rates)) as api:
        for _ in range(2):
            assert 401 == (await api.send("GET", "/status", token="forged")).status
        yield api


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Give whether each request got the quickest answer, as it came."""
    found: list[bool] = []

    def note(request: web.Request, app: web.Application) -> bytes | None:
        answer = turn_away(request, app)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(connection, "turn_away", note)
    return found


async def read(reader: asyncio.StreamReader, *, has_body: bool = True) -> Raw:
    """Read one answer."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    status, *lines = head.rstrip().split("\r\n")
    fields = [line.partition(": ") for line in lines]
    headers = {name: value for name, _, value in fields}
    assert len(lines) == len(headers), "A field stands twice."
    length = int(headers["Content-Length"]) if has_body else 0
    return Raw(status, headers, await reader.readexactly(length))


async def exchange(
    api: API, *sent: bytes, ends: bool = False
) -> tuple[list[Raw], bool]:
    """
    Send all in one piece; return the answers, and whether the connection goes on.

    Where it should end, that is waited for as long as a busy machine may take.
    """
    reader, writer = await asyncio.open_connection(*api.address)
    try:
        writer.write(b"".join(sent))
        has_body = not sent[0].startswith(b"HEAD")
        answers = [await read(reader, has_body=has_body) for _ in sent]
        rest = asyncio.create_task(reader.read())
        ended, _ = await asyncio.wait({rest}, timeout=10 if ends else 0.3)
        rest.cancel()
        return answers, not ended
    finally:
        writer.close()


@pytest.mark.parametrize("limit", LIMITS)
async def test_it_says_what_the_longer_way_says(
    limit: str, monkeypatch: pytest.MonkeyPatch, quick: list[bool]
) -> None:
    """The same status, header fields and problem, whichever limit it is."""
    async with open_api(ServerSettings(rates=LIMITS[limit])) as api:
        for _ in range(2):
            await api.send("GET", "/status", token="forged")
        (soon,), goes_on = await exchange(api, PLAIN + NAMED + b"\r\n")
        monkeypatch.setattr(connection, "turn_away", lambda *_: None)
        (late,), _ = await exchange(api, PLAIN + NAMED + b"\r\n")

    assert quick[-1]
    assert goes_on
    assert "HTTP/1.1 429 Too Many Requests" == soon.status == late.status
    for answer in (soon, late):
        assert answer.headers.pop("Date").endswith(" GMT")
    assert late.headers == soon.headers
    assert late.body == soon.body
    assert limit == json.loads(soon.body)["facts"]["limit"]
    assert "from-a-test" == json.loads(soon.body)["request_id"]


async def test_each_has_an_id_of_its_own(limited: API, quick: list[bool]) -> None:
    """Who brings none, or none that can be taken, is given one."""
    bad = PLAIN + b"X-Request-Id: no good\r\n\r\n"
    (first,), _ = await exchange(limited, PLAIN + b"\r\n")
    (second,), _ = await exchange(limited, bad)

    ids = [answer.headers["X-Request-Id"] for answer in (first, second)]
    assert [True, True] == quick
    assert all(16 == len(found) for found in ids)
    assert ids[0] != ids[1]


async def test_they_are_counted_and_not_logged(limited: API, quick: list[bool]) -> None:
    """Metrics know of each one, by limit and by code."""
    registry = limited.app[METRICS].registry
    lines = len(limited.log)
    for _ in range(5):
        await limited.send("GET", "/keys", token="forged")

    labels = {"operation": "none", "code": "rate_limited"}
    counted = [
        registry.get_sample_value("ferrohsm_requests_total", labels),
        registry.get_sample_value(
            "ferrohsm_rate_limit_blocked_total", {"limit": "address"}
        ),
        registry.get_sample_value(
            "ferrohsm_request_seconds_count", {"operation": "none"}
        ),
    ]
    assert [True] * 5 == quick
    assert [5.0] * 3 == counted
    assert lines == len(limited.log)


async def test_one_connection_goes_on(limited: API, quick: list[bool]) -> None:
    """Bodies are passed over, and what is asked in one piece is answered in order."""
    post = PLAIN.replace(b"GET", b"POST") + b"Content-Length: 5\r\n"
    asked = [
        request + b"X-Request-Id: %d\r\n\r\n" % number + body
        for number, (request, body) in enumerate([(PLAIN, b""), (post, b"abcde")] * 2)
    ]
    answers, goes_on = await exchange(limited, *asked)

    assert [True] * 4 == quick
    assert goes_on
    assert ["0", "1", "2", "3"] == [a.headers["X-Request-Id"] for a in answers]


@pytest.mark.parametrize(
    ("request_", "status", "goes_on"),
    [
        (PLAIN + b"Connection: close\r\n", "429", False),
        (PLAIN.replace(b"1.1", b"1.0"), "429", False),
        (PLAIN.replace(b"GET", b"HEAD"), "429", True),
        (PLAIN.replace(b"GET", b"PROPFIND"), "429", True),
        (PLAIN.replace(b"/api/v1/status", b"/ui"), "429", True),
        (PLAIN.replace(b"/api/v1/status", b"/livez"), "429", True),
        (PLAIN + b"Upgrade: h2c\r\n", "400", False),
        (PLAIN.replace(b"Host: x", b"Host: x y"), "400", False),
    ],
)
async def test_what_is_not_plain_takes_the_longer_way(
    limited: API, quick: list[bool], request_: bytes, status: str, goes_on: bool
) -> None:
    """Which refuses it as well, in the form that it needs."""
    (answer,), does_go_on = await exchange(
        limited, request_ + b"\r\n", ends=not goes_on
    )

    assert [False] == quick
    assert status == answer.status.split()[1]
    assert goes_on == does_go_on


async def test_at_the_end_of_a_server_connections_end(
    limited: API, quick: list[bool]
) -> None:
    """Who is turned away then is told that it was the last answer."""
    limited.app[IN_FLIGHT].is_draining = True
    (answer,), goes_on = await exchange(limited, PLAIN + b"\r\n", ends=True)

    assert [False] == quick
    assert "close" == answer.headers["Connection"]
    assert not goes_on


async def test_who_is_good_is_not_charged(quick: list[bool]) -> None:
    """Who was good a moment ago goes on, from the same address and not charged."""
    guard_free = RateLimits(address_per_second=0.001, address_burst=2)
    token = mint()  # One for all: a second later it would be another.
    async with open_api(ServerSettings(rates=guard_free)) as api:
        good = [await api.send("GET", "/status", token=token) for _ in range(5)]
        first = await api.send("GET", "/status", token="forged")
        second = await api.send("GET", "/status", token="forged")

    assert [200] * 5 == [answer.status for answer in good]
    assert [401, 429] == [first.status, second.status]
    assert [*[False] * 6, True] == quick

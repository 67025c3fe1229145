# SPDX-License-Identifier: MIT
"""Slow signatures do not hold up whoever asks for something quick."""

import asyncio
import time

from tests.server.support import API, b64
from tests.support import require_service

SLOW = "SLH-DSA-SHA2-128s"
SLOW_REQUESTS = 8
QUICK_REQUESTS = 20


async def require_slow(api: API) -> None:
    """Skip the running test where nobody serves the slow algorithm."""
    rows = (await api.send("GET", "/algorithms")).json["items"]
    (row,) = (row for row in rows if row["algorithm"] == SLOW)
    require_service(SLOW, row["status"] == "available")


async def test_quick_requests_go_on(api: API) -> None:
    """While slow signatures are made, quick ones and reads are answered at once."""
    await require_slow(api)
    await api.create(SLOW, name="slow")
    await api.create("ML-DSA-65", name="quick")
    body = {"message": b64(b"hello")}
    slow = [
        asyncio.create_task(api.send("POST", "/keys/slow/sign", body=body))
        for _ in range(SLOW_REQUESTS)
    ]
    await asyncio.sleep(0.05)
    took = []
    for _ in range(QUICK_REQUESTS):
        began = time.perf_counter()
        signed = await api.send("POST", "/keys/quick/sign", body=body)
        status = await api.send("GET", "/status")
        took.append(time.perf_counter() - began)
        assert (200, 200) == (signed.status, status.status)
    waiting = sum(not task.done() for task in slow)
    answers = await asyncio.gather(*slow)

    assert {200} == {answer.status for answer in answers}
    assert waiting > 0, took
    assert len({answer.json["signature"] for answer in answers}) == SLOW_REQUESTS


async def test_health_is_told_meanwhile(api: API) -> None:
    """A batch on a slow key does not stop the health page."""
    await require_slow(api)
    await api.create(SLOW, name="slow")
    items = [
        {"reference": str(number), "message": b64(b"hello")} for number in range(3)
    ]
    batch = asyncio.create_task(
        api.send("POST", "/keys/slow/sign/batch", body={"items": items})
    )
    await asyncio.sleep(0.05)
    health = await api.send("GET", "//healthz", token="")
    pending = not batch.done()
    answer = await batch

    assert (200, 200) == (health.status, answer.status)
    assert pending
    assert ["0", "1", "2"] == [item["reference"] for item in answer.json["items"]]


async def test_who_hangs_up_leaves_no_work_behind(api: API) -> None:
    """Slow requests whose callers are gone are not begun any more."""
    await require_slow(api)
    await api.create(SLOW, name="slow")
    body = {"message": b64(b"hello")}
    waiting = [
        asyncio.create_task(api.send("POST", "/keys/slow/sign", body=body))
        for _ in range(4 * SLOW_REQUESTS)
    ]
    await asyncio.sleep(0.2)
    for task in waiting:
        task.cancel()
    gone = await asyncio.gather(*waiting, return_exceptions=True)
    signed = await api.send("POST", "/keys/slow/sign", body=body)
    uses = (await api.send("GET", "/keys/slow")).json["use"]["uses"]

    assert signed.status == 200
    assert any(isinstance(answer, asyncio.CancelledError) for answer in gone)
    assert uses < SLOW_REQUESTS

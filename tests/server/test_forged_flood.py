# SPDX-License-Identifier: MIT
"""Two thousand forged tokens over HTTP, and what the trail says of them."""

import asyncio
import time
from collections import Counter

from tests.server.attacks import CLASSES
from tests.server.support import API
from tests.server.test_attacks import SENDABLE


async def test_a_flood_of_forgeries_is_counted(api: API) -> None:
    """
    None gets in, and all are answered alike; the trail accounts for every one.

    Single records keep to their budget; above it their number is recorded, and the two
    together are as many as there were.
    """
    tokens = [t for make in CLASSES.values() for t in make() if SENDABLE.fullmatch(t)]
    sent = [tokens[number % len(tokens)] for number in range(2_000)]
    answers, began = Counter[tuple[int, str]](), time.monotonic()
    for begin in range(0, len(sent), 100):
        asking = (
            api.send("GET", "/status", token=token)
            for token in sent[begin : begin + 100]
        )
        for answer in await asyncio.gather(*asking):
            answers[answer.status, answer.code] += 1
        if begin % 400 == 0:
            api.hsm._refusals.flush()  # noqa: SLF001 (what a minute does)
    api.hsm._refusals.flush()  # noqa: SLF001 (what closing does)

    assert {(401, "authentication_failed"): 2_000} == answers
    events = await api.events()
    single = [e for e in events if e["kind"] == "Authenticate"]
    counts = [e["detail"]["count"] for e in events if e["kind"] == "system.refusals"]
    minutes = int((time.monotonic() - began) // 60) + 2
    assert 10 <= len(single) <= 10 * minutes
    assert 2 <= len(counts) <= 6 + minutes
    assert 2_000 == len(single) + sum(counts)
    metrics = (await api.send("GET", "//metrics", token="")).body.decode()
    assert "ferrohsm_auth_jwt_failure_total 2000.0\n" in metrics

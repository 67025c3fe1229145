# SPDX-License-Identifier: MIT
"""Time for tokens never goes back."""

import asyncio
import json
import threading
import time
from io import StringIO
from typing import Any

import pytest

from hsm_core._internal.crypto.registry import CryptoRegistry, GeneratedKey
from hsm_core.errors import AuthenticationError
from hsm_core.model import Role
from hsm_core.operations import ListKeys
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.testing import caller
from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.identity.clock import ClockWatch, FlooredClock
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.server.support import PATIENCE, claims, mint, open_api, until


class Times:
    """Two clocks that a test sets."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1000.0, 50.0


async def test_a_step_over_http() -> None:
    """
    Who sets the clock back revives no token, and who sets it forward ends them.

    What was expired stays so, also for tokens that were good a moment ago and are
    remembered; a token of now is good by the time that was reached.
    """
    times, begin = Times(), float(int(time.time()))
    times.wall = begin
    clock = FlooredClock(lambda: times.wall, lambda: times.monotonic)
    token = mint(claims(iat=int(begin), exp=int(begin) + 300))

    async with open_api(clock=clock) as api:

        async def status(shown: str) -> int:
            return (await api.send("GET", "/algorithms", token=shown)).status

        assert 200 == await status(token)
        times.wall += 4000
        assert 401 == await status(token)
        later = mint(claims(iat=int(begin) + 4000, exp=int(begin) + 4300))
        assert 200 == await status(later)
        for back in (begin, begin - 86400, 0.0):
            times.wall = back
            assert (401, 200) == (await status(token), await status(later))
        assert 401 == await status(mint(claims(iat=int(begin), exp=int(begin) + 299)))
        times.monotonic += 4000
        assert (401, 401) == (await status(token), await status(later))


async def test_a_clock_that_was_days_ahead() -> None:
    """
    Tokens of now are refused, the log and a metric say why, and a reset ends that.

    Sessions end with it, which would last for days longer, and no token of before it
    counts as unused.
    """
    times, begin = Times(), float(int(time.time()))
    times.wall = begin + 2 * 86400
    clock = FlooredClock(lambda: times.wall, lambda: times.monotonic)
    log, metrics, kept = StringIO(), Metrics(), list[Gatekeeper]()

    def keep(gateway: AsyncHSMGateway, gatekeeper: Gatekeeper) -> LocalVault:
        kept.append(gatekeeper)
        return LocalVault(gateway, gatekeeper)

    def behind() -> bytes:
        (line,) = (
            line
            for line in metrics.exposition().splitlines()
            if line.startswith(b"ferrohsm_clock_behind_seconds ")
        )
        return line.partition(b" ")[2]

    async with open_api(clock=clock, between=keep) as api:

        async def status(shown: str) -> int:
            return (await api.send("GET", "/algorithms", token=shown)).status

        (keeper,) = kept
        logger = make_logger(log, LogLevel.DEBUG, LogFormat.JSON)
        watch = ClockWatch(clock, keeper.on_clock_reset, metrics, logger)
        ahead = mint(claims(iat=int(times.wall), exp=int(times.wall) + 300))
        visitor = Visitor(credential=ahead)
        signed_in = await keeper.sign_in(visitor, keeper.authenticate(visitor).caller)
        times.wall = begin
        fresh = mint(claims(iat=int(begin), exp=int(begin) + 300))
        assert 401 == await status(fresh)
        for _ in range(2):
            watch.look()
        assert b"172800.0" == behind()
        watch.reset()

        assert 200 == await status(fresh)
        assert b"0.0" == behind()
        with pytest.raises(AuthenticationError):
            keeper.authenticate(Visitor(session=signed_in.session))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert ["clock behind", "clock reset", "clock in step"] == [
        line["event"] for line in lines
    ]
    assert all(" 172800 s behind" in line["reason"] for line in lines[:2])


async def test_a_token_that_expires_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose token expires before its intent is recorded is not made."""
    times, begin = Times(), float(int(time.time()))
    times.wall = begin
    is_under_way, goes_on = threading.Event(), threading.Event()
    generate = CryptoRegistry.generate

    def late(registry: CryptoRegistry, *given: Any, **named: Any) -> GeneratedKey:
        is_under_way.set()
        assert goes_on.wait(PATIENCE)
        return generate(registry, *given, **named)

    monkeypatch.setattr(CryptoRegistry, "generate", late)
    clock = FlooredClock(lambda: times.wall, lambda: times.monotonic)
    token = mint(claims(iat=int(begin), exp=int(begin) + 300))

    async with open_api(clock=clock) as api:
        body = {"algorithm": "RSA-2048"}
        making = asyncio.create_task(api.send("POST", "/keys", token=token, body=body))
        await until(is_under_way.is_set)
        times.wall += 4000
        goes_on.set()
        made = await making
        after = await api.send("GET", "/algorithms", token=token)
        keys = api.hsm.act_as(caller(Role.AUDITOR)).execute(ListKeys())

    assert (401, 401) == (made.status, after.status)
    assert () == keys.items

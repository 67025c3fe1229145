# SPDX-License-Identifier: MIT
"""Limits over sockets: who asks too much waits, and nobody else does."""

import asyncio
import re
from typing import Any

import pytest

from hsm_core.model import Caller, Role
from hsm_server.config.settings import ProxySettings, RateLimits, ServerSettings
from hsm_server.http.state import GUARD, METRICS
from hsm_server.limits.buckets import ActorLimiter, Rate
from hsm_server.limits.guard import AddressGuard
from hsm_server.observability.metrics import Metrics
from tests.server.support import API, Answer, claims, mint, open_api

ALICE = Caller(principal="alice", roles=frozenset({Role.OPERATOR}))


class Clock:
    """Monotonic time that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        """Return it."""
        return self.now


def guarded(api: API, clock: Clock, **rates: Any) -> None:
    """Have addresses limited by a clock of the test."""
    found = RateLimits(**rates)
    rate = None
    if found.address_per_second:
        rate = Rate(found.address_per_second, found.address_burst)
    api.app._state[GUARD] = AddressGuard(  # noqa: SLF001 (frozen once it serves)
        rate, found.free_failures or None, api.app[METRICS], clock
    )


def metric(api: API, name: str, limit: str) -> float:
    """Return a metric of a limit."""
    value = api.app[METRICS].registry.get_sample_value(name, {"limit": limit})
    return value or 0.0


async def status(api: API, token: str | None = None, **more: Any) -> Answer:
    """Ask for the status."""
    return await api.send("GET", "/status", token=token, **more)


class TestActors:
    async def test_who_asks_too_much_waits(self) -> None:
        """429 with the time to wait, however their name is spelt; another goes on."""
        settings = ServerSettings(rates=RateLimits(per_second=0.001, burst=3))
        async with open_api(settings) as api:
            mine, other = mint(claims(sub="alice")), mint(claims(sub="bob"))
            spelt = mint(claims(sub="Alice"))
            answers = [await status(api, mine) for _ in range(3)]
            answers.append(await status(api, spelt))
            spared = await status(api, other)

        assert [200, 200, 200, 429] == [answer.status for answer in answers]
        assert "rate_limited" == answers[3].code
        wait = int(answers[3].headers["Retry-After"])
        assert 900 < wait <= 1000
        assert wait == answers[3].json["facts"]["retry_after_seconds"]
        assert 200 == spared.status

    async def test_every_answer_tells_what_is_left(self) -> None:
        """Good ones and bad ones, in the form of the draft."""
        settings = ServerSettings(rates=RateLimits(per_second=0.5, burst=8))
        async with open_api(settings) as api:
            good = await status(api)
            bad = await api.send("GET", "/keys/nothing/versions")

        assert '"actor";q=8;w=16' == good.headers["RateLimit-Policy"]
        assert 404 == bad.status
        for answer in (good, bad):
            assert re.fullmatch(r'"actor";r=\d;t=\d+', answer.headers["RateLimit"])

    async def test_nothing_is_told_where_nothing_is_limited(self) -> None:
        """A server without limits has none of the fields."""
        async with open_api() as api:
            answer = await status(api)

        assert "RateLimit" not in answer.headers

    async def test_what_is_dear_costs_more(self) -> None:
        """A slow algorithm's signature costs 50, a batch what its items do."""
        async with open_api() as api:
            slow = await api.create("SLH-DSA-SHA2-128s")
            quick = await api.create("Ed25519")
            weigh = api.hsm.weight
            from hsm_core import operations as ops

            assert 50 == weigh(ops.Sign(key_id=slow["key_id"], message=b""))
            assert 1 == weigh(ops.Status())
            assert 4 == weigh(ops.CreateKey(algorithm="Ed25519"))
            assert 50 == weigh(ops.CreateKey(algorithm="RSA-4096"))
            await api.send(
                "POST", f"/keys/{quick['key_id']}/sign", body={"message": "AA=="}
            )
            assert 1 == weigh(ops.Sign(key_id=quick["key_id"], message=b""))
            item = ops.SignItem(reference="a", message=b"")
            batch = ops.SignBatch(key_id=quick["key_id"], items=(item,) * 7)
            assert 7 == weigh(batch)

    async def test_a_batch_is_no_way_to_cheap_rsa_signatures(self) -> None:
        """Each signature by RSA costs 4 in a batch too; encryption is quick."""
        async with open_api() as api:
            key_id = (await api.create("RSA-2048"))["key_id"]
            from hsm_core import operations as ops

            signed = (ops.SignItem(message=b""),)
            sealed = (ops.EncryptItem(plaintext=b""),)
            weigh = api.hsm.weight
            assert 4 == weigh(ops.SignBatch(key_id=key_id, items=signed))
            assert 28 == weigh(ops.SignBatch(key_id=key_id, items=signed * 7))
            assert 7 == weigh(ops.EncryptBatch(key_id=key_id, items=sealed * 7))

    async def test_what_is_refused_is_not_done(self) -> None:
        """A refused request leaves nothing behind, and is counted."""
        settings = ServerSettings(rates=RateLimits(per_second=0.001, burst=4))
        async with open_api(settings) as api:
            first = await api.send("POST", "/keys", body={"algorithm": "Ed25519"})
            second = await api.send("POST", "/keys", body={"algorithm": "Ed25519"})
            keys = await api.send(
                "GET", "/keys", token=mint(claims(sub="auditor", roles=["Auditor"]))
            )

        assert (201, 429) == (first.status, second.status)
        assert 1 == len(keys.json["items"])

    def test_counts_of_callers(self) -> None:
        """What was let through, what was refused, and how many are remembered."""
        metrics = Metrics()
        limiter = ActorLimiter(Rate(1, 2), lambda _: 1, metrics, lambda: 5.0)

        for _ in range(3):
            limiter.charge(ALICE, None)

        text = metrics.exposition().decode()
        assert 'ferrohsm_rate_limit_allowed_total{limit="actor"} 2.0' in text
        assert 'ferrohsm_rate_limit_blocked_total{limit="actor"} 1.0' in text
        assert 'ferrohsm_rate_limit_buckets{limit="actor"} 1.0' in text


class TestAddresses:
    async def test_an_address_is_limited_before_anything_else(self) -> None:
        """Open pages and bad credentials alike; no vault is asked."""
        async with open_api() as api:
            guarded(api, Clock(), address_per_second=1, address_burst=3)
            answers = [await status(api, "forged") for _ in range(2)]
            answers.append(await api.send("GET", "//healthz", token=""))
            answers += [await status(api, "forged") for _ in range(5)]
            blocked = metric(api, "ferrohsm_rate_limit_blocked_total", "address")
            failures = api.app[METRICS].registry.get_sample_value(
                "ferrohsm_auth_jwt_failure_total"
            )

        assert [401, 401, 200, *[429] * 5] == [answer.status for answer in answers]
        logged = [line for line in api.log if line["event"] == "request"]
        assert [401, 401, 200] == [line["status"] for line in logged]
        assert "1" == answers[3].headers["Retry-After"]
        assert '"address";q=3;w=3' == answers[3].headers["RateLimit-Policy"]
        assert (5.0, 2.0) == (blocked, failures)

    async def test_who_was_good_goes_on(self) -> None:
        """Others behind the same address don't stop somebody who is known."""
        async with open_api() as api:
            guarded(api, Clock(), address_per_second=1, address_burst=3)
            good = mint()
            known = await status(api, good)
            for _ in range(5):
                await status(api, "forged")
            after = await status(api, good)
            stranger = await status(api, mint(claims(sub="stranger")))

        assert (200, 200, 429) == (known.status, after.status, stranger.status)

    async def test_a_minute_later_they_are_not_known_any_more(self) -> None:
        """What was good is not good for ever."""
        clock = Clock()
        async with open_api() as api:
            guarded(api, clock, address_per_second=0.001, address_burst=2)
            good = mint()
            await status(api, good)
            await status(api, "forged")
            clock.now += 61.0
            late = await status(api, good)

        assert 429 == late.status

    async def test_what_is_no_operation_is_limited_too(self) -> None:
        """A good credential is no licence to ask for nothing, nor to hinder others."""
        clock, rates = Clock(), {"address_per_second": 1, "address_burst": 3}
        settings = ServerSettings(rates=RateLimits(per_second=100, burst=100))
        async with open_api(settings) as api:
            guarded(api, clock, **rates)
            mine, other = mint(), mint(claims(sub="bob"))
            for token in (mine, other):
                assert 200 == (await status(api, token)).status
            kinds = ["/nothing", "/keys?limit=x", "//livez", "/nothing", "/nothing"]
            strays = [await self.stray(api, path, mine) for path in kinds]
            stopped = [await status(api, mine), await status(api, mint())]
            spared = await status(api, other)
            clock.now += 1.0
            later = await status(api, mine)

        assert [404, 422, 200, 404, 429] == strays
        assert [429, 429] == [answer.status for answer in stopped]
        assert [200, 200] == [spared.status, later.status]

    @staticmethod
    async def stray(api: API, path: str, token: str) -> int:
        """Ask for what is no operation."""
        where, _, query = path.partition("?")
        return (await api.send("GET", where, token=token, query=query)).status

    async def test_addresses_behind_a_proxy_are_told_apart(self) -> None:
        """The flood of one client doesn't stop another."""
        trusted = ProxySettings(networks=("127.0.0.1/32",))
        async with open_api(ServerSettings(proxies=trusted)) as api:
            guarded(api, Clock(), address_per_second=1, address_burst=2)
            first = [
                await status(api, "x", headers={"X-Forwarded-For": "192.0.2.1"})
                for _ in range(3)
            ]
            other = await status(api, headers={"X-Forwarded-For": "192.0.2.2"})

        assert [401, 401, 429] == [answer.status for answer in first]
        assert 200 == other.status


class TestLockouts:
    async def test_who_fails_too_often_waits(self) -> None:
        """Then even a good credential isn't looked at, until the time is over."""
        clock = Clock()
        async with open_api() as api:
            guarded(api, clock, free_failures=2)
            failed = [await status(api, "forged") for _ in range(4)]
            good = await status(api)
            clock.now += 1.0
            later = await status(api)

        assert [401, 401, 401, 429] == [answer.status for answer in failed]
        assert "failures" == failed[3].json["facts"]["limit"]
        assert (429, 200) == (good.status, later.status)

    async def test_who_shows_nothing_is_not_locked_out(self) -> None:
        """To have no credential is no attempt."""
        async with open_api() as api:
            guarded(api, Clock(), free_failures=1)
            answers = [await status(api, "") for _ in range(6)]

        assert {401} == {answer.status for answer in answers}

    async def test_who_was_good_is_not_locked_out(self) -> None:
        """A stranger's failures behind the same address lock out the stranger."""
        async with open_api() as api:
            guarded(api, Clock(), free_failures=1)
            good = mint()
            await status(api, good)
            forged = [await status(api, "forged") for _ in range(4)]
            known = await status(api, good)

        assert [401, 401, 429, 429] == [answer.status for answer in forged]
        assert 200 == known.status


async def test_a_flood_of_forgeries_stops_nobody() -> None:
    """Thousands of bad tokens at once; whoever was known is served meanwhile."""
    rates = RateLimits(
        per_second=100_000,
        burst=100_000,
        address_per_second=50,
        address_burst=50,
        free_failures=10,
    )
    async with open_api(ServerSettings(rates=rates)) as api:
        good = mint()
        assert 200 == (await status(api, good)).status
        seen: list[int] = []
        is_over = asyncio.Event()

        async def flood(number: int) -> None:
            for at in range(250):
                answer = await status(api, f"forged.{number}.{at}")
                seen.append(answer.status)

        async def ask() -> list[int]:
            found = []
            while not is_over.is_set():
                found.append((await status(api, good)).status)
            return found

        asking = asyncio.create_task(ask())
        await asyncio.gather(*(flood(number) for number in range(8)))
        is_over.set()
        served = await asking

    assert {200} == set(served)
    assert len(served) > 10
    assert {401, 429} == set(seen)
    assert seen.count(401) <= 60


@pytest.mark.parametrize("limit", ["actor", "address", "failures"])
def test_each_limit_counts_from_nought(limit: str) -> None:
    """A fresh server has refused nobody, so that a first refusal is an increase."""
    value = Metrics().registry.get_sample_value(
        "ferrohsm_rate_limit_blocked_total", {"limit": limit}
    )
    assert 0 == value

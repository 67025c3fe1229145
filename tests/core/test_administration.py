# SPDX-License-Identifier: MIT
"""What an HSM tells of itself: its algorithms, its health, its self-tests."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hsm_core import operations as ops
from hsm_core import testing
from hsm_core._internal.crypto import registry as served
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import Algorithm, Cost, spec
from hsm_core.errors import (
    AccessDeniedError,
    OverloadedError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.factory import OpenHSM, open_async
from hsm_core.model import Role
from hsm_core.policies import parse_policy
from hsm_core.protocols import HSM, CryptoProvider
from tests.core.crypto_samples import PYCA


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> OpenHSM:
    """Give an HSM on a machine that has pyca and nothing else."""
    registry = CryptoRegistry((PYCA,), SystemEntropy())
    monkeypatch.setattr(testing.memory, "_registry", lambda: registry)
    return testing.memory_hsm()


@pytest.fixture
def hsm(gateway: OpenHSM) -> HSM:
    """Give it to somebody who may do everything."""
    return gateway.act_as(testing.caller())


def test_the_caller(gateway: OpenHSM) -> None:
    """A caller reads its own principal and roles, and the audit log has no record."""
    someone = testing.caller(Role.SERVICE, Role.AUDITOR, principal="ada")
    before = gateway.act_as(someone).execute(ops.Status()).audit.head_seq
    found = gateway.act_as(someone).execute(ops.DescribeCaller())
    after = gateway.act_as(someone).execute(ops.Status()).audit.head_seq

    assert ("ada", (Role.AUDITOR, Role.SERVICE)) == (found.principal, found.roles)
    assert before == after


def test_what_to_install(hsm: HSM) -> None:
    """List and status say what to install for an algorithm that nobody serves."""
    listed = {i.algorithm: i for i in hsm.execute(ops.ListAlgorithms()).items}
    status = hsm.execute(ops.Status())
    states = {row.algorithm: row for row in status.algorithms}

    assert "operational" == status.state
    for algorithm, item in listed.items():
        row = states[algorithm]
        assert (row.status, row.hint) == (item.status, item.hint)
        assert (row.provider, row.provider_version) == (
            item.provider,
            item.provider_version,
        )
        assert bool(item.hint) is (item.status == "unavailable")
        assert bool(item.provider) is (item.status == "available")
    assert "pip install pqcrypto" in listed[Algorithm.ML_KEM_512].hint


def test_stopped(gateway: OpenHSM, hsm: HSM) -> None:
    """A stopped algorithm and its composites are shown as such, with their provider."""
    crypto = gateway._services.crypto  # noqa: SLF001 (nothing else stops one)
    crypto.stop(Algorithm.X25519, "Its provider computes nonsense.")
    listed = hsm.execute(ops.ListAlgorithms()).items

    assert {Algorithm.X25519, Algorithm.MLKEM768_X25519_SHA3_256} == {
        item.algorithm for item in listed if item.status == "stopped"
    }
    assert all(item.provider for item in listed if item.status == "stopped")
    assert "degraded" == hsm.execute(ops.Status()).state


def test_self_test(hsm: HSM) -> None:
    """The self-test reports every algorithm that somebody serves, and no other."""
    listed = hsm.execute(ops.ListAlgorithms()).items
    report = hsm.execute(ops.SelfTest())

    assert report.passed
    assert [i.algorithm for i in listed if i.status == "available"] == [
        result.algorithm for result in report.results
    ]


async def test_a_self_test_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes none of the slow threads; a second one at the same time is refused."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(algorithm: Algorithm, provider: CryptoProvider) -> None:
        begun.set()
        assert go_on.wait(30)

    with testing.memory_hsm() as gateway:
        hsm = open_async(gateway).act_as(testing.caller())
        await hsm.execute(ops.CreateKey(algorithm="rsa2048"))
        monkeypatch.setattr(served, "known_answer_test", wait)
        running = asyncio.ensure_future(hsm.execute(ops.SelfTest()))
        assert await asyncio.to_thread(begun.wait, 30)
        try:
            # What makes RSA keys is slow.
            await hsm.execute(ops.CreateKey(algorithm="rsa2048"))
            with pytest.raises(OverloadedError):
                await hsm.execute(ops.SelfTest())
        finally:
            go_on.set()
        assert (await running).passed


async def test_a_self_test_ends_when_the_hsm_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two algorithms; closing doesn't wait for all of them."""
    begun, go_on, tested = threading.Event(), threading.Event(), list[Algorithm]()

    def wait(algorithm: Algorithm, provider: CryptoProvider) -> None:
        tested.append(algorithm)
        begun.set()
        assert go_on.wait(30)

    with testing.memory_hsm() as gateway:
        hsm = open_async(gateway).act_as(testing.caller())
        monkeypatch.setattr(served, "known_answer_test", wait)
        running = asyncio.ensure_future(hsm.execute(ops.SelfTest()))
        assert await asyncio.to_thread(begun.wait, 30)
        closing = asyncio.ensure_future(asyncio.to_thread(gateway.close))
        begins = gateway._services.closing  # noqa: SLF001 (nobody else sees it)
        assert await asyncio.to_thread(begins.wait, 30)
        go_on.set()
        with pytest.raises(UnavailableError):
            await running
        await closing

    assert 1 == len(tested)


def test_a_self_test_costs_what_its_tests_cost(gateway: OpenHSM) -> None:
    """More than a signature of each slow algorithm."""
    slow = [a for a in Algorithm if spec(a).use_cost is Cost.SLOW]
    one = gateway.weight(ops.CreateKey(algorithm=slow[0]))

    assert gateway.weight(ops.SelfTest()) > one * len(slow)


def test_a_store_that_refuses_shows() -> None:
    """A change that the store refused leaves a mark for a while, or until one works."""
    clock, faults = testing.FakeClock(), testing.Faults()
    with testing.memory_hsm(clock=clock, faults=faults) as gateway:
        hsm = gateway.act_as(testing.caller())
        states = []
        for seconds in (1.0, 10.0):
            faults.plan("store.commit", StoreUnavailableError())
            with pytest.raises(StoreUnavailableError):
                hsm.execute(ops.CreateKey(algorithm="Ed25519"))
            clock.advance(seconds)
            states.append(hsm.execute(ops.Status()).state)
        faults.plan("store.commit", StoreUnavailableError())
        with pytest.raises(StoreUnavailableError):
            hsm.execute(ops.CreateKey(algorithm="Ed25519"))
        hsm.execute(ops.CreateKey(algorithm="Ed25519"))
        states.append(hsm.execute(ops.Status()).state)

    assert ["degraded", "operational", "operational"] == states


def test_the_status_counts_opened_keys(hsm: HSM) -> None:
    """A key that was used just now is open, and is not unsealed again."""
    made = hsm.execute(ops.CreateKey(algorithm="AES-256-GCM"))
    before = hsm.execute(ops.Status()).key_cache
    for _ in range(3):
        hsm.execute(ops.Encrypt(key_id=made.key_id, plaintext=b"x"))
    after = hsm.execute(ops.Status()).key_cache

    assert before.stores + 1 == after.stores
    assert before.misses + 1 == after.misses
    assert before.hits + 2 == after.hits


async def test_health_needs_no_grant() -> None:
    """Health checks see the HSM where the policy lets nobody see its status."""
    with testing.memory_hsm(policy=parse_policy("version: 1\n")) as gateway:
        with pytest.raises(AccessDeniedError):
            gateway.act_as(testing.caller()).execute(ops.Status())

        assert "operational" == (await open_async(gateway).status()).state

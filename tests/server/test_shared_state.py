# SPDX-License-Identifier: MIT
"""State that servers of a cluster share: sessions, single-use tokens, lockouts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import psycopg
import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Role
from hsm_core.protocols import SharedState
from hsm_core.settings import Settings
from hsm_server.config.settings import ConsoleSettings, RateLimits, TokenRules
from hsm_server.identity.id_tokens import IDTokens, Person, provider_name
from hsm_server.identity.sessions import SessionEndedError, Sessions
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.identity.token_verifier import Identity, ReplayCache
from hsm_server.ipc.remote_vault import RemoteVault
from hsm_server.limits.buckets import Rate
from hsm_server.limits.cluster import LimitExchange
from hsm_server.limits.guard import AddressGuard, ClusterLimits
from hsm_server.observability.metrics import Metrics
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.postgresql import PostgreSQL
from tests.server.ipc_support import open_bench
from tests.server.support import SECRET, until
from tests.server.test_id_tokens import NONCE, verifier
from tests.server.test_id_tokens import settings as provider_settings
from tests.server.test_id_tokens import token as id_token


class Cluster(NamedTuple):
    """Two nodes over one database."""

    url: str
    first: SharedState
    second: SharedState


def opened(url: str, name: str, folder: Path) -> OpenHSM:
    """Open a node."""
    settings = Settings(store=url, node_name=name, node_mark=folder / f"{name}.mark")
    return open_hsm(
        settings, master_key=bytes(32), hmac_key=bytes(range(32)), test_all=False
    )


@pytest.fixture(scope="module")
def cluster(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Give the state of two nodes."""
    url = postgresql.url(postgresql.new_database())
    folder = tmp_path_factory.mktemp("marks")
    with opened(url, "a", folder) as first, opened(url, "b", folder) as second:
        assert first.shared is not None
        assert second.shared is not None
        yield Cluster(url, first.shared, second.shared)


@pytest.fixture(autouse=True)
def _empty(cluster: Cluster) -> None:
    for kind in ("session", "spent token", "spent ID token", "kind"):
        cluster.first.remove(kind)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("DELETE FROM failures")


def test_what_one_node_writes_another_reads(cluster: Cluster) -> None:
    """A value is added once, replaced only where it is, and removed for all."""
    first, second = cluster.first, cluster.second
    ends = time.time() + 60

    assert first.add("kind", "name", b"one", ends)
    assert not second.add("kind", "name", b"two", ends)
    assert b"one" == second.read("kind", "name")
    assert second.replace("kind", "name", b"three", ends)
    assert b"three" == first.read("kind", "name")
    first.remove("kind", "name")
    assert second.read("kind", "name") is None
    assert not second.replace("kind", "name", b"four", ends)


def test_the_database_makes_no_value(cluster: Cluster) -> None:
    """A value that was altered, or moved to another name, is none."""
    ends = time.time() + 60
    for name in ("altered", "moved"):
        cluster.first.add("kind", name, b"value", ends)
    with psycopg.connect(cluster.url) as connection:
        connection.execute(
            "UPDATE shared SET value = set_byte(value, length(value) - 1, "
            "get_byte(value, length(value) - 1) # 1) WHERE id = 'altered'"
        )
        connection.execute("UPDATE shared SET id = 'there' WHERE id = 'moved'")

    assert cluster.first.read("kind", "altered") is None
    assert cluster.first.read("kind", "there") is None


def test_a_clock_that_is_ahead_removes_nothing_early(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise a spent token would count again on nodes whose clocks are right."""
    cluster.first.add("kind", "lasting", b"one", time.time() + 600)
    cluster.first.add("kind", "expired", b"one", time.time() - 600)
    with opened(cluster.url, "ahead", tmp_path) as node:
        assert node.shared is not None
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now + 3600)
        node.shared.add("kind", "new", b"one", now + 600)
        monkeypatch.undo()

    assert b"one" == cluster.first.read("kind", "lasting")
    assert cluster.first.read("kind", "expired") is None


def count_old(connection: psycopg.Connection) -> int:
    """Return how many expired values there are."""
    found = connection.execute("SELECT count(*) FROM shared WHERE expires = 0")
    return int((found.fetchone() or [0])[0])


def test_expired_values_go_bit_by_bit(cluster: Cluster, tmp_path: Path) -> None:
    """Each call removes some until none is left, and waits for none that is locked."""
    with psycopg.connect(cluster.url) as connection:
        connection.execute(
            "INSERT INTO shared (kind, id, owner, value, expires) "
            "SELECT 'kind', n, '', '', 0 FROM generate_series(1, 2500) AS n"
        )
        connection.commit()
        connection.execute("SELECT 1 FROM shared WHERE id = '7' FOR UPDATE")
        with opened(cluster.url, "sweeping", tmp_path) as node:
            assert node.shared is not None
            left = []
            for name in ("first", "second", "third"):
                assert node.shared.add("kind", name, b"one", time.time() + 60)
                left.append(count_old(connection))

    assert [1500, 500, 1] == left


async def test_a_sweep_reads_what_has_expired(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """However many values last, it finds the others by their ends."""
    url = postgresql.url(postgresql.new_database())
    with psycopg.connect(url, autocommit=True) as connection:
        with opened(url, "a", tmp_path) as node:
            assert node.shared is not None
            connection.execute(
                "INSERT INTO shared (kind, id, owner, value, expires) "
                "SELECT 'kind', n, '', '', 4102444800 "
                "FROM generate_series(1, 20000) AS n"
            )
            connection.execute("ANALYZE shared")
            node.shared.add("kind", "new", b"one", time.time() + 60)

        def scans() -> int:
            found = connection.execute(
                "SELECT idx_scan FROM pg_stat_user_indexes "
                "WHERE indexrelname = 'shared_expires'"
            )
            return int((found.fetchone() or [0])[0])

        await until(lambda: scans() == 1)


def sessions_of(shared: SharedState, now: float = 0.0) -> Sessions:
    """Return the sessions of a node, two of each principal."""
    started = time.time() + now
    settings = ConsoleSettings(idle_seconds=60, absolute_seconds=600)
    return Sessions(settings, lambda: started, most=3, most_of_one=2, shared=shared)


def test_a_session_holds_on_every_node(cluster: Cluster) -> None:
    """Behind a load balancer, no node is asked twice; a sign-out ends it for all."""
    first, second = sessions_of(cluster.first), sessions_of(cluster.second)
    secret = first.begin("ada", "token", "")

    session = second.find(secret, "")
    second.end(secret)

    assert ("ada", "token") == (session.principal, session.credential)
    for sessions in (first, second):
        with pytest.raises(AuthenticationError):
            sessions.find(secret, "")


def test_a_request_goes_on_with_the_session_that_it_found(cluster: Cluster) -> None:
    """Where its end is checked again, nobody waits for the database; time counts."""
    now = [0.0]
    sessions = Sessions(
        ConsoleSettings(idle_seconds=60), lambda: now[0], shared=cluster.first
    )
    secret = sessions.begin("ada", "token", "")
    session = sessions.find(secret, "")
    sessions.end(secret)

    assert session == sessions.look(secret, session)
    now[0] = 61.0
    with pytest.raises(SessionEndedError):
        sessions.look(secret, session)


def test_a_use_on_one_node_keeps_it_alive_on_another(cluster: Cluster) -> None:
    """The idle time is one for all nodes."""
    secret = sessions_of(cluster.first).begin("ada", "token", "")
    sessions_of(cluster.second, 50).find(secret, "")

    sessions_of(cluster.first, 100).find(secret, "")
    with pytest.raises(SessionEndedError):
        sessions_of(cluster.second, 170).find(secret, "")


def test_sessions_are_bounded_over_all_nodes(cluster: Cluster) -> None:
    """The one used least recently gives way, of the same person first."""
    first, later = sessions_of(cluster.first), sessions_of(cluster.second, 10)
    oldest = first.begin("ada", "token", "")
    kept = later.begin("Ada", "token", "")
    newest = sessions_of(cluster.first, 20).begin("ADA", "token", "")

    with pytest.raises(AuthenticationError):
        later.find(oldest, "")
    assert "Ada" == first.find(kept, "").principal
    for person in ("bob", "cleo"):
        sessions_of(cluster.second, 30).begin(person, "token", "")
    with pytest.raises(AuthenticationError):
        first.find(kept, "")
    assert "ADA" == later.find(newest, "").principal


def test_no_token_lies_in_the_database(cluster: Cluster) -> None:
    """Neither the credential of a session nor its secret can be read there."""
    secret = sessions_of(cluster.first).begin("ada", "bearer-token-7", "")
    with psycopg.connect(cluster.url) as connection:
        rows = connection.execute("SELECT shared::text, value FROM shared").fetchall()

    assert 1 == len(rows)
    assert b"bearer-token-7" not in rows[0][1]
    assert secret not in rows[0][0]


def keeper_of(shared: SharedState, people: IDTokens | None) -> Gatekeeper:
    """Return who lets people in on a node, with this provider."""
    trust = TokenTrust.of_secret(SECRET, TokenRules())
    gateway: Any = SimpleNamespace(asks_for_single_use=lambda: False)
    return Gatekeeper(gateway, trust, lambda: None, people=people, shared=shared)


NOW_CONFIGURED: Final[dict[str, IDTokens | None]] = {
    "no provider": None,
    "another client": verifier(client_id="other"),
    "another role": verifier(roles={"signers": Role.AUDITOR}),
}


@pytest.mark.parametrize("people", NOW_CONFIGURED.values(), ids=NOW_CONFIGURED.keys())
def test_a_session_counts_no_more_than_the_provider_now(
    cluster: Cluster, people: IDTokens | None
) -> None:
    """A session outlasts a restart of its node, unless its roles are given no more."""
    role = frozenset({Role.OPERATOR})
    olga = Person("olga", role, "id", provider_name(provider_settings()))
    secret = sessions_of(cluster.first).begin("olga", "", "", olga)
    visitor = Visitor(session=secret)
    same = keeper_of(cluster.second, verifier())

    assert role == same.authenticate(visitor).caller.roles
    for keeper in (keeper_of(cluster.first, people), same):
        with pytest.raises(AuthenticationError):
            keeper.authenticate(visitor)


def test_a_token_is_spent_once(cluster: Cluster) -> None:
    """The second node sees that the first has taken it."""
    now = time.time()
    identity = Identity(
        principal="ada",
        roles=frozenset(),
        credential_id="x",
        expires_at=math.inf,
        not_before=-1,
        certificate_sha256=frozenset(),
        key_name="key",
        token_id="token-1",
        issued_at=now,
    )
    nodes = [
        ReplayCache(lambda: now - 1, shared=shared)
        for shared in (cluster.first, cluster.second)
    ]

    assert [True, False] == [node.spend(identity, 0) for node in nodes]
    assert not nodes[0].spend(identity, 0)


def test_an_id_token_is_redeemed_once(cluster: Cluster) -> None:
    """One token begins no session on each node; the event loop waits for no answer."""
    first, second = (keeper_of(shared, verifier()) for shared in cluster[1:])
    visitor = Visitor(credential=id_token(), nonce=NONCE)

    assert "olga" == first.authenticate(visitor).caller.principal
    for keeper in (second, first, keeper_of(cluster.first, verifier())):
        assert keeper.asks_database(visitor)
        with pytest.raises(AuthenticationError):
            keeper.authenticate(visitor)


def failures_of(shared: SharedState, **counts: int) -> dict[str, int]:
    """Add failures, and return the numbers of those who have more than two."""
    found = shared.count_failures(counts, free=2, forgotten=300, recent=60)
    assert all(0 <= each.age_seconds <= 60 for each in found.values())
    return {name: each.count for name, each in found.items()}


def test_failures_on_all_nodes_count_together(cluster: Cluster) -> None:
    """Who has failed too often on all nodes is found by each."""
    first, second = cluster.first, cluster.second

    assert {} == failures_of(first, one=2, other=1)
    assert {"one": 3} == failures_of(second, one=1)
    assert {"one": 3} == failures_of(first)
    assert {"one": 4, "other": 3} == failures_of(second, other=2, one=1)


def test_failures_are_forgotten(cluster: Cluster) -> None:
    """After five minutes without one, the next failure is the first."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        assert {"one": 9} == failures_of(cluster.first, one=9)
        connection.execute("UPDATE failures SET last = last - 70000000")
        assert {} == failures_of(cluster.first)
        assert {"one": 10} == failures_of(cluster.first, one=1)
        connection.execute("UPDATE failures SET last = last - 301000000")

    assert {} == failures_of(cluster.first, one=2)


def test_a_clock_that_went_back_locks_nobody_out(cluster: Cluster) -> None:
    """Failures of the future count again when there is another."""
    assert "late" in failures_of(cluster.first, late=3)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("UPDATE failures SET last = last + 9000000000")

    assert {} == failures_of(cluster.first)
    assert {"late": 4} == failures_of(cluster.first, late=1)


def test_nodes_fail_at_the_same_time(cluster: Cluster) -> None:
    """No failure is lost, and nobody waits for the other for ever."""
    names = [f"n{number}" for number in range(100)]

    def fail(shared: SharedState, names: list[str]) -> None:
        for _ in range(10):
            counts = dict.fromkeys(names, 1)
            shared.count_failures(counts, free=2, forgotten=300, recent=60)

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(fail, cluster.first, names)
        other = threads.submit(fail, cluster.second, names[::-1])
        one.result()
        other.result()

    found = failures_of(cluster.first)
    assert dict.fromkeys(names, 20) == {name: found[name] for name in names}


async def test_a_flood_of_addresses_costs_one_statement(cluster: Cluster) -> None:
    """However many addresses fail, the database hears of a few at a time."""
    rates = RateLimits(free_failures=1, divided=True)
    exchange = LimitExchange(cluster.first, rates)
    for number in range(2**14):
        exchange.note_failure(f"10.0.{number >> 8}.{number & 255}")
    for _ in range(9):
        exchange.note_failure("192.0.2.1")
    found: asyncio.Queue[ClusterLimits] = asyncio.Queue()
    exchange.on_change = found.put_nowait
    task = asyncio.create_task(exchange.run())
    first = await asyncio.wait_for(found.get(), 60)
    task.cancel()
    with psycopg.connect(cluster.url) as connection:
        sent = connection.execute(
            "SELECT count(*) FROM failures WHERE name LIKE '10.0.%'"
        ).fetchone()

    assert 1000 > (sent or [1000])[0]
    assert 2 == first.divisor


async def test_lockouts_reach_the_other_node(cluster: Cluster) -> None:
    """An address that fails everywhere is locked out everywhere, for as long."""
    clock = [0.0]
    guard = AddressGuard(None, 5, Metrics(), lambda: clock[0])
    rates = RateLimits(free_failures=5)
    there, here = (
        LimitExchange(cluster.first, rates),
        LimitExchange(cluster.second, rates),
    )
    here.on_change = guard.take_in
    for _ in range(4):
        here.note_failure("198.51.100.7")
        there.note_failure("198.51.100.7")
        there.note_failure("198.51.100.7")
    tasks = [asyncio.create_task(each.run()) for each in (here, there)]
    async with asyncio.timeout(60):
        while (refusal := guard.refusal("198.51.100.7")) is None:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()

    assert 1 < refusal.wait_seconds <= 60
    assert guard.refusal("198.51.100.8") is None
    clock[0] = 61
    assert guard.refusal("198.51.100.7") is None


class FrontEnd:
    """A front end whose address guard has a rate of four at once."""

    def __init__(self) -> None:
        self.vault = RemoteVault(lambda _: None)
        self._guard = AddressGuard(Rate(4.0, 4), None, Metrics(), lambda: 0.0)
        self.vault.on_limits = self._guard.take_in
        self._addresses = count(1)

    async def admits(self, requests: int) -> None:
        """Wait until it admits so many requests of an address at once."""
        await until(lambda: self._admitted() == requests)

    def _admitted(self) -> int:
        address = f"192.0.2.{next(self._addresses) % 250}"
        passed = takewhile(lambda _: self._guard.admit(address, b"") is None, count())
        return len(list(passed))


async def test_front_ends_divide_as_their_new_vault_does(
    cluster: Cluster, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """Also if it finds itself alone, and whenever they connect with it."""
    early, late = FrontEnd(), FrontEnd()
    url = postgresql.url(postgresql.new_database())
    with opened(url, "alone", tmp_path) as alone:
        assert alone.shared is not None
        for shared, share in ((cluster.first, 2), (alone.shared, 4)):
            exchange = LimitExchange(shared, RateLimits(divided=True))
            async with open_bench() as bench:
                exchange.on_change = bench.service.send_limits
                early.vault.attach(bench.end())
                task = asyncio.create_task(exchange.run())
                await early.admits(share)
                late.vault.attach(bench.end())
                await late.admits(share)
                task.cancel()

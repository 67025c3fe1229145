# SPDX-License-Identifier: MIT
"""State that servers of a cluster share: console sessions and single-use tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.protocols import SharedState
from hsm_core.settings import Settings
from hsm_server.config.settings import ConsoleSettings
from hsm_server.identity.sessions import SessionEndedError, Sessions
from hsm_server.identity.token_verifier import Identity, ReplayCache
from tests.postgresql import PostgreSQL


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
    for kind in ("session", "spent token", "kind"):
        cluster.first.remove(kind)


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


def sessions_of(shared: SharedState, now: float = 0.0) -> Sessions:
    """Return the sessions of a node, two of each principal."""
    started = time.time() + now
    settings = ConsoleSettings(idle_seconds=60, absolute_seconds=600)
    return Sessions(settings, lambda: started, most=3, most_of_one=2, shared=shared)


def test_a_session_holds_on_every_node(cluster: Cluster) -> None:
    """Behind a load balancer, no node is asked twice; a sign-out ends it for all."""
    first, second = sessions_of(cluster.first), sessions_of(cluster.second)
    secret = first.begin("ada", "token", "")

    assert "ada" == second.find(secret, "").principal
    assert "token" == second.look(secret).credential
    second.end(secret)
    with pytest.raises(AuthenticationError):
        first.find(secret, "")
    with pytest.raises(SessionEndedError):
        first.look(secret)


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

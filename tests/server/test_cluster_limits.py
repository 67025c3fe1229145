# SPDX-License-Identifier: MIT
"""Limits of servers that are nodes of one cluster: lockouts, and shared rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

import psycopg

from tests.postgresql import PostgreSQL
from tests.server.process import Running
from tests.server.support import claims, mint
from tests.server.test_cluster import ClusterSite

PATIENCE = 60.0
FREE = 40
LIMITS = (
    *("--lockout-after", str(FREE), "--divide-rate-limits"),
    *("--rate-limit-per-second", "100", "--rate-limit-burst", "100"),
)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.05)


def forger(server: Running) -> int:
    """Return the status of a request with a wrong credential."""
    return server.send("GET", "/api/v1/status", token="forged").status


def has_half(server: Running, token: str) -> bool:
    """Return whether a caller has half of the rate, as the server says it."""
    answer = server.send("GET", "/api/v1/status", token=token)
    assert 200 == answer.status
    return "q=50;" in answer.headers["RateLimit-Policy"]


def test_limits_hold_on_all_nodes(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """
    Wrong credentials on two nodes lock out on both, and nodes share a rate.

    Neither has had so many of them that it would lock anybody out by itself. Those who
    were good a moment ago go on.
    """
    site = ClusterSite(tmp_path, postgresql.url(postgresql.new_database()))
    good = mint(claims())
    with (
        site.serve(*site.node("a"), *LIMITS) as first,
        site.serve(*site.node("b"), *LIMITS) as second,
    ):
        nodes = {"a": first, "b": second}
        for node in nodes.values():
            eventually(partial(has_half, node, good))
        failed = dict.fromkeys(nodes, 0)
        locked = set[str]()
        for name, node in cycle(nodes.items()):
            if 401 == forger(node):
                failed[name] += 1
                assert failed[name] <= FREE
            else:
                locked.add(name)
            if locked == {*nodes}:
                break
            # Failures are exchanged twice a second.
            time.sleep(0.1)
        assert all(has_half(node, good) for node in nodes.values())


def test_the_exchange_goes_on_after_an_unexpected_exception(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """A database that answered in another form for a time ends it for that time."""
    url = postgresql.url(postgresql.new_database())
    site = ClusterSite(tmp_path, url)
    with (
        site.serve(*site.node("a"), "--lockout-after", "1000") as node,
        psycopg.connect(url, autocommit=True) as database,
    ):
        assert 401 == forger(node)
        database.execute("ALTER TABLE failures ALTER COLUMN last TYPE numeric")
        lock_out(database, "192.0.2.1")
        eventually(lambda: any(line["event"] == "loop" for line in site.log()))
        database.execute("ALTER TABLE failures ALTER COLUMN last TYPE bigint")
        lock_out(database, "127.0.0.1")

        eventually(lambda: 429 == forger(node))


def lock_out(database: psycopg.Connection, peer: str) -> None:
    """Lock out an address, as failures on another node do."""
    database.execute(
        "INSERT INTO failures (name, count, last) VALUES "
        "(%s, 2000, extract(epoch FROM now()) * 1000000) ON CONFLICT (name) "
        "DO UPDATE SET count = excluded.count, last = excluded.last",
        (peer,),
    )

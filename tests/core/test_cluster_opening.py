# SPDX-License-Identifier: MIT
"""Nodes that open while their database hangs, pauses, or is asked by many at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm_core.errors import ConfigurationError, StoreUnavailableError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.settings import Settings
from tests.core.cluster_nodes import AUDIT_KEY, ROOT, open_node, session, verify
from tests.core.postgresql_proxy import CommitProxy, Cut
from tests.postgresql import PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """Give a server that a proxy stands before."""
    found = PostgreSQL.create()
    yield found
    found.remove()


def opened(url: str, folder: Path, steps: list[str]) -> OpenHSM:
    """Open a node, and note its steps."""
    settings = Settings(store=url, node_name="a", node_mark=folder / "a.mark")
    return open_hsm(
        settings,
        master_key=ROOT,
        hmac_key=AUDIT_KEY,
        test_all=False,
        progress=steps.append,
    )


def attempts(steps: list[str]) -> list[str]:
    """Return why attempts were made again."""
    return [step for step in steps if step.startswith("new attempt: ")]


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_a_lost_answer(server: PostgreSQL, tmp_path: Path, cut: Cut) -> None:
    """
    A start goes on after the connection was cut at a COMMIT, and says so.
    """
    steps: list[str] = []
    with CommitProxy(server) as proxy:
        proxy.cut = cut
        with opened(proxy.url(server.new_database()), tmp_path, steps) as hsm:
            session(hsm).create_key("ed25519")

        assert 1 == len(attempts(steps))


def test_a_database_that_hangs(server: PostgreSQL, tmp_path: Path) -> None:
    """
    A start waits for a database that hangs for some seconds.
    """
    steps: list[str] = []
    with CommitProxy(server) as proxy:
        proxy.hangs = True
        timer = threading.Timer(1.0, lambda: setattr(proxy, "hangs", False))
        timer.start()
        with opened(proxy.url(server.new_database()), tmp_path, steps) as hsm:
            session(hsm).create_key("ed25519")
        timer.join()

        assert attempts(steps)


def test_a_refusal(server: PostgreSQL, tmp_path: Path) -> None:
    """
    A database of another program, and none at all, end a start at its first attempt.
    """
    steps: list[str] = []
    database = server.new_database()
    server.execute("CREATE TABLE other (id integer)", database=database)

    with pytest.raises(ConfigurationError, match="another program"):
        opened(server.url(database), tmp_path, steps)
    with pytest.raises(StoreUnavailableError, match="can't be reached"):
        opened(server.url("nothing"), tmp_path, steps)

    assert not attempts(steps)


def test_many_at_once(server: PostgreSQL, tmp_path: Path) -> None:
    """
    Nodes that start at once over an empty database become one cluster.
    """
    url, names = server.url(server.new_database()), ["a", "b", "c", "d", "e"]
    with ThreadPoolExecutor(len(names)) as pool:
        nodes = list(pool.map(lambda name: open_node(url, tmp_path, name), names))
        keys = list(pool.map(lambda hsm: session(hsm).create_key("ed25519"), nodes))
    signatures = [session(hsm).sign(keys[0].key_id, b"message") for hsm in nodes]
    for hsm in nodes:
        hsm.close()

    assert 1 == len({signature.signature for signature in signatures})
    assert set(names) == set(verify(url))

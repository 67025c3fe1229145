# SPDX-License-Identifier: MIT
"""Use counters in PostgreSQL: compare-and-set, and nodes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.use_counters import PostgresUseCounters
from hsm_core.errors import UseLimitError
from tests.core.postgresql_uses_child import LIMIT, RULES
from tests.core.uses_support import MATERIAL, accounts_over, stored, use
from tests.support import REPOSITORY

ROUNDS = int(os.environ.get("FERROHSM_NODE_KILLS", "4")) // 2
"""How often two nodes are killed; 150 times in the session `node_kills`."""


@pytest.fixture
def counters(database: str) -> Iterator[PostgresUseCounters]:
    """Give the counters of a new database."""
    opened = ClusterDatabase(read_location(database))
    yield PostgresUseCounters(opened)
    opened.close()


def test_replace(counters: PostgresUseCounters) -> None:
    """
    A value is replaced only if it is the expected one; None expects no row.
    """
    assert counters.replace(MATERIAL, None, b"first")
    assert not counters.replace(MATERIAL, None, b"other")
    assert not counters.replace(MATERIAL, b"other", b"second")
    assert counters.replace(MATERIAL, b"first", b"second")
    counters.discard(MATERIAL)
    assert not counters.replace(MATERIAL, b"second", b"third")

    assert counters.get(MATERIAL) is None


def test_a_replacement_waits_for_another(counters: PostgresUseCounters) -> None:
    """
    A node that finds a row locked decides by what the other one has committed.
    """
    counters.put(MATERIAL, b"first")
    made: list[bool] = []
    statement = "UPDATE uses SET value = $1 WHERE material_id = $2"
    with counters._database.transaction() as connection:  # noqa: SLF001
        connection.execute(statement, (b"second", MATERIAL))
        other = threading.Thread(
            target=lambda: made.append(counters.replace(MATERIAL, b"first", b"third"))
        )
        other.start()
    other.join()

    assert [False] == made
    assert b"second" == counters.get(MATERIAL)


def test_nodes_killed_at_any_step(database: str, tmp_path: Path) -> None:
    """
    Two nodes that die again and again never use a key more often than is stored.
    """
    journal = tmp_path / "journal"
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.core.postgresql_uses_child"),
            *(database, str(journal), str(ROUNDS)),
        ],
        cwd=REPOSITORY,
        check=True,
        timeout=60 + 10 * ROUNDS,
    )
    used = sum(map(int, journal.read_text().split()))
    opened = ClusterDatabase(read_location(database))
    counters = PostgresUseCounters(opened)
    reserved = stored(counters).uses

    assert 0 < used <= reserved <= LIMIT
    accounts = accounts_over(counters, rules=RULES)
    accounts.take(use(LIMIT - reserved))
    with pytest.raises(UseLimitError):
        accounts.take(use(1))
    opened.close()

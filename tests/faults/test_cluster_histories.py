# SPDX-License-Identifier: MIT
"""Histories of three real nodes are linearizable, whatever fails."""

import os
from collections.abc import Iterator

import pytest

from tests.faults.cluster_faults import Pair
from tests.faults.cluster_histories import Histories
from tests.postgresql import PostgreSQL

COUNT = int(os.environ.get("FERROHSM_HISTORIES", "80"))
MOST = 480
"""Histories after which a protection that is switched off is noticed."""


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """Give a server of its own: its sessions are ended."""
    found = PostgreSQL.create()
    yield found
    found.remove()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give a server with a synchronous standby."""
    found = Pair()
    yield found
    found.remove()


def check(server: PostgreSQL | Pair, count: int) -> None:
    """Live through histories, and verify the audit logs that they leave."""
    with Histories(server, seed=count) as histories:
        assert histories.run(count) == []
        assert len(histories.calls) > count / 2
        assert histories.counts["made"] > count
        histories.close_nodes()
        assert histories.verify() > count


@pytest.mark.timeout(900)
def test_histories_are_linearizable(server: PostgreSQL) -> None:
    """Nodes are stopped and killed, sessions ended, connections cut."""
    check(server, COUNT)


@pytest.mark.timeout(900)
def test_histories_with_a_standby_are_linearizable(pair: Pair) -> None:
    """Waits for the standby are canceled, too, and it is promoted under load."""
    check(pair, COUNT // 4)


@pytest.mark.timeout(900)
def test_later_changes_count(server: PostgreSQL) -> None:
    """Histories notice when uses are recorded whatever was changed since."""
    with Histories(server, 1, ["later"]) as histories:
        for _ in range(0, MOST, 12):
            if histories.run(12, faults=False):
                return
    pytest.fail("Nothing was noticed.")

# SPDX-License-Identifier: MIT
"""Histories of three real nodes are linearizable, whatever fails."""

import os
from collections.abc import Iterator

import pytest

from tests.faults.cluster_histories import Histories
from tests.postgresql import PostgreSQL

COUNT = int(os.environ.get("FERROHSM_HISTORIES", "18"))


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """Give a server of its own: its sessions are ended."""
    found = PostgreSQL.create(max_connections="100")
    yield found
    found.remove()


def test_histories_are_linearizable(server: PostgreSQL) -> None:
    """Nodes are stopped and killed, sessions ended, connections cut."""
    with Histories(server, seed=COUNT) as histories:
        assert histories.run(COUNT) == []
        assert len(histories.calls) > COUNT / 2
        assert histories.counts["made"] > COUNT

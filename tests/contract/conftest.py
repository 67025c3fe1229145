# SPDX-License-Identifier: MIT
"""Databases that the contract suites share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core._internal.stores.postgresql.connection import read_location, run
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.protocols import ApprovalStore
from hsm_core.testing import FakeClock
from tests.core.approval_support import ROWS, ApprovalRow
from tests.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def cluster_database(postgresql: PostgreSQL) -> Iterator[ClusterDatabase]:
    """Give a database of a cluster that all tests share."""
    url = postgresql.url(postgresql.new_database())
    database = ClusterDatabase(read_location(url))
    yield database
    database.close()


@pytest.fixture
def empty_logs(cluster_database: ClusterDatabase) -> ClusterDatabase:
    """Give a database without audit logs."""
    with cluster_database.transaction() as connection:
        run(connection, "TRUNCATE logs, records, facts, baselines")
    return cluster_database


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that moves when it is told to."""
    return FakeClock()


@pytest.fixture(params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> ApprovalRow:
    """Give one implementation after the other."""
    found: ApprovalRow = request.param
    return found


@pytest.fixture
def store(row: ApprovalRow, tmp_path: Path) -> Iterator[ApprovalStore]:
    """Give an open, empty store."""
    opened = row.open(tmp_path)
    yield opened
    opened.close()

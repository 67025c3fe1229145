# SPDX-License-Identifier: MIT
"""Databases of clusters for tests that have no fixture for them."""

from __future__ import annotations

from pathlib import Path

from hsm_core._internal.stores.postgresql.connection import (
    Location,
    connect,
    read_location,
    run,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from tests.postgresql import shared_server

_folders: list[Path] = []


def location_of(folder: Path) -> Location:
    """
    Return where the database of a test's folder lies: empty when it is first asked for.

    All tests of a process have one database after the other. It is emptied in between,
    which costs less than to make one.
    """
    location = read_location(shared_server().url())
    if folder not in _folders:
        if _folders:
            _empty(location)
        _folders[:] = [folder]
    return location


def _empty(location: Location) -> None:
    connection = connect(location)
    found = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    kept = {"ferrohsm_schema", "changes", "cluster"}
    for table in {name for (name,) in found} - kept:
        run(connection, f"DELETE FROM {table}")  # noqa: S608 (our own names)
    connection.execute("DELETE FROM changes WHERE revision > 0")
    connection.execute(
        "UPDATE cluster SET revision = 0, head = "
        "(SELECT head FROM changes), set_digest = DEFAULT, mac = DEFAULT, "
        "approvals_digest = DEFAULT, trust_digest = DEFAULT, level = DEFAULT"
    )
    connection.close()


def database_of(folder: Path) -> ClusterDatabase:
    """Open the database of a test's folder."""
    return ClusterDatabase(location_of(folder))

# SPDX-License-Identifier: MIT
"""PostgreSQL that tests start."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgresql import PostgreSQL


@pytest.fixture
def own() -> Iterator[PostgreSQL]:
    """Give a server that this test may kill."""
    server = PostgreSQL.create(max_wal_senders="4")
    yield server
    server.remove()


def test_each_database_is_new(database: str, postgresql: PostgreSQL) -> None:
    """A table of one database is in no other."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE here (value integer)")
    other = postgresql.new_database()

    with psycopg.connect(postgresql.url(other)) as connection:
        found = connection.execute("SELECT to_regclass('here')").fetchone()
    assert (None,) == found


def test_a_killed_server_recovers_what_was_committed(own: PostgreSQL) -> None:
    """Fsync is on, so that nothing committed is lost by a kill."""
    own.execute("CREATE TABLE kept AS SELECT 7 AS value")
    own.kill()
    own.start()

    assert [(7,)] == own.execute("SELECT value FROM kept")
    assert [("on",)] == own.execute("SHOW fsync")


def test_a_promoted_replica_has_what_the_primary_acknowledged(own: PostgreSQL) -> None:
    """A synchronous replica has each commit before the primary answers."""
    replica = own.replica("second")
    try:
        own.configure({"synchronous_standby_names": "second"})
        own.reload()
        own.execute("CREATE TABLE kept AS SELECT 7 AS value")
        own.kill()
        replica.promote()

        assert [(7,)] == replica.execute("SELECT value FROM kept")
        replica.execute("INSERT INTO kept VALUES (8)")
    finally:
        replica.remove()

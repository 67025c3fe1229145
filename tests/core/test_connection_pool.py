# SPDX-License-Identifier: MIT
"""Pool of connections to a real server: what is lent comes back, or is closed."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.waiting import Ready, Wait

from hsm_core._internal.stores.postgresql.connection import connect, read_location
from hsm_core._internal.stores.postgresql.database import (
    ClusterDatabase,
    ConnectionPool,
)
from hsm_core._internal.stores.postgresql.driver import ServerConnection
from hsm_core.errors import StoreUnavailableError

PATIENCE = 60.0


@pytest.fixture
def pool(database: str) -> Iterator[ConnectionPool]:
    """Give a pool of one connection."""
    location = read_location(database)
    pool = ConnectionPool(lambda: connect(location), 1)
    yield pool
    pool.close()


def is_open(connection: ServerConnection) -> bool:
    """Return whether a connection is open."""
    return not connection.closed


def test_a_connection_is_lent_again(pool: ConnectionPool) -> None:
    """One that is in no transaction serves the next."""
    with pool.lent() as first:
        first.execute("SELECT 1")
    with pool.lent() as second:
        assert first is second


def test_a_transaction_that_was_left_is_nobodys(pool: ConnectionPool) -> None:
    """A connection that comes back in a transaction is closed."""
    with pool.lent() as first:
        first.execute("BEGIN")
    with pool.lent() as second:
        assert first is not second
        assert not is_open(first)


def test_an_interrupt_costs_no_connection(pool: ConnectionPool) -> None:
    """Whoever is interrupted before the block that uses a connection gives it back."""
    for _ in range(3):
        lent = pool.lent()
        lent.__enter__()
        del lent

    with pool.lent() as connection:
        assert is_open(connection)


def test_a_lost_wait_is_ended(pool: ConnectionPool) -> None:
    """What is waited for through a lost connection ends then, not later by Python."""

    def statement(connection: ServerConnection) -> Generator[Wait, Ready | int, None]:
        try:
            connection.abandon()
            yield Wait.R
        finally:
            raise psycopg.OperationalError("complaint")

    with (
        pytest.raises(psycopg.OperationalError, match="closed"),
        pool.lent() as connection,
    ):
        connection.wait(statement(connection))


def test_a_closed_pool_keeps_nothing(pool: ConnectionPool) -> None:
    """A connection that comes back while the pool is closed is closed, too."""
    with pool.lent() as connection:
        pool.close()
        assert is_open(connection)

    assert not is_open(connection)


def test_close_and_return_at_the_same_time(database: str) -> None:
    """Whichever comes first, the connection is closed in the end."""
    location = read_location(database)
    for _ in range(20):
        pool = ConnectionPool(lambda: connect(location), 1)
        connection = _closed_while_it_is_lent(pool)

        assert not is_open(connection)


def test_listings_leave_connections(database: str) -> None:
    """While keys are listed for long, others are served; more listings are refused."""
    opened = ClusterDatabase(read_location(database))

    def listing() -> str:
        try:
            opened.rows("SELECT pg_sleep(6)", patience=PATIENCE)
        except StoreUnavailableError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        listings = [pool.submit(listing) for _ in range(8)]
        while not all(each.done() for each in listings):
            assert (1,) == opened.row("SELECT 1")
        told = {each.result() for each in listings}
    opened.close()

    assert {"", "Too many keys are being listed. Try again."} == told


def _closed_while_it_is_lent(pool: ConnectionPool) -> ServerConnection:
    lent: list[ServerConnection] = []
    begins = threading.Barrier(2)

    def use() -> None:
        with pool.lent() as connection:
            lent.append(connection)
            begins.wait(PATIENCE)

    user = threading.Thread(target=use)
    user.start()
    begins.wait(PATIENCE)
    pool.close()
    user.join(PATIENCE)
    return lent[0]

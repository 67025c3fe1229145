# SPDX-License-Identifier: MIT
"""Stores in PostgreSQL: two nodes at once, schemas, servers and addresses."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hsm_core._internal.stores.postgresql import migrations
from hsm_core._internal.stores.postgresql.connection import connect, read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.migrations import steps
from hsm_core._internal.stores.postgresql.records import ClusterKeyStore
from hsm_core.errors import (
    ConfigurationError,
    ConflictError,
    HSMError,
    IntegrityError,
    StoreUnavailableError,
)
from hsm_core.protocols import KeyStore
from tests.core.cluster_nodes import sql, store_at
from tests.core.key_support import change_of, document_of, key_id_of, operation_of
from tests.postgresql import PostgreSQL

Pair = tuple[ClusterKeyStore, ClusterKeyStore]


@pytest.fixture
def pair(database: str) -> Iterator[Pair]:
    """Give two key stores over one database, as two nodes have them."""
    one, two = store_at(database), store_at(database)
    yield one, two
    one.close()
    two.close()


def create(store: KeyStore, number: int, **facts: object) -> None:
    """Commit a new key with one blob."""
    operation_id = operation_of(number)
    document = document_of(number, operations=(operation_id,), **facts)  # type: ignore[arg-type]
    store.commit(change_of(document, operation_id, blobs={1: b"blob-%d" % number}))


class TestTwoNodes:
    def test_abort_waits_for_the_operation(self, pair: Pair) -> None:
        """
        An abort mark waits for a transaction that has the operation id; one has it.
        """
        one, two = pair
        outcome: list[str] = []

        def abort() -> None:
            try:
                two.abort(operation_of(1))
                outcome.append("aborted")
            except ConflictError:
                outcome.append("committed")

        statement = "INSERT INTO operations (operation_id, key_id) VALUES ($1, $2)"
        with one.database.transaction() as connection:
            connection.execute(statement, (operation_of(1), key_id_of(1)))
            thread = threading.Thread(target=abort)
            thread.start()
            while not _waits(one.database):
                assert thread.is_alive()
        thread.join()

        assert ["committed"] == outcome

    def test_first_small_value_stays(self, pair: Pair) -> None:
        """
        Of two nodes that make the key ring the first one's is what both get.
        """
        one, two = pair

        assert b"first" == one.create_meta("ring", b"first")
        assert b"first" == two.create_meta("ring", b"second")


def _waits(database: ClusterDatabase) -> bool:
    statement = "SELECT 1 FROM pg_locks WHERE NOT granted"
    return bool(database.rows(statement))


class TestSchema:
    def test_many_at_once(self, database: str) -> None:
        """
        Of nodes that start at once one makes the tables, and all open them.
        """
        with ThreadPoolExecutor(6) as pool:
            stores = list(pool.map(store_at, [database] * 6))
        versions = stores[0].database.rows("SELECT version FROM ferrohsm_schema")
        for store in stores:
            store.close()

        assert [(n + 1,) for n in range(len(steps()))] == versions

    def test_newer(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        An older program uses what a newer one has migrated: migrations only add.
        """
        newer = [*steps(), "ALTER TABLE keys ADD COLUMN zone text"]
        with monkeypatch.context() as patch:
            patch.setattr(migrations, "steps", lambda: newer)
            store_at(database).close()

        store = store_at(database)
        versions = store.database.rows("SELECT max(version) FROM ferrohsm_schema")
        store.close()

        assert [(len(newer),)] == versions

    def test_dump(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A migration waits for a dump, and holds nobody else up meanwhile.
        """
        store_at(database).close()
        newer = [*steps(), "ALTER TABLE uses ADD COLUMN zone text"]
        monkeypatch.setattr(migrations, "steps", lambda: newer)
        dump, other = (connect(read_location(database)) for _ in range(2))
        with ThreadPoolExecutor(1) as pool:
            dump.execute("BEGIN")
            dump.execute("SELECT * FROM uses")
            migrating = pool.submit(store_at, database)
            for _ in range(8):
                other.execute("DELETE FROM uses")
                time.sleep(0.1)
            was_waiting = not migrating.done()
            dump.execute("COMMIT")
            migrating.result().close()
        for connection in (dump, other):
            connection.close()

        assert was_waiting

    def test_foreign(self, database: str) -> None:
        """
        A database with the tables of another program is refused, and left alone.
        """
        sql(database, "CREATE TABLE invoices (id integer)")

        with pytest.raises(ConfigurationError, match="'invoices'"):
            store_at(database)
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        assert [("invoices",)] == sql(database, tables)

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE VIEW other AS SELECT * FROM keys",
            "ALTER TABLE keys ENABLE ROW LEVEL SECURITY",
            "CREATE RULE hide AS ON DELETE TO blobs DO INSTEAD NOTHING",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER t BEFORE INSERT ON keys "
            "FOR EACH ROW EXECUTE FUNCTION f()",
            "CREATE TABLE more () INHERITS (keys)",
        ],
        ids=["view", "row-security", "rule", "trigger", "child"],
    )
    def test_active(self, database: str, statement: str) -> None:
        """
        Whatever runs code in the database, or hides rows of it, is refused.
        """
        store_at(database).close()
        sql(database, statement)

        with pytest.raises(IntegrityError, match="unknown views, triggers"):
            store_at(database)

    @pytest.mark.parametrize(
        "statement",
        [
            "DROP TABLE blobs",
            "ALTER TABLE keys DROP COLUMN claim",
            "ALTER TABLE keys ALTER COLUMN generation TYPE text",
            "ALTER TABLE uses ALTER COLUMN value DROP NOT NULL",
            "DROP INDEX keys_claim",
        ],
        ids=["table", "column", "type", "constraint", "index"],
    )
    def test_changed(self, database: str, statement: str) -> None:
        """
        A database whose tables were changed is refused before it is used.
        """
        store_at(database).close()
        sql(database, statement)

        with pytest.raises(IntegrityError, match="definitions were changed"):
            store_at(database)

    def test_a_table_goes(self, pair: Pair) -> None:
        """
        A table that disappears while it is used is damage, told as such.
        """
        with pair[0].database.transaction() as connection:
            connection.execute("DROP TABLE blobs")

        with pytest.raises(IntegrityError, match="damaged"):
            create(pair[1], 1)


class TestServer:
    @pytest.mark.parametrize("level", ["off", "local", "remote_write"])
    def test_level_below_on(self, database: str, level: str) -> None:
        """
        A session whose commits are not synced is refused.
        """
        with pytest.raises(ConfigurationError, match=f"synchronous_commit {level}"):
            store_at(f"{database}&options=-csynchronous_commit%3D{level}")

    def test_facts(self, pair: Pair) -> None:
        """
        What a server says of itself is known: its version, timeline and standby.
        """
        found = pair[0].database.server

        assert found.version >= 140000
        assert "00000001" == found.timeline
        assert not found.has_standby

    def test_no_schema(self, database: str) -> None:
        """
        A search path that leads to no schema is refused.
        """
        with pytest.raises(ConfigurationError, match="no schema"):
            store_at(f"{database}&options=-csearch_path%3Dnowhere")


SECRET = "g3h31m-and-more"


class TestAddress:
    def test_tls_is_the_rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The server's certificate is verified unless the address says otherwise.
        """
        monkeypatch.delenv("PGSSLMODE", raising=False)
        plain = read_location("postgresql://db.example/hsm").conninfo
        other = read_location("postgresql://db.example/hsm?sslmode=require").conninfo

        assert "sslmode=verify-full" in plain
        assert "target_session_attrs=read-write" in plain
        assert "sslmode=require" in other

    def test_tls_is_demanded(self) -> None:
        """
        A server that has no TLS is refused, but on its socket.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def refuse_tls() -> None:
                client = listener.accept()[0]
                client.recv(8)
                client.sendall(b"N")
                client.close()

            thread = threading.Thread(target=refuse_tls)
            thread.start()
            port = listener.getsockname()[1]
            location = read_location(f"postgresql://ferrohsm@127.0.0.1:{port}/x")
            with pytest.raises(StoreUnavailableError, match="does not support SSL"):
                connect(location)
            thread.join()

    def test_several_hosts(self, database: str, postgresql: PostgreSQL) -> None:
        """
        Of several hosts the one is found that accepts writes.
        """
        name = database.split("/t_")[1].partition("?")[0]
        url = (
            f"postgresql://ferrohsm@/t_{name}?host=/nowhere,{postgresql.folder}"
            f"&port=5432,{postgresql.port}"
        )
        store = store_at(url)
        create(store, 1)
        store.close()

    @pytest.mark.parametrize(
        "text",
        [
            "mysql://x",
            "postgresql://a:b:c@[::1/x",
            f"postgresql://u:{SECRET}@h/d?no=such",
            f"postgresql://u:{SECRET}%zz@h/d",
        ],
    )
    def test_wrong_address(self, text: str) -> None:
        """
        An address of another form is refused in one sentence, without its password.
        """
        with pytest.raises(ConfigurationError, match="store must be") as caught:
            read_location(text)

        assert SECRET not in "".join(traceback.format_exception(caught.value))

    def test_password_is_never_shown(self) -> None:
        """
        No message, repr or traceback has the password.
        """
        location = read_location("postgresql://u@127.0.0.1:1/d", password=SECRET)
        with pytest.raises(HSMError) as caught:
            ClusterDatabase(location)

        assert SECRET in location.conninfo
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET not in shown + repr(location) + str(location)

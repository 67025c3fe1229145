# SPDX-License-Identifier: MIT
"""Databases that vanish, hang, come back, and lose the answer to a COMMIT."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core._internal.lib import silence
from hsm_core._internal.stores.postgresql.connection import connect, read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.records import ClusterKeyStore
from hsm_core.errors import (
    ConflictError,
    OperationAbortedError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.cluster_nodes import store_at
from tests.core.key_support import change_of, document_of, key_id_of, operation_of
from tests.core.postgresql_proxy import CommitProxy, Cut
from tests.postgresql import PORT, PostgreSQL
from tests.self_tests import open_tested

_PATIENCE = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """Give a server that tests stop and start."""
    found = PostgreSQL.create()
    yield found
    found.remove()


@pytest.fixture
def store(server: PostgreSQL) -> Iterator[ClusterKeyStore]:
    """Give a key store in a new database of the server, with one key."""
    found = store_at(server.url(server.new_database()))
    create(found, 1)
    yield found
    found.close()


def create(store: ClusterKeyStore, number: int) -> None:
    """Commit a new key with one blob."""
    operation_id = operation_of(number)
    document = document_of(number, operations=(operation_id,))
    store.commit(change_of(document, operation_id, blobs={1: b"blob"}))


def eventually(work: Callable[[], object]) -> float:
    """Repeat something until it works, and return how many seconds that took."""
    began = time.monotonic()
    while True:
        try:
            work()
        except UnavailableError:
            assert time.monotonic() < began + _PATIENCE
            time.sleep(0.01)
        else:
            return time.monotonic() - began


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_gone_and_back(server: PostgreSQL, store: ClusterKeyStore, mode: str) -> None:
    """
    Without the database nothing works or is half-done; with it all does, by itself.
    """
    server.stop(mode)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError) as caught:
            store.get(key_id_of(1))
        assert str(caught.value) == "The database does not answer."
        with pytest.raises(StoreUnavailableError) as caught:
            create(store, 2)
        assert not isinstance(caught.value, OutcomeUnknownError)
    server.start()

    eventually(lambda: create(store, 2))

    assert {key_id_of(1), key_id_of(2)} == {found.key_id for found in store.scan()}


def test_back_without_durability(server: PostgreSQL, store: ClusterKeyStore) -> None:
    """
    A server that comes back with fsync off is not used until it is on again.
    """
    server.stop()
    server.configure({"fsync": "off"})
    server.start()
    try:
        with pytest.raises(StoreUnavailableError, match="no longer meets"):
            create(store, 2)
    finally:
        server.stop()
        server.configure({"fsync": "on"})
        server.start()

    eventually(lambda: create(store, 2))


def test_hsm_resumes(server: PostgreSQL, tmp_path: Path) -> None:
    """
    An HSM refuses uses and changes without its database, and resumes by itself.
    """
    url = server.url(server.new_database())
    settings = Settings(store=url, node_name="a", node_mark=tmp_path / "mark")
    with open_tested(settings) as hsm:
        session = Session(hsm.act_as(caller()))
        key_id = session.create_key("ed25519").key_id
        server.stop("immediate")
        for _ in range(2):
            with pytest.raises(UnavailableError):
                session.sign(key_id, b"message")
            with pytest.raises(UnavailableError):
                session.create_key("aes")
            with pytest.raises(StoreUnavailableError):
                list(session.keys())
        server.start()

        eventually(lambda: session.sign(key_id, b"message"))
        eventually(lambda: session.create_key("aes", name="after"))

        assert {"", "after"} == {found.name for found in session.keys()}
        assert () == hsm.act_as(caller()).execute(ops.VerifyStore()).findings
        hsm.act_as(caller()).execute(ops.VerifyAudit())


def test_sessions_ended(server: PostgreSQL, store: ClusterKeyStore) -> None:
    """
    Sessions that the server ended while they were idle are nobody's concern.
    """
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'ferrohsm%'"
    )

    assert store.get_blob(key_id_of(1), 1) == b"blob"
    create(store, 2)


def _backends(server: PostgreSQL) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_hanging(server: PostgreSQL, store: ClusterKeyStore) -> None:
    """
    A server that answers nothing holds nobody for long, and is used again afterwards.
    """
    processes = [*_backends(server), server.pid]
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError):
            store.get(key_id_of(1))
        with pytest.raises(StoreUnavailableError):
            create(store, 2)
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    eventually(lambda: create(store, 3))

    assert {key_id_of(1), key_id_of(3)} <= {found.key_id for found in store.scan()}


def test_all_waits_of_a_task(server: PostgreSQL) -> None:
    """
    A task that has waited for a silent database once connects to it no more.
    """
    with CommitProxy(server) as proxy:
        store = store_at(proxy.url(server.new_database()))
        create(store, 1)
        proxy.hangs = True
        with silence.task():
            with pytest.raises(StoreUnavailableError):
                store.get(key_id_of(1))
            tried = proxy.accepted
            for _ in range(5):
                with pytest.raises(StoreUnavailableError):
                    store.get(key_id_of(1))
            with pytest.raises(StoreUnavailableError) as caught:
                create(store, 2)

        assert proxy.accepted == tried
        assert not isinstance(caught.value, OutcomeUnknownError)
        proxy.hangs = False
        eventually(lambda: create(store, 2))
        store.close()


def test_slow_task(store: ClusterKeyStore) -> None:
    """
    A task that is slow for another reason has as much time as others.
    """
    with silence.task(began=time.monotonic() - 3600):
        create(store, 2)

        assert b"blob" == store.get_blob(key_id_of(2), 1)


def test_hsm_hangs(server: PostgreSQL, tmp_path: Path) -> None:
    """
    An HSM whose database swallows every byte refuses what it can't record, and resumes.
    """
    with CommitProxy(server) as proxy:
        settings = Settings(
            store=proxy.url(server.new_database()),
            node_name="a",
            node_mark=tmp_path / "mark",
        )
        with open_tested(settings) as hsm:
            session = Session(hsm.act_as(caller()))
            session.create_key("ed25519", name="signer")
            proxy.hangs = True
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    session.sign("signer", b"message")
                with pytest.raises(UnavailableError):
                    session.create_key("aes", name="lost")
                with pytest.raises(StoreUnavailableError):
                    list(session.keys())
            proxy.hangs = False

            eventually(lambda: session.sign("signer", b"message"))
            eventually(lambda: session.create_key("aes", name="after"))

            assert {"signer", "after"} == {found.name for found in session.keys()}
            assert () == hsm.act_as(caller()).execute(ops.VerifyStore()).findings
            hsm.act_as(caller()).execute(ops.VerifyAudit())


def test_silent_server(tmp_path: Path) -> None:
    """
    An attempt to connect that takes too long leaves no open connection.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / f".s.PGSQL.{PORT}"))
        listener.listen()
        address = f"postgresql://ferrohsm@/ferrohsm?host={tmp_path}&port={PORT}"
        with pytest.raises(StoreUnavailableError) as caught:
            connect(read_location(address, name="store"))
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(_PATIENCE)
            while peer.recv(4096):
                pass

    assert "can't be reached" in str(caught.value)


def test_locked_row(store: ClusterKeyStore) -> None:
    """
    A change that waits too long for another's lock is not made.
    """
    other = ClusterKeyStore(ClusterDatabase(store.database.location))
    with store.database.transaction() as connection:
        connection.execute("SELECT 1 FROM keys FOR UPDATE")
        document = document_of(1, generation=2, operations=(operation_of(5),))
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        with pytest.raises(StoreUnavailableError) as caught:
            other.commit(change_of(document, operation_of(5)))
    other.close()

    assert not isinstance(caught.value, OutcomeUnknownError)
    assert store.find_operation(operation_of(5)) is None


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_answer_is_lost(server: PostgreSQL, cut: Cut) -> None:
    """
    A COMMIT without an answer is settled by an abort mark: made or never, not twice.
    """
    with CommitProxy(server) as proxy:
        store = store_at(proxy.url(server.new_database()))
        proxy.cut = cut
        with pytest.raises(OutcomeUnknownError) as caught:
            create(store, 1)

        assert operation_of(1) == caught.value.facts["operation_id"]
        if cut is Cut.AFTER:
            with pytest.raises(ConflictError):
                store.abort(operation_of(1))
            assert b"blob" == store.get_blob(key_id_of(1), 1)
        else:
            store.abort(operation_of(1))
            with pytest.raises(OperationAbortedError):
                create(store, 1)
        store.close()


def test_commit_arrives_late(server: PostgreSQL) -> None:
    """
    A COMMIT that is still under way holds its abort mark back, and then has won.
    """
    with CommitProxy(server) as proxy:
        store = store_at(proxy.url(server.new_database()))
        proxy.cut = Cut.LATE
        with pytest.raises(OutcomeUnknownError):
            create(store, 1)
        assert store.find_operation(operation_of(1)) is None

        proxy.release.set()
        settled: list[str] = []

        def settle() -> None:
            try:
                store.abort(operation_of(1))
                settled.append("aborted")
            except ConflictError:
                settled.append("committed")

        eventually(settle)
        found = list(store.scan())
        store.close()

    assert [len(found)] == [int(settled == ["committed"])]


def _cancel_wait(server: PostgreSQL, stop: threading.Event) -> None:
    """Cancel a commit's wait for a standby, once one waits."""
    statement = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
        "WHERE wait_event = 'SyncRep' AND application_name LIKE 'ferrohsm%'"
    )
    while not stop.is_set() and not server.execute(statement):
        time.sleep(0.01)


def _set_standbys(server: PostgreSQL, names: str) -> None:
    """Name the synchronous standbys, and wait until new sessions know them."""
    server.configure({"synchronous_standby_names": names})
    server.reload()
    while server.execute("SHOW synchronous_standby_names") != [(names,)]:
        time.sleep(0.01)


def test_warning_at_commit(server: PostgreSQL, store: ClusterKeyStore) -> None:
    """
    A COMMIT whose wait for the standby is cancelled has an unknown outcome.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_cancel_wait, args=(server, stop))
    _set_standbys(server, "nobody")
    other = ClusterKeyStore(ClusterDatabase(store.database.location))
    thread.start()
    try:
        assert other.database.server.has_standby
        with pytest.raises(OutcomeUnknownError):
            create(other, 2)
    finally:
        stop.set()
        thread.join()
        other.close()
        _set_standbys(server, "")

    with pytest.raises(ConflictError):
        store.abort(operation_of(2))

# SPDX-License-Identifier: MIT
"""A database of a cluster that came back older: locked, named, and accepted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.cluster.mark import (
    LastSeen,
    OlderDatabase,
    SeenEnd,
    compare,
    is_older,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import before_recovery
from hsm_core.errors import (
    AuditUnavailableError,
    ConfigurationError,
    HSMLockedError,
    KeyTamperedError,
    UnavailableError,
)
from hsm_core.factory import OpenHSM
from hsm_core.model import MessageDetail
from hsm_core.operations import RecoverStore, Status, UpdateKey
from hsm_core.testing import caller
from tests.core.cluster_nodes import (
    die_at,
    events,
    node,
    open_node,
    session,
    sql,
    verify,
)
from tests.core.forked import was_killed
from tests.core.node_support import eventually
from tests.postgresql import PostgreSQL

IS_LONG = int(os.environ.get("FERROHSM_NODE_KILLS", "0")) > 10
"""Whether the session `node_kills` runs, whose tests start servers of their own."""


class Dump:
    """A database as it was, to be put back."""

    def __init__(self, server: PostgreSQL, url: str) -> None:
        self._server = server
        self._name = urlsplit(url).path.strip("/")
        self._kept = server.new_database(self._name)

    def restore(self) -> None:
        """Put it back."""
        self._server.execute(f"DROP DATABASE {self._name} WITH (FORCE)")
        self._server.execute(f"CREATE DATABASE {self._name} TEMPLATE {self._kept}")

    def drop(self) -> None:
        """Forget it."""
        self._server.execute(f"DROP DATABASE {self._kept}")


@pytest.fixture
def dump(postgresql: PostgreSQL, database: str) -> Iterator[Callable[[], Dump]]:
    """Give a function that keeps a copy of the database as it is now."""
    kept: list[Dump] = []

    def keep() -> Dump:
        kept.append(Dump(postgresql, database))
        return kept[-1]

    yield keep
    for each in kept:
        each.drop()


def create(database: str, folder: Path, name: str) -> None:
    """Let a node create a key, and stop."""
    with node(database, folder) as hsm:
        session(hsm).create_key("ed25519", name=name)


def locked(hsm: OpenHSM) -> str:
    """Return why an HSM is locked; it refuses every use."""
    reason = hsm.act_as(caller()).execute(Status()).store.locked
    if reason:
        with pytest.raises(HSMLockedError):
            session(hsm).sign("first", b"m")
    return reason


def mark_problem(hsm: OpenHSM) -> str:
    """Return what the status says of the last-seen mark."""
    return hsm.act_as(caller()).execute(Status()).cluster.mark_problem


def test_a_dump_that_is_restored(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    A node that has seen more locks itself, names it, and goes on once it is accepted.
    """
    create(database, tmp_path, "first")
    older = dump()
    create(database, tmp_path, "second")
    older.restore()

    with node(database, tmp_path) as hsm:
        assert "newest change is 1, and this node has seen change 2" in locked(hsm)
        hsm.act_as(caller()).execute(RecoverStore(reason="restored on purpose"))
        assert not locked(hsm)
        assert session(hsm).sign("first", b"m").signature
        (accepted,) = events(hsm, lambda e: e.kind == "system.database-accepted")
        assert isinstance(accepted.detail, MessageDetail)
        assert "restored on purpose. The database is" in accepted.detail.text
    with node(database, tmp_path) as hsm:
        assert not locked(hsm)
    assert {"a"} == verify(database).keys()


def create_and_die(database: str, folder: Path) -> None:
    """Open a node, and die while it creates a key."""
    hsm = open_node(database, folder, "gone")
    die_at("mutation.after_store", lambda: session(hsm).create_key("ed25519"))


def test_settling_beside_a_locked_node(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    A node that is locked leaves to another one what a dead node did not finish.
    """
    create(database, tmp_path, "first")
    assert was_killed(partial(create_and_die, database, tmp_path))
    older = dump()
    create(database, tmp_path, "second")
    older.restore()

    with node(database, tmp_path) as hsm, node(database, tmp_path, "b") as other:

        def settled() -> list[str]:
            return [e.code for e in events(other, lambda e: bool(e.intent_log))]

        assert locked(hsm)
        eventually(lambda: settled() == ["recovered-committed"])


def lose(
    database: str, folder: Path, dump: Callable[[], Dump], names: tuple[str, ...]
) -> None:
    """Let nodes work, and put back the database as it was before."""
    for name in names:
        with node(database, folder, name):
            pass
    older = dump()
    with ExitStack() as stack:
        nodes = [stack.enter_context(node(database, folder, name)) for name in names]
        for hsm in nodes:
            session(hsm).create_key("ed25519")
            session(hsm).sign("first", b"m")
    older.restore()


def refusal_of(hsm: OpenHSM) -> str:
    """Return why an HSM refuses a use."""
    with pytest.raises(UnavailableError) as caught:
        session(hsm).sign("first", b"m")
    return str(caught.value)


def until_open(hsm: OpenHSM) -> None:
    """Wait until a node is locked no more."""
    eventually(lambda: not lock_of(hsm))


def accepted(hsm: OpenHSM) -> list[str]:
    """Return what nodes recorded of older databases that were accepted."""
    found = events(hsm, lambda event: event.kind == "system.database-accepted")
    details = [event.detail for event in found]
    return [d.text for d in details if isinstance(d, MessageDetail)]


def test_one_recovery_for_all_nodes(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    What one node recovers the others go on with, and each records what it has lost.
    """
    create(database, tmp_path, "first")
    for number in (1, 2):
        lose(database, tmp_path, dump, ("a", "b", "c"))
        with ExitStack() as stack:
            nodes = [
                stack.enter_context(node(database, tmp_path, name)) for name in "abc"
            ]
            assert all(map(locked, nodes))
            nodes[1].act_as(caller()).execute(RecoverStore(reason="restored"))
            for hsm in nodes:
                until_open(hsm)
                assert session(hsm).sign("first", b"m").signature
            texts = accepted(nodes[0])
            assert 3 * number == len(texts)
            assert all("ended at record" in text for text in texts)
    assert {"a", "b", "c"} == verify(database).keys()


def test_a_recovery_at_start(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    A start that accepts a changed store records what was lost, too.
    """
    create(database, tmp_path, "first")
    lose(database, tmp_path, dump, ("a",))

    with node(database, tmp_path, accept_changed_store=True) as hsm:
        assert not locked(hsm)
        (text,) = accepted(hsm)
        assert "ended at record" in text
    with node(database, tmp_path) as hsm:
        assert not locked(hsm)


def test_losses_are_counted() -> None:
    """
    Of many logs that lost records some are named, and the others counted.
    """
    ends = {f"{number:032x}": SeenEnd(number, "00") for number in range(20)}
    losses = OlderDatabase("It is older.", {}, ends).losses

    assert 16 == losses.count("ended at record")
    assert losses.endswith("4 more audit logs lost records.")


def test_other_locks_are_not_taken_over() -> None:
    """
    What locks an HSM but its last-seen mark is for a person on that node to accept.
    """
    seen, own = LastSeen(9, b"h", {"log": SeenEnd(5, "00")}), SeenEnd(4, "00")
    older = [
        compare(seen, 8, lambda _: b"h", lambda *_: own),
        compare(seen, 9, lambda _: b"i", lambda *_: own),
        compare(seen, 9, lambda _: b"h", lambda *_: own),
    ]

    assert all(found is not None and is_older(found.facts) for found in older)
    assert not is_older({"reason": "trail_older", "key_id": "some"})
    assert not is_older({"reason": "trail_older", "approval_id": "some"})
    assert not is_older({"reason": "feed_older", "revision": 1, "applied": 2})


def test_a_recovery_ends_blocks_of_encryptions(database: str, tmp_path: Path) -> None:
    """
    A node that runs encrypts no more with a key once another node was recovered.
    """
    with node(database, tmp_path) as hsm:
        session(hsm).create_key("aes", name="first")
        session(hsm).encrypt("first", b"m")
        with node(database, tmp_path, "b") as other:
            other._services.inventory.lock.set("older", {})  # noqa: SLF001 (no other way)
            other.act_as(caller()).execute(RecoverStore(reason="restored"))

        with pytest.raises(KeyTamperedError, match=r"counter .* rotate"):
            session(hsm).encrypt("first", b"m")
        session(hsm).rotate("first")
        assert session(hsm).encrypt("first", b"m")


def test_an_earlier_recovery_counts_no_more(
    database: str,
    tmp_path: Path,
    dump: Callable[[], Dump],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A recovery that came back with an older database, or was altered, opens nothing.
    """
    create(database, tmp_path, "first")
    lose(database, tmp_path, dump, ("a", "b"))
    with node(database, tmp_path) as hsm:
        hsm.act_as(caller()).execute(RecoverStore(reason="restored"))
    with node(database, tmp_path, "b") as hsm:
        until_open(hsm)
    lose(database, tmp_path, dump, ("a", "b"))
    with node(database, tmp_path, "b") as hsm:
        feed = hsm._services.inventory.feed  # noqa: SLF001 (nobody else asks it)
        assert isinstance(feed, Changes)
        assert feed.find_recovery(0)
        seen = feed.newest_seen()
        assert not feed.find_recovery(seen)
        with monkeypatch.context() as patch:
            # A database that lies begins at another recovery than it was asked for.
            patch.setattr(
                "hsm_core._internal.cluster.changes.before_recovery",
                lambda connection, after: before_recovery(connection, 0),
            )
            assert not feed.find_recovery(seen)
        assert locked(hsm)
        sql(
            database,
            "UPDATE changes SET generation = generation + 1 WHERE kind = 'recovery'",
        )
        assert not feed.find_recovery(0)


def test_a_feed_that_was_lost_and_grew_again(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    Another node without a mark makes other changes; who has seen the first ones locks.
    """
    create(database, tmp_path, "first")
    older = dump()
    create(database, tmp_path, "second")
    older.restore()
    with node(database, tmp_path, "b") as hsm:
        session(hsm).create_key("ed25519", name="third")
        session(hsm).create_key("ed25519", name="fourth")

    with node(database, tmp_path) as hsm:
        assert "its change 2 differs from the one" in locked(hsm)


def test_a_node_that_runs(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    A node whose database comes back older under it says so to whoever asks it.
    """
    create(database, tmp_path, "first")
    older = dump()
    hsm = open_node(database, tmp_path)
    session(hsm).create_key("ed25519", name="second")
    older.restore()

    eventually(lambda: "reset in the database" in refusal_of(hsm))
    status = hsm.act_as(caller()).execute(Status())
    assert "reset in the database" in status.store.locked
    with pytest.raises(AuditUnavailableError, match=r"reset.*Restart"):
        hsm.act_as(caller()).execute(RecoverStore(reason="in place"))
    with pytest.raises(AuditUnavailableError):
        hsm.close()


def test_records_that_were_lost(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    A database that lacks nothing but records of uses is older, too.
    """
    create(database, tmp_path, "first")
    older = dump()
    with node(database, tmp_path) as hsm:
        for _ in range(20):
            session(hsm).sign("first", b"m")
    older.restore()

    with node(database, tmp_path) as hsm:
        assert "lacks record" in locked(hsm)


def test_the_mark_names_no_log_of_a_node_that_is_gone(
    database: str, tmp_path: Path, dump: Callable[[], Dump]
) -> None:
    """
    It is as long as there are nodes; records that such a node wrote are missed still.
    """

    def noted(hsm: OpenHSM) -> set[str]:
        cluster: Any = hsm._cluster  # noqa: SLF001 (no other way to look)
        return {*cluster.seen.mark.seen.logs}

    create(database, tmp_path, "first")
    older = dump()
    with node(database, tmp_path) as hsm:
        with node(database, tmp_path, "b") as other:
            session(other).sign("first", b"m")
            eventually(lambda: len(noted(hsm)) == 2)
        eventually(lambda: len(noted(hsm)) == 1)
    older.restore()

    with node(database, tmp_path) as hsm:
        assert "lacks record" in locked(hsm)


@pytest.mark.parametrize("has_mark", [True, False])
@pytest.mark.parametrize(
    "change", ["DELETE FROM fence", "UPDATE fence SET epoch = epoch - 2"]
)
def test_a_fence_that_is_older(
    database: str, tmp_path: Path, change: str, has_mark: bool
) -> None:
    """
    A node whose fence was removed or put back locks itself, and goes on above it.
    """
    with node(database, tmp_path):
        pass
    with node(database, tmp_path) as hsm:
        before = epoch_of(hsm)
    sql(database, change)
    if not has_mark:
        (tmp_path / "a.mark").unlink()
        sql(database, "DELETE FROM fence")

    with node(database, tmp_path) as hsm:
        assert "fence of this node was removed" in locked(hsm)
        hsm.act_as(caller()).execute(RecoverStore(reason="put back"))
        assert not locked(hsm)
        assert not has_mark or epoch_of(hsm) > before
    with node(database, tmp_path) as hsm:
        assert not locked(hsm)


def test_a_change_while_the_database_is_compared(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A database is not older because the node applies a change while it compares it.
    """
    compared: list[int] = []
    row = ClusterDatabase.row

    def signs(hsm: OpenHSM) -> bool:
        with suppress(UnavailableError):
            return bool(session(hsm).sign("first", b"m").signature)
        return False

    with node(database, tmp_path) as hsm, node(database, tmp_path, "b") as other:
        session(hsm).create_key("ed25519", name="first")
        cluster: Any = hsm._cluster  # noqa: SLF001 (no other way to look)

        def late(self: ClusterDatabase, statement: str, values: Any = ()) -> Any:
            found = row(self, statement, values)
            is_read = statement == "SELECT revision FROM cluster"
            if is_read and self is cluster.database and not compared:
                session(other).create_key("ed25519")
                cluster.view.changes.catch_up()
                compared.append(cluster.seen.mark.seen.revision)
            return found

        monkeypatch.setattr(ClusterDatabase, "row", late)
        sql(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() "
            "AND application_name LIKE 'ferrohsm a/%'",
        )
        eventually(lambda: bool(lock_of(hsm)) or (signs(hsm) and bool(compared)))

        assert not lock_of(hsm)
    assert compared[0] > 1


def test_a_fence_that_is_removed_under_a_node(database: str, tmp_path: Path) -> None:
    """
    A node that runs without its fence stops, and says why.
    """
    hsm = open_node(database, tmp_path)
    sql(database, "DELETE FROM fence")
    with pytest.raises(UnavailableError):
        session(hsm).create_key("aes")

    eventually(lambda: "fence of this node, a, was removed" in lock_of(hsm))
    with pytest.raises(AuditUnavailableError):
        hsm.close()


def test_a_counter_that_is_older(database: str, tmp_path: Path) -> None:
    """
    A node encrypts no more with a key whose counter is older than what it has seen.
    """
    with node(database, tmp_path) as hsm:
        key_id = session(hsm).create_key("aes", name="first").key_id
        session(hsm).encrypt("first", b"m")
        ((older,),) = sql(database, "SELECT value FROM uses")
        for _ in range(3):
            session(hsm).encrypt("first", bytes(600_000))
        sql(database, "UPDATE uses SET value = %s", older)
        hsm.act_as(caller()).execute(UpdateKey(key_id=key_id, owner="other"))

        with pytest.raises(KeyTamperedError, match=r"counter .* rotate"):
            session(hsm).encrypt("first", b"m")
        session(hsm).rotate("first")
        assert session(hsm).encrypt("first", b"m")


def test_a_counter_that_another_node_went_on_with(
    database: str, tmp_path: Path
) -> None:
    """
    A node notices an older counter by its own uses, though another has written since.
    """
    with node(database, tmp_path) as hsm:
        key_id = session(hsm).create_key("aes", name="first").key_id
        ((older,),) = sql(database, "SELECT value FROM uses")
        session(hsm).encrypt("first", b"m")
        sql(database, "UPDATE uses SET value = %s", older)
        with node(database, tmp_path, "b") as other:
            session(other).encrypt("first", b"m")
        hsm.act_as(caller()).execute(UpdateKey(key_id=key_id, owner="other"))

        with pytest.raises(KeyTamperedError, match=r"counter .* rotate"):
            session(hsm).encrypt("first", b"m")
        session(hsm).rotate("first")
        assert session(hsm).encrypt("first", b"m")


def epoch_of(hsm: OpenHSM) -> int:
    """Return the epoch of a node."""
    node: Any = hsm._cluster  # noqa: SLF001 (nobody shows it)
    return int(node.membership.epoch)


def test_a_mark_that_is_gone(database: str, tmp_path: Path) -> None:
    """
    A node whose mark is gone shows that, and one of another cluster does not start.
    """
    with node(database, tmp_path) as hsm:
        assert not mark_problem(hsm)
    mark = tmp_path / "a.mark"
    mark.unlink()
    with node(database, tmp_path) as hsm:
        assert "mark is missing" in mark_problem(hsm)
    content = bytearray(mark.read_bytes())
    content[4096 + 20] ^= 1
    content[4096 + 2**20 + 20] ^= 1
    mark.write_bytes(content)

    with (
        pytest.raises(ConfigurationError, match="move the file away"),
        node(database, tmp_path),
    ):
        pass


@pytest.mark.skipif(not IS_LONG, reason="part of the session `node_kills`")
def test_an_asynchronous_replica_that_is_promoted(tmp_path: Path) -> None:
    """
    A node that runs while a standby without the newest changes takes over locks itself.
    """
    primary = PostgreSQL.create(max_connections="40")
    try:
        name = primary.new_database()
        replica = primary.replica("late")
        try:
            url = (
                f"postgresql://ferrohsm@/{name}?host={primary.folder},{replica.folder}"
                f"&port={primary.port},{replica.port}"
            )
            hsm = open_node(url, tmp_path)
            session(hsm).create_key("ed25519", name="first")
            replica.stop("immediate")
            session(hsm).create_key("ed25519", name="second")
            primary.stop("immediate")
            replica.start()
            replica.promote()
            eventually(lambda: "older copy" in refusal_of(hsm))
            assert "recover the store" in refusal_of(hsm)
            with pytest.raises(AuditUnavailableError):
                hsm.close()

            with node(url, tmp_path) as again:
                assert "older copy" in locked(again)
                again.act_as(caller()).execute(RecoverStore(reason="promoted"))
                assert session(again).sign("first", b"m").signature
        finally:
            replica.remove()
    finally:
        primary.remove()


def lock_of(hsm: OpenHSM) -> str:
    """Return why an HSM is locked, which status shows once the log can be written."""
    return hsm._services.inventory.lock.reason  # noqa: SLF001 (it needs no log)

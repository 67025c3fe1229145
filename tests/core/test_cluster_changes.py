# SPDX-License-Identifier: MIT
"""Keys of a cluster: every node serves every key, and knows every change."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from hsm_core import operations as ops
from hsm_core._internal.cluster import changes
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.postgresql import feed
from hsm_core._internal.stores.postgresql.connection import TransactionConflictError
from hsm_core._internal.stores.postgresql.feed import CREDENTIAL, Change
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.errors import (
    AccessDeniedError,
    HSMError,
    IdempotencyConflictError,
    IntegrityError,
    KeyNotFoundError,
    KeyStateError,
    KeyTamperedError,
    NameTakenError,
    PreconditionFailedError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.model import Integrity, KeyId, KeyState
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.cluster_nodes import sql
from tests.core.node_support import PATIENCE, Node, eventually, is_locked, nodes_of
from tests.self_tests import open_tested

ED25519: Final = Algorithm.ED25519
STEPS: Final = int(os.environ.get("FERROHSM_CLUSTER_STEPS", "10"))
"""Number of changes of each thread in a storm; more of them in a long run."""


@pytest.fixture
def nodes(database: str) -> Iterator[list[Node]]:
    """Return two nodes of a new cluster."""
    with nodes_of(database) as opened:
        yield opened


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call functions at the same moment, and return results or errors of ours."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except HSMError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


class TestEveryNode:
    """What one node has done, all have."""

    def test_keys(self, nodes: list[Node]) -> None:
        """
        A key is used, changed and listed on the other node as on its own, at once.
        """
        a, b = (node.session for node in nodes)
        key = a.create_key(ED25519, name="release", tags=["x"])

        first = b.sign("release", b"text")
        b.update(key.key_id, name="shipping", tags=["y"])
        rotated = a.rotate("shipping")
        second = b.sign("shipping", b"text")

        assert (first.version, second.version) == (1, 2)
        assert 2 == a.verify("shipping", b"text", second.signature).version
        assert [key.key_id] == [row.key_id for row in b.keys(tags=["y"])]
        assert [] == list(a.keys(tags=["x"]))
        assert rotated.generation == b.describe(key.key_id).generation
        with pytest.raises(KeyNotFoundError):
            a.describe("release")

    def test_names(self, nodes: list[Node]) -> None:
        """
        A name is one key's, whichever node gave it, and free again on all of them.
        """
        a, b = (node.session for node in nodes)
        first = a.create_key(ED25519, name="one")
        b.create_key(ED25519, name="two")

        for session, name in ((a, "two"), (b, "one")):
            with pytest.raises(NameTakenError):
                session.create_key(ED25519, name=name)
        b.update(first.key_id, name="three")
        again = a.create_key(ED25519, name="one")

        assert again.key_id == b.describe("one").key_id
        assert first.key_id == a.describe("three").key_id

    def test_names_together(self, nodes: list[Node]) -> None:
        """
        Of two nodes that give one name at the same moment, one has it.
        """
        a, b = (node.session for node in nodes)
        for number in range(5):
            name = f"name-{number}"

            made = together(
                partial(a.create_key, ED25519, name=name),
                partial(b.create_key, ED25519, name=name),
            )

            kinds = sorted(type(found).__name__ for found in made)
            assert ["KeyInfo", "NameTakenError"] == kinds
            assert a.describe(name).key_id == b.describe(name).key_id

    def test_generations(self, nodes: list[Node]) -> None:
        """
        A change on condition of a generation is refused after one of another node.
        """
        a, b = (node.session for node in nodes)
        key = a.create_key(ED25519)
        b.update(key.key_id, description="of b")

        with pytest.raises(PreconditionFailedError):
            a.at_generation(key.generation).update(key.key_id, description="of a")

        assert "of b" == a.describe(key.key_id).description

    def test_opened_later(self, nodes: list[Node], database: str) -> None:
        """
        A node that joins later has all keys, and its changes are theirs.
        """
        key = nodes[0].session.create_key(ED25519, name="early")

        with nodes_of(database, 1) as (late,):
            late.session.suspend("early")
            assert not late.problems()

        with pytest.raises(KeyStateError):
            nodes[1].session.sign(key.key_id, b"text")

    def test_destroyed(self, nodes: list[Node]) -> None:
        """
        A key that was destroyed on one node is open on no other.
        """
        a, b = nodes
        key = a.session.create_key(ED25519)
        b.session.sign(key.key_id, b"text")
        assert b.inventory.materials.open_versions(key.key_id)

        a.session.destroy(key.key_id, waiting_days=0)

        eventually(lambda: b.changes.applied == a.changes.applied)
        assert not b.inventory.materials.open_versions(key.key_id)
        with pytest.raises(KeyStateError):
            b.session.sign(key.key_id, b"text")


FALSE_OPERATIONS = (
    "DELETE FROM operations",
    "UPDATE operations SET key_id = NULL, aborted = true",
    "UPDATE operations SET key_id = (SELECT min(key_id) FROM keys)",
    "UPDATE operations SET key_id = (SELECT max(key_id) FROM keys)",
)
"""Alter the list of operations behind the back of its nodes."""


class TestOnce:
    """An operation is done once, on whichever nodes it arrives."""

    def test_repeated(self, nodes: list[Node]) -> None:
        """
        A repetition on another node answers what the first did.
        """
        a, b = (node.session for node in nodes)

        first = a.create_key(ED25519, idempotency_key="one")

        assert first == b.create_key(ED25519, idempotency_key="one")
        with pytest.raises(IdempotencyConflictError):
            b.create_key(Algorithm.AES_256_GCM, idempotency_key="one")

    @pytest.mark.parametrize("edit", FALSE_OPERATIONS)
    def test_list_of_operations_altered(
        self, nodes: list[Node], database: str, edit: str
    ) -> None:
        """
        A repetition is answered by the key itself, whatever the list says of it.
        """
        a, b = (node.session for node in nodes)
        first = a.create_key(ED25519, idempotency_key="made")
        named = a.create_key(ED25519, name="named", idempotency_key="named")
        turned = a.rotate("named", idempotency_key="turned")
        sql(database, edit)

        assert first == b.create_key(ED25519, idempotency_key="made")
        assert (
            named.key_id
            == b.create_key(ED25519, name="named", idempotency_key="named").key_id
        )
        assert turned == b.rotate("named", idempotency_key="turned")
        assert 2 == b.describe("named").versions
        with pytest.raises(IdempotencyConflictError):
            b.rotate("named", staged=True, idempotency_key="turned")
        with pytest.raises(IdempotencyConflictError):
            b.create_key(Algorithm.AES_256_GCM, idempotency_key="made")

    def test_at_once(self, nodes: list[Node]) -> None:
        """
        Of repetitions at the same moment one is done, and all answer the same.
        """
        a, b = (node.session for node in nodes)
        key = a.create_key(ED25519)
        for number in range(5):
            word = f"word-{number}"

            made = together(
                partial(a.create_key, ED25519, name=word, idempotency_key=word),
                partial(b.create_key, ED25519, name=word, idempotency_key=word),
            )
            turned = together(
                partial(a.rotate, key.key_id, idempotency_key=word + "r"),
                partial(b.rotate, key.key_id, idempotency_key=word + "r"),
            )

            assert made[0] == made[1]
            assert turned[0] == turned[1]
            assert number + 2 == turned[0].version

    def test_conflicts(self, nodes: list[Node]) -> None:
        """
        Changes of one key on both nodes at the same moment are all made.
        """
        a, b = (node.session for node in nodes)
        key = a.create_key(ED25519)
        rotations = 4

        def rotate(session: Any) -> None:
            for _ in range(rotations):
                session.rotate(key.key_id)

        assert [None, None] == together(lambda: rotate(a), lambda: rotate(b))

        assert 1 + 2 * rotations == a.describe(key.key_id).version


class TestUnderTheLock:
    """What another node changed is seen before a change is committed."""

    def test_other_key(self, nodes: list[Node]) -> None:
        """
        A key is not exported under one that another node has suspended meanwhile.
        """
        a, b = (node.session for node in nodes)
        wrapping = a.create_key(
            Algorithm.AES_256_KW, usages=[KeyUsage.WRAP, KeyUsage.UNWRAP]
        )
        source = a.create_key(Algorithm.AES_256_GCM, exportable=True)
        wrapped = a.export_key(source.key_id, wrapping.key_id).wrapped
        before = b.status().keys

        def suspend(place: str) -> None:
            if place == "mutation.after_intent":
                with install(lambda _: None):
                    b.suspend(wrapping.key_id)

        with install(suspend), pytest.raises(KeyStateError):
            a.import_key(Algorithm.AES_256_GCM, wrapping.key_id, wrapped)

        assert before == b.status().keys

    def test_generation(self, nodes: list[Node], database: str) -> None:
        """
        A change of another node is not replaced, even if the index says that it is old.
        """
        a, b = nodes
        key = a.session.create_key(ED25519)
        sql(database, "CREATE TABLE old AS SELECT * FROM keys")
        a.changes.close()
        waiting = [b.session.suspend]

        def suspend(place: str) -> None:
            if place == "mutation.after_intent" and waiting:
                with install(lambda _: None):
                    waiting.pop()(key.key_id)
                sql(
                    database,
                    "UPDATE keys SET generation = old.generation, state = old.state, "
                    "operations = old.operations, digest = old.digest FROM old",
                )

        with install(suspend):
            updated = a.session.update(key.key_id, tags=["x"])

        assert (3, KeyState.SUSPENDED) == (updated.generation, updated.state)
        with nodes_of(database, 1) as (late,):
            assert late.inventory.set_digest == a.inventory.set_digest
            assert not late.problems()

    def test_name(self, nodes: list[Node], database: str) -> None:
        """
        A name that another node has given is refused, even if the index lacks it.
        """
        a, b = (node.session for node in nodes)
        key = b.create_key(ED25519)

        def give(place: str) -> None:
            if place == "mutation.after_intent":
                with install(lambda _: None):
                    b.update(key.key_id, name="release")
                sql(database, "UPDATE keys SET claim = NULL")

        with install(give), pytest.raises(NameTakenError):
            a.create_key(ED25519, name="release")

        assert key.key_id == b.describe("release").key_id

    def test_index(self, nodes: list[Node], database: str) -> None:
        """
        A correction of the index does not wait for a change that waits for it.
        """
        a, b = nodes
        key = a.session.create_key(ED25519)
        assert () == b.problems()
        sql(database, "DELETE FROM operations")
        refused: list[HSMError] = []

        def correct() -> None:
            try:
                b.problems()
            except HSMError as error:
                refused.append(error)

        corrector = threading.Thread(target=correct)

        def begin(place: str) -> None:
            if place == "store.before_blobs":
                corrector.start()
                corrector.join(0.5)

        with install(begin):
            a.session.update(key.key_id, tags=["x"])
        corrector.join()

        # The database tells of a conflict a second after both have begun to wait.
        assert not [e for e in refused if isinstance(e, TransactionConflictError)]
        assert ((), ()) == (a.problems(), b.problems())

    def test_check(self, nodes: list[Node]) -> None:
        """
        A check of all keys does not wait for a change.
        """
        a, b = nodes
        key = a.session.create_key(ED25519)
        assert () == b.problems()
        found = []

        def check(place: str) -> None:
            if place == "store.before_blobs":
                found.append(b.problems())

        with install(check):
            a.session.update(key.key_id, tags=["x"])

        assert [()] == found

    def test_credential(self, nodes: list[Node]) -> None:
        """
        A change is refused if its caller was withdrawn on another node meanwhile.
        """
        a, b = nodes
        withdrawn: list[str] = []
        a.changes.on_change(CREDENTIAL, lambda change: withdrawn.append(change.subject))

        def check() -> None:
            if "mallory" in withdrawn:
                raise AccessDeniedError("The token was withdrawn.")

        def withdraw(place: str) -> None:
            if place == "mutation.after_intent":
                b.changes.publish(Change(CREDENTIAL, "mallory"))

        with install(withdraw), pytest.raises(AccessDeniedError):
            a.execute(ops.CreateKey(algorithm=ED25519, name="late"), check)

        with pytest.raises(KeyNotFoundError):
            b.session.describe("late")


class TestFeed:
    """A database that lies about its changes is noticed by the nodes."""

    def test_older(self, nodes: list[Node], database: str) -> None:
        """
        Nodes lock themselves when the last changes are gone.
        """
        nodes[0].session.create_key(ED25519)
        sql(
            database,
            "UPDATE cluster SET revision = 0, head = (SELECT head FROM changes "
            "WHERE revision = 0)",
        )

        eventually(lambda: all(map(is_locked, nodes)))

    @pytest.mark.parametrize(
        "edit",
        [
            "UPDATE cluster SET set_digest = approvals_digest",
            "UPDATE cluster SET mac = set_digest",
            "UPDATE cluster SET revision = revision + 1",
            "UPDATE changes SET digest = before; "
            "UPDATE cluster SET revision = revision",
        ],
    )
    def test_altered(self, database: str, edit: str) -> None:
        """
        A node that has not followed yet finds what was altered.
        """
        with nodes_of(database, 1) as (first,):
            first.changes.close()
            with nodes_of(database, 1) as (other,):
                other.session.create_key(ED25519)
            sql(database, edit)

            with pytest.raises(HSMError):
                first.changes.catch_up()

            assert is_locked(first)

    def test_altered_column(self, nodes: list[Node], database: str) -> None:
        """
        A column of another type refuses changes, and nodes follow when it is undone.
        """
        a, b = nodes
        retype = "ALTER TABLE cluster ALTER COLUMN mac TYPE {} USING {}(mac, 'hex')"
        sql(database, retype.format("text", "encode"))
        with pytest.raises(IntegrityError, match="altered"):
            a.changes.catch_up()
        with pytest.raises(HSMError):
            a.session.create_key(ED25519)
        sql(database, retype.format("bytea", "decode"))
        made = b.session.create_key(ED25519)

        revision = b.changes.applied.revision
        eventually(lambda: a.changes.applied.revision == revision)
        assert made.key_id == a.session.describe(made.key_id).key_id

    @pytest.mark.parametrize(
        "edit",
        [
            "UPDATE keys SET digest = repeat('0', 64)",
            "UPDATE keys SET document = document || '\\x00'",
            "UPDATE keys SET generation = 0",
            "UPDATE keys SET generation = 7",
        ],
    )
    def test_altered_key(self, nodes: list[Node], database: str, edit: str) -> None:
        """
        A change of a key replaces what was altered of it, and the feed has none of it.
        """
        a, b = nodes
        key = a.session.create_key(ED25519)
        sql(database, edit)

        a.session.update(key.key_id, tags=["x"])

        with nodes_of(database, 1) as (late,):
            for node in (late, b):
                assert {"x"} == set(node.session.describe(key.key_id).tags)
                assert not node.problems()

    @pytest.mark.parametrize(
        "edit",
        [
            "UPDATE keys SET digest = repeat('0', 64)",
            "UPDATE keys SET digest = NULL",
            "UPDATE keys SET generation = 1",
            "UPDATE keys SET generation = 7",
            "UPDATE keys SET tags = '{}'",
            "UPDATE keys SET created_at = NULL",
        ],
    )
    def test_altered_row(self, nodes: list[Node], database: str, edit: str) -> None:
        """
        A key whose row was altered is named and goes on, and the feed has none of it.
        """
        a, b = nodes
        key_id = a.session.create_key(ED25519).key_id
        b.session.sign(key_id, b"text")
        a.session.update(key_id, tags=["x"])
        eventually(lambda: b.changes.applied == a.changes.applied)
        sql(database, edit)

        eventually(lambda: _is_served(b.session, key_id))
        recovered = b.execute(ops.RecoverKey(key_id=key_id, reason="altered"))

        assert () == recovered.accepted
        assert ["index"] == [found.problem for found in b.problems()]
        with nodes_of(database, 1) as (late,):
            assert {"x"} == set(late.session.describe(key_id).tags)
            assert not late.problems()

    def test_removed_row(self, nodes: list[Node], database: str) -> None:
        """
        A key whose row is removed is called absent by no node.
        """
        key = nodes[0].session.create_key(ED25519)
        nodes[1].session.sign(key.key_id, b"text")
        sql(database, "DELETE FROM keys")

        eventually(lambda: _is_tampered(nodes[1].session, key.key_id))

    def test_far_behind(
        self, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Of two threads that are far behind, neither takes the other's state for older.
        """
        a, b = nodes
        a.changes.close()
        monkeypatch.setattr(feed, "MOST_CHANGES", 1)
        for _ in range(3):
            b.session.create_key(ED25519)
        thread = threading.Thread(target=a.session.create_key, args=[ED25519])
        read, waiting = feed.read_account, [thread]

        def overtaken(connection: Any) -> Any:
            found = read(connection)
            if waiting:
                waiting.pop().start()
                # It gets ahead, or waits.
                thread.join(0.5)
            return found

        monkeypatch.setattr(changes, "read_account", overtaken)
        a.changes.catch_up()
        thread.join(PATIENCE)

        assert not is_locked(a)
        assert 4 == len(list(a.session.keys()))

    def test_grown_again(self, database: str) -> None:
        """
        A feed that was lost and grew again is another one, though it is longer.
        """
        with nodes_of(database, 1) as (first,):
            sql(database, "CREATE TABLE old AS SELECT * FROM cluster")
            first.changes.publish(Change(CREDENTIAL, "lost"))
            first.changes.close()
            sql(
                database,
                "DELETE FROM changes WHERE revision > 0; DELETE FROM cluster; "
                "INSERT INTO cluster SELECT * FROM old",
            )

            with nodes_of(database, 1) as (other,):
                for number in range(3):
                    other.changes.publish(Change(CREDENTIAL, f"other-{number}"))

            with pytest.raises(HSMError):
                first.changes.catch_up()

            assert is_locked(first)

    def test_old_document(self, nodes: list[Node], database: str) -> None:
        """
        A node does not take the old document of a key that another node has changed.

        Once it is accepted on one node, every node takes it.
        """
        a, b = nodes
        key = a.session.create_key(ED25519)
        sql(database, "CREATE TABLE old AS SELECT * FROM keys")
        a.session.suspend(key.key_id)
        eventually(lambda: b.changes.applied == a.changes.applied)

        sql(
            database,
            "UPDATE keys SET document = old.document, generation = old.generation, "
            "digest = old.digest, state = old.state, operations = old.operations "
            "FROM old WHERE keys.key_id = old.key_id",
        )

        with pytest.raises((KeyTamperedError, StoreUnavailableError)):
            b.session.sign(key.key_id, b"text")
        eventually(lambda: "older" in [found.problem for found in b.problems()])
        with pytest.raises(KeyTamperedError):
            b.session.sign(key.key_id, b"text")

        done = b.execute(ops.RecoverKey(key_id=key.key_id, reason="restored"))

        assert (key.key_id,) == done.accepted
        assert 1 == b.session.sign(key.key_id, b"text").version
        assert 1 == a.session.sign(key.key_id, b"text").version
        turned = a.session.rotate(key.key_id)
        assert turned.generation == b.session.describe(key.key_id).generation
        with nodes_of(database, 1) as (late,):
            assert not late.problems()
            assert late.inventory.set_digest == a.inventory.set_digest

    def test_recovered(self, nodes: list[Node], database: str) -> None:
        """
        A database that became older is accepted by a recovery, and by those that join.
        """
        a, b = nodes
        b.changes.close()
        key = a.session.create_key(ED25519)
        sql(
            database,
            "CREATE TABLE old_keys AS SELECT * FROM keys; "
            "CREATE TABLE old_cluster AS SELECT * FROM cluster; "
            "CREATE TABLE old_account AS SELECT * FROM account; "
            "CREATE TABLE old_meta AS SELECT * FROM meta",
        )
        a.session.suspend(key.key_id)
        sql(
            database,
            "DELETE FROM changes WHERE revision > 1; "
            "UPDATE keys SET document = old_keys.document, state = old_keys.state, "
            "generation = old_keys.generation, digest = old_keys.digest, "
            "operations = old_keys.operations "
            "FROM old_keys WHERE keys.key_id = old_keys.key_id; "
            "DELETE FROM cluster; INSERT INTO cluster SELECT * FROM old_cluster; "
            "DELETE FROM account; INSERT INTO account SELECT * FROM old_account; "
            "DELETE FROM meta; INSERT INTO meta SELECT * FROM old_meta",
        )
        eventually(lambda: is_locked(a))

        a.execute(ops.RecoverStore(reason="restored"))

        assert 1 == a.session.sign(key.key_id, b"text").version
        with nodes_of(database, 1) as (late,):
            assert not late.problems()
            late.session.rotate(key.key_id)
            a.changes.catch_up()
            assert 2 == a.session.sign(key.key_id, b"text").version

    def test_read_before_recovery(self, nodes: list[Node]) -> None:
        """
        What a thread read before a recovery does not lock its node after it.
        """
        a: Any = nodes[0]
        a.changes.close()
        key = a.session.create_key(ED25519)
        with a.changes._database.reading() as connection:  # noqa: SLF001 (to be slow)
            older = feed.read_feed(connection, a.changes.applied.revision)
            a.session.suspend(key.key_id)
            start = a.changes.applied
            a.changes.recover(lambda known: known)

            newer = feed.read_feed(connection, start.revision)
            lost = start._replace(head=bytes(32))
            for begun, reading in [(start, older), (lost, newer)]:
                with pytest.raises(StoreUnavailableError):
                    a.changes._take(connection, begun, reading)  # noqa: SLF001

        a.session.resume(key.key_id)
        assert 1 == a.session.sign(key.key_id, b"text").version


def test_destroyed_key_comes_back(database: str, tmp_path: Path) -> None:
    """
    A key that one node destroyed is accepted by no other, though the database has it.
    """
    with ExitStack() as stack:
        first, other = (
            stack.enter_context(open_tested(_settings(database, name, tmp_path)))
            for name in ("a", "b")
        )
        a, b = (Session(hsm.act_as(caller())) for hsm in (first, other))
        key = a.create_key(ED25519)
        sql(
            database,
            "CREATE TABLE old AS SELECT * FROM keys; "
            "CREATE TABLE old_blobs AS SELECT * FROM blobs",
        )
        a.destroy(key.key_id, waiting_days=0)
        sql(
            database,
            "UPDATE keys SET document = old.document, generation = old.generation, "
            "digest = old.digest, state = old.state, operations = old.operations "
            "FROM old WHERE keys.key_id = old.key_id; "
            "INSERT INTO blobs SELECT * FROM old_blobs",
        )
        eventually(lambda: _is_tampered(b, key.key_id))

        done = other.act_as(caller()).execute(
            ops.RecoverKey(key_id=key.key_id, reason="restored")
        )

        assert ((), (key.key_id,)) == (done.accepted, done.left)
        with pytest.raises(KeyTamperedError):
            b.sign(key.key_id, b"text")


def _is_tampered(session: Session, key_id: str) -> bool:
    try:
        session.sign(key_id, b"text")
    except KeyTamperedError:
        return True
    except StoreUnavailableError:
        pass  # It is being compared.
    return False


def _is_served(session: Session, key_id: str) -> bool:
    try:
        return session.describe(key_id).integrity is Integrity.OK
    except StoreUnavailableError:
        return False  # It is being compared.


def _settings(url: str, name: str, folder: Path) -> Settings:
    return Settings(store=url, node_name=name, node_mark=folder / name)


def test_destroyed_between_two_looks(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A node that looks for a name while another destroys its key does not put it back.
    """
    first, second = nodes
    made = first.session.create_key(ED25519, name="release")
    first.session.revoke(made.key_id)
    second.session.describe(made.key_id)
    look = second.inventory.store.entry
    looked: list[object] = []

    def entry(reference: str) -> Any:
        if reference == "release" and not looked:
            looked.append(first.session.destroy(made.key_id))
        return look(reference)

    monkeypatch.setattr(second.inventory.store, "entry", entry)
    with pytest.raises(KeyStateError):
        second.session.destroy(made.key_id)
    assert looked
    for node in nodes:
        assert KeyState.DESTROYED is node.session.describe(made.key_id).state
        assert () == node.problems()


def test_storm(database: str) -> None:
    """
    After many changes on all nodes, all have the same keys and the same set digest.
    """
    with nodes_of(database, 3) as nodes:
        keys = [nodes[0].session.create_key(ED25519).key_id for _ in range(3)]
        done = together(
            *(
                partial(_change, node, keys, random.Random(seed))
                for seed, node in enumerate([*nodes, *nodes])
            )
        )

        refused = [error for errors in done for error in errors]
        # A slow machine may make the database slow, too.
        expected = NameTakenError, UnavailableError
        assert not [error for error in refused if not isinstance(error, expected)]
        assert len(refused) < 3 * STEPS
        for node in nodes:
            node.changes.catch_up()
        assert 1 == len({node.inventory.set_digest for node in nodes})
        assert 1 == len({node.changes.applied for node in nodes})
        assert not [problem for node in nodes for problem in node.problems()]
        assert 1 == len({tuple(node.session.keys()) for node in nodes})
    with nodes_of(database, 1) as (late,):
        assert not late.problems()


def _change(node: Node, keys: list[KeyId], choice: random.Random) -> list[HSMError]:
    """Make random changes; return what was refused."""
    session, refused = node.session, []
    for _ in range(STEPS):
        name = f"name-{choice.randrange(4)}"
        key_id = choice.choice(keys)
        kind = choice.randrange(4)
        try:
            if kind == 0:
                keys.append(session.create_key(ED25519).key_id)
            elif kind == 1:
                session.rotate(key_id)
            elif kind == 2:
                session.update(key_id, name=name)
            else:
                session.update(key_id, tags=[name])
            session.sign(key_id, b"text")
        except HSMError as error:
            refused.append(error)
    return refused

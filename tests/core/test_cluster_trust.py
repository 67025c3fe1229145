# SPDX-License-Identifier: MIT
"""What one node's files no longer trust, no node accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from hsm_core._internal.stores.postgresql.feed import read_feed
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    HSMLockedError,
    InvalidInputError,
    StoreUnavailableError,
)
from hsm_core.factory import OpenHSM
from hsm_core.model import Role
from hsm_core.operations import (
    ExplainPolicy,
    Operation,
    RecoverStore,
    RetireNode,
    RotateKey,
    ShowPolicy,
    Sign,
)
from hsm_core.protocols import AuditLog, SharedTrust
from hsm_core.testing import caller
from tests.core.cluster_nodes import events, node, open_node, session, sql
from tests.core.node_child import execute_as
from tests.core.node_support import eventually
from tests.core.test_cluster_changes import together
from tests.core.test_cluster_revocations import Child
from tests.core.test_known_people import shown

ANN, BOB, SPARE = "ab" * 32, "cd" * 32, "ef" * 32
People: TypeAlias = Callable[..., AbstractContextManager[OpenHSM]]
KIND: Final = "token keys"
FIRST, SECOND, THIRD = {"one", "two"}, {"two"}, {"one", "three"}


def policy_of(**people: str) -> str:
    """Return a policy that names people by their certificates."""
    rows = [
        f"  - {{principal: {name}, roles: [Operator], certificates: [{shown}]}}\n"
        for name, shown in people.items()
    ]
    return "version: 1\nextends: default\nidentities:\n" + "".join(rows)


def write_policy(path: Path, **people: str) -> None:
    """Write a policy file of its owner alone."""
    path.write_text(policy_of(**people))
    path.chmod(0o600)


def trust_of(hsm: OpenHSM) -> SharedTrust:
    """Return what no node accepts, as a node knows it."""
    assert hsm.trust is not None
    return hsm.trust


@pytest.fixture
def nodes(database: str, tmp_path: Path) -> Iterator[list[OpenHSM]]:
    """Return two nodes of a new cluster, which name nothing yet."""
    with node(database, tmp_path, "a") as a, node(database, tmp_path, "b") as b:
        yield [a, b]


class TestNames:
    """Names that files stop to name are withdrawn, on all nodes."""

    def test_withdrawn(self, nodes: list[OpenHSM]) -> None:
        """
        A name that one node's files stop to name is withdrawn, and recorded once.
        """
        a, b = map(trust_of, nodes)
        for trust in (a, b):
            trust.declare(KIND, trusted=FIRST)
        assert not a.withdrawn(KIND, FIRST)

        a.declare(KIND, trusted=SECOND)

        assert {"one"} == a.withdrawn(KIND, FIRST)
        eventually(lambda: {"one"} == b.withdrawn(KIND, FIRST))
        assert not b.withdrawn("people", FIRST)
        found = events(nodes[0], lambda event: event.kind == "system.trust-changed")
        texts = [event.detail.text for event in found]  # type: ignore[union-attr]
        assert [f"{KIND}: 1 withdrawn, 0 restored"] == texts

    def test_revoked(self, nodes: list[OpenHSM]) -> None:
        """
        A name that files revoke is withdrawn until they no longer do.
        """
        a, b = map(trust_of, nodes)
        for trust in (a, b):
            trust.declare("certificates", revoked={"7"})
        a.declare("certificates", revoked={"7", "8"})
        b.declare("certificates", revoked={"8"})
        eventually(lambda: {"7", "8"} == b.withdrawn("certificates", {"7", "8", "9"}))

        a.declare("certificates", revoked={"8"})

        eventually(lambda: {"8"} == b.withdrawn("certificates", {"7", "8", "9"}))

    def test_restored(self, nodes: list[OpenHSM]) -> None:
        """
        Files that name it again restore it, unless they are older ones that come late.
        """
        a, b = map(trust_of, nodes)
        b.declare(KIND, trusted={"two", "four"})
        a.declare(KIND, trusted=FIRST)
        a.declare(KIND, trusted=SECOND)
        assert {"one"} == a.withdrawn(KIND, FIRST)

        # What a had before comes to b, which has withdrawn nothing of it.
        b.declare(KIND, trusted=FIRST)
        assert {"one"} == b.withdrawn(KIND, FIRST)
        b.declare(KIND, trusted=THIRD)
        b.declare(KIND, trusted={"three", "one", "two"})
        assert {"one"} == b.withdrawn(KIND, FIRST)

        # The operator of a takes it back, or a file is new.
        a.declare(KIND, trusted=FIRST)
        assert not a.withdrawn(KIND, FIRST)
        a.declare(KIND, trusted=SECOND)
        a.declare(KIND, trusted={"one", "two", "five"})
        assert not a.withdrawn(KIND, FIRST)

    def test_at_once(self, nodes: list[OpenHSM]) -> None:
        """
        Of two nodes that withdraw at the same moment neither undoes the other.
        """
        a, b = map(trust_of, nodes)
        for trust in (a, b):
            trust.declare(KIND, trusted={"one", "two", "three"})

        together(
            lambda: a.declare(KIND, trusted={"one", "two"}),
            lambda: b.declare(KIND, trusted={"two", "three"}),
        )

        for trust in (a, b):
            eventually(
                lambda trust=trust: (  # type: ignore[misc]
                    {"one", "three"} == trust.withdrawn(KIND, {"one", "two", "three"})
                )
            )

    def test_without_database(self, nodes: list[OpenHSM], database: str) -> None:
        """
        What can't be withdrawn on all nodes is when it is declared again.
        """
        a, b = map(trust_of, nodes)
        a.declare(KIND, trusted=FIRST)
        sql(database, "ALTER TABLE trust RENAME TO elsewhere")
        with pytest.raises(HSMError):
            a.declare(KIND, trusted=SECOND)
        assert not a.withdrawn(KIND, FIRST)

        sql(database, "ALTER TABLE elsewhere RENAME TO trust")
        a.declare(KIND, trusted=SECOND)

        eventually(lambda: {"one"} == b.withdrawn(KIND, FIRST))
        # Closed before it heals, an audit log fails.
        eventually(lambda: {"ok"} == {audit_of(hsm).health.state for hsm in nodes})

    def test_unknown_outcome(
        self, nodes: list[OpenHSM], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        What may have been withdrawn is recorded, or taken back with the file.
        """
        a = trust_of(nodes[0])

        def lose(*names: str) -> None:
            """Declare names, and lose the answer of the commit."""
            with monkeypatch.context() as patch:
                patch.setattr(feed_of(nodes[0]), "committed", answer_lost)
                with pytest.raises(StoreUnavailableError):
                    a.declare(KIND, trusted=names)

        a.declare(KIND, trusted=FIRST)
        lose("two")
        a.declare(KIND, trusted=FIRST)
        eventually(lambda: not a.withdrawn(KIND, FIRST))

        lose("one")
        a.declare(KIND, trusted={"one"})
        assert {"two"} == a.withdrawn(KIND, FIRST)
        found = events(nodes[0], lambda event: event.kind == "system.trust-changed")
        texts = [event.detail.text for event in found]  # type: ignore[union-attr]
        told = ["0 withdrawn, 1 restored", "1 withdrawn, 0 restored"]
        assert [f"{KIND}: {text}" for text in told] == texts

    def test_unknown_outcome_at_a_start(
        self, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        What was withdrawn while the node was down is recorded, even at a second try.
        """
        with node(database, tmp_path, "a") as hsm:
            trust_of(hsm).declare(KIND, trusted=FIRST)
        with node(database, tmp_path, "a") as hsm:
            with monkeypatch.context() as patch:
                patch.setattr(feed_of(hsm), "committed", answer_lost)
                with pytest.raises(StoreUnavailableError):
                    trust_of(hsm).declare(KIND, trusted=SECOND)
            trust_of(hsm).declare(KIND, trusted=SECOND)

            assert {"one"} == trust_of(hsm).withdrawn(KIND, FIRST)
            found = events(hsm, lambda event: event.kind == "system.trust-changed")
            texts = [event.detail.text for event in found]  # type: ignore[union-attr]
            assert [f"{KIND}: 1 withdrawn, 0 restored"] == texts

    def test_read_at_once(self, nodes: list[OpenHSM]) -> None:
        """
        A document that another thread takes while one reads the next locks nothing.
        """
        a, b = map(trust_of, nodes)
        feed: Any = feed_of(nodes[0])
        feed.close()
        b.declare("certificates", revoked={"7"})
        feed.catch_up()
        start = feed.applied
        known = feed._trust.digest  # noqa: SLF001 (no other way to pause a thread)

        b.declare("certificates", revoked={"7", "8"})
        with feed._database.reading() as connection:  # noqa: SLF001
            first = read_feed(connection, start.revision, known)
            b.declare("certificates", revoked={"7"})
            second = read_feed(connection, start.revision, known)
            feed._take(connection, start, first)  # noqa: SLF001
            feed._take(connection, start, second)  # noqa: SLF001

        assert {"7"} == a.withdrawn("certificates", {"7", "8"})


def audit_of(hsm: OpenHSM) -> AuditLog:
    """Return the audit log of a node."""
    return hsm._services.audit  # noqa: SLF001 (to see whether it is written)


def feed_of(hsm: OpenHSM) -> Any:
    """Return the feed of a node."""
    services: Any = hsm._services  # noqa: SLF001 (as servers do)
    return services.inventory.feed


def answer_lost() -> None:
    """Fail as a connection does that ends with a commit."""
    raise StoreUnavailableError("The answer was lost.")


class TestStart:
    """Files that a node finds when it starts."""

    @pytest.fixture
    def restart(self, database: str, tmp_path: Path) -> Callable[..., frozenset[str]]:
        """Return a function that opens a node, declares names, and closes it."""

        def opened(name: str, *declared: set[str]) -> frozenset[str]:
            with node(database, tmp_path, name) as hsm:
                for names in declared:
                    trust_of(hsm).declare(KIND, trusted=names)
                return trust_of(hsm).withdrawn(KIND, {"one", "two", "three"})

        return opened

    def test_edited(self, restart: Callable[..., frozenset[str]]) -> None:
        """
        A file that was edited while its node was down withdraws what it named before.
        """
        assert not restart("a", FIRST)
        assert not restart("b", {"one", "three"})

        assert {"one"} == restart("a", SECOND)

    def test_new_node_first(self, restart: Callable[..., frozenset[str]]) -> None:
        """
        A new file withdraws what it lacks also where a new node had it first.
        """
        assert not restart("a", FIRST)
        assert not restart("c", SECOND)

        assert {"one"} == restart("a", SECOND)
        assert {"one"} == restart("a", FIRST)

    def test_retired(
        self,
        restart: Callable[..., frozenset[str]],
        nodes: list[OpenHSM],
    ) -> None:
        """
        A new node withdraws nothing that a retired one of its name had named.
        """
        assert not restart("c", FIRST)
        retire = RetireNode(node="c")
        listed = nodes[0].act_as(caller()).execute(retire)
        assert {"a", "b"} == {item.node for item in listed.items}

        assert not restart("c", {"three"})

    def test_older(self, restart: Callable[..., frozenset[str]]) -> None:
        """
        A file that is as it was before the withdrawal restores and withdraws nothing.
        """
        assert not restart("b", FIRST)
        assert {"one"} == restart("a", FIRST, {"two", "three"})

        assert {"one"} == restart("b", FIRST)
        assert {"one"} == restart("a", FIRST)
        assert {"one"} == restart("b", FIRST, SECOND, FIRST)
        assert not restart("a", FIRST, SECOND, FIRST)

    def test_other_files(self, restart: Callable[..., frozenset[str]]) -> None:
        """
        A new node with other files, or none, withdraws nothing.
        """
        assert not restart("a", FIRST)

        assert not restart("program", {"three"})
        assert not restart("a", set())
        assert not restart("a", FIRST)


class TestAltered:
    """The database can't take back a withdrawal unnoticed."""

    @pytest.mark.parametrize(
        "edit",
        [
            "DELETE FROM trust",
            "UPDATE trust SET content = set_byte(content, 40, 7)",
            "UPDATE trust SET content = (SELECT content FROM old)",
            "UPDATE trust SET content = (SELECT content FROM old); "
            "UPDATE cluster SET trust_digest = sha256((SELECT content FROM old))",
        ],
    )
    def test_altered(self, database: str, tmp_path: Path, edit: str) -> None:
        """
        A row that was altered, removed or put back locks a node, until it is accepted.
        """
        with node(database, tmp_path, "a") as a:
            key = session(a).create_key("Ed25519")
            trust_of(a).declare(KIND, trusted=FIRST)
            sql(database, "CREATE TABLE old AS SELECT * FROM trust")
            trust_of(a).declare(KIND, trusted=SECOND)
        sql(database, edit)

        with node(database, tmp_path, "a") as a:
            with pytest.raises(HSMLockedError):
                session(a).sign(key.key_id, b"text")
            a.act_as(caller()).execute(RecoverStore(reason="accepted"))
            assert 1 == session(a).sign(key.key_id, b"text").version

        with node(database, tmp_path, "a") as a:
            assert 1 == session(a).sign(key.key_id, b"text").version

    def test_while_running(self, database: str, tmp_path: Path) -> None:
        """
        A running node does not take a row that does not match the change.
        """
        with ExitStack() as stack:
            a, b = (open_node(database, tmp_path, name) for name in "ab")
            for locked in (a, b):
                # Its last records can't be written any more.
                stack.enter_context(suppress(HSMError))
                stack.callback(locked.close)
            key = session(a).create_key("Ed25519")
            trust_of(a).declare(KIND, trusted=FIRST)
            sql(
                database,
                "CREATE FUNCTION lie() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN NEW.content := set_byte(NEW.content, 40, 7); "
                "RETURN NEW; END$$; CREATE TRIGGER lie BEFORE UPDATE ON trust "
                "FOR EACH ROW EXECUTE FUNCTION lie()",
            )
            with pytest.raises(HSMError):
                trust_of(a).declare(KIND, trusted=SECOND)

            with pytest.raises(HSMLockedError):
                session(b).sign(key.key_id, b"text")

            assert not trust_of(b).withdrawn(KIND, FIRST)


class TestPeople:
    """A person whom one node's policy no longer names is nobody on all nodes."""

    @pytest.fixture
    def people(self, database: str) -> People:
        """Return a function that opens a node whose policy names people."""

        def opened(path: Path, **named: str) -> AbstractContextManager[OpenHSM]:
            write_policy(path, **named)
            return node(
                database,
                path.parent,
                path.stem,
                policy_config=path,
                certificate_identities=True,
                policy_reload_interval_seconds=3600,
            )

        return opened

    def test_removed(self, people: People, tmp_path: Path) -> None:
        """
        A removed person, and a replaced certificate, count nowhere; others stay.
        """
        paths = {name: tmp_path / f"{name}.yaml" for name in "ab"}
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(people(path, ann=f"{ANN}, {SPARE}", bob=BOB))
                for name, path in paths.items()
            }
            a, b = opened["a"], opened["b"]
            assert b.identify(shown(ANN))
            assert b.identify(shown(BOB))

            write_policy(paths["a"], ann=SPARE)
            assert "" == a.reload_policy()

            eventually(lambda: b.identify(shown(BOB)) is None)
            assert b.identify(shown(ANN)) is None
            found = [hsm.act_as(caller()).execute(ShowPolicy()) for hsm in (a, b)]
            assert ["", "The policy names people"] == [p.problem[:23] for p in found]
            asked = ExplainPolicy(operation="CreateKey", certificate_sha256=ANN)
            for hsm in (a, b):
                with pytest.raises(InvalidInputError, match="Pass principal"):
                    hsm.act_as(caller()).execute(asked)
            person = b.identify(shown(SPARE))
            assert person is not None
            assert "ann" == person.principal

    def test_roles(self, people: People, tmp_path: Path) -> None:
        """
        Other roles of a person withdraw nothing, and a faulty file what it removes.
        """
        paths = {name: tmp_path / f"{name}.yaml" for name in "ab"}
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(people(path, ann=ANN, bob=BOB))
                for name, path in paths.items()
            }
            text = policy_of(ann=ANN, bob=BOB).replace("Operator", "Auditor")
            paths["a"].write_text(text)
            opened["a"].reload_policy()
            text = policy_of(bob=BOB).replace("Operator", "Auditor")
            paths["a"].write_text(text + "rules: oops\n")
            opened["a"].reload_policy()

            eventually(lambda: opened["b"].identify(shown(ANN)) is None)
            person = opened["b"].identify(shown(BOB))
            assert person is not None
            assert {Role.OPERATOR} == person.roles

    @pytest.mark.parametrize("kind", ["sign", "rotate"])
    def test_nobody_follows(self, people: People, tmp_path: Path, kind: str) -> None:
        """
        A node that has not read of it finds a removal when it records or commits.
        """
        paths = [tmp_path / f"{name}.yaml" for name in "ab"]
        with ExitStack() as stack:
            a, b = (
                stack.enter_context(people(path, ann=ANN, bob=BOB)) for path in paths
            )
            key = session(a).create_key("Ed25519")
            sign = Sign(key_id=key.key_id, message=b"text")
            assert 1 == execute_as(b, ANN, sign).version
            operation: Operation[Any] = (
                sign if kind == "sign" else RotateKey(key_id=key.key_id)
            )
            services: Any = b._services  # noqa: SLF001 (no other way to stop it)
            services.inventory.feed.close()

            write_policy(paths[0], bob=BOB)
            assert "" == a.reload_policy()

            with pytest.raises(AuthenticationError):
                execute_as(b, ANN, operation)
            assert 1 == execute_as(b, BOB, sign).version


class TestProcesses:
    """Nodes that are stopped, or that fall behind."""

    @pytest.mark.parametrize("number", range(3))
    def test_stopped(self, database: str, tmp_path: Path, number: int) -> None:
        """
        A use that a stopped node gets after a removal is answered by nobody's name.
        """
        with ExitStack() as stack:
            nodes = []
            for name in "abc":
                write_policy(tmp_path / f"{name}.yaml", ann=ANN, bob=BOB)
                nodes.append(Child(database, name, tmp_path))
                stack.callback(nodes[-1].close)
            assert [{"ok": "open"}] * 3 == [child.receive() for child in nodes]
            key = nodes[0].made(do="create", name="key", once="create")
            others = nodes[1:]
            for child in nodes:
                child.made(do="load", key=key)
                assert 1 == child.made(do="sign", key=key, certificate=ANN)

            write_policy(tmp_path / "a.yaml", bob=BOB)
            with ExitStack() as stops:
                for child in others[: number + 1]:
                    stops.enter_context(child.stopped())
                assert "" == nodes[0].ask(do="reload")["ok"]
                for child in others:
                    for person in (ANN, BOB):
                        child.send(do="sign", key=key, certificate=person)

            for child in others:
                wanted = {"do": "sign", "key": key}
                ann = child.settled(child.receive(), **wanted, certificate=ANN)
                bob = child.settled(child.receive(), **wanted, certificate=BOB)
                assert AuthenticationError.code == ann.get("code"), ann
                assert {"ok": 1} == bob

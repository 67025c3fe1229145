# SPDX-License-Identifier: MIT
"""What a dead node left unfinished is settled by another, and recorded there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hsm_core import operations as ops
from hsm_core._internal.assembly import cluster
from hsm_core._internal.cluster.settlement import Settlement
from hsm_core._internal.keyring import documents
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core.errors import (
    ConfigurationError,
    KeyNotFoundError,
    KeyTamperedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, AuditEvent, Phase
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
from tests.core.dual_support import approve, ask, ed25519, person, sign
from tests.core.filesystem_child import die
from tests.core.forked import was_killed
from tests.core.node_support import PATIENCE, eventually


def create_and_die(url: str, folder: Path, name: str, point: str) -> None:
    """Open a node, and die while it creates a key of the node's name."""
    hsm = open_node(url, folder, name)
    die_at(point, lambda: session(hsm).create_key("ed25519", name=name))


def test_nodes_that_die_in_a_change(database: str, tmp_path: Path) -> None:
    """
    Another node decides the changes and records them, and a dead one agrees later.
    """
    points = {"early": "mutation.after_intent", "late": "mutation.after_store"}
    for name, point in points.items():
        assert was_killed(partial(create_and_die, database, tmp_path, name, point))
    with node(database, tmp_path, "b") as other:

        def settled() -> list[AuditEvent]:
            return events(other, lambda event: bool(event.intent_log))

        eventually(lambda: len(settled()) == 2)
        assert {Phase.OUTCOME} == {event.phase for event in settled()}
        codes = {event.operation_id: event.code for event in settled()}
        assert {"recovered-aborted", "recovered-committed"} == set(codes.values())
        assert "late" == session(other).describe("late").name
        with pytest.raises(KeyNotFoundError):
            session(other).describe("early")

        for name in points:
            with node(database, tmp_path, name) as again:
                assert session(again).sign("late", b"m").signature
        own = events(other, lambda e: e.operation_id in codes and not e.intent_log)
        ends = [event for event in own if event.phase is Phase.OUTCOME]
        assert codes == {event.operation_id: event.code for event in ends}
        assert 4 == len(own)
    assert {"b", *points} == verify(database).keys()


def settled_by_another(hsm: OpenHSM) -> list[str]:
    """Return the codes of outcomes that a node recorded of intents in other logs."""
    found = events(hsm, lambda event: bool(event.intent_log))
    return [event.code for event in found if event.phase is Phase.OUTCOME]


def test_a_start_that_fails(database: str, tmp_path: Path) -> None:
    """
    A node that died and fails to start leaves what it began to another.
    """
    work = partial(create_and_die, database, tmp_path, "a", "mutation.after_store")
    assert was_killed(work)
    with pytest.raises(ConfigurationError, match="keys are in a vault"):
        open_node(database, tmp_path, "a", vault=MemoryVault())

    with node(database, tmp_path, "b") as other:
        eventually(lambda: settled_by_another(other) == ["recovered-committed"])
    assert {"a", "b"} == verify(database).keys()


def test_a_change_without_outcome(database: str, tmp_path: Path) -> None:
    """
    A node that stops before it could record an outcome leaves that to another.
    """

    def fail(reached: str) -> None:
        if reached in {"mutation.after_store", "recovery.before_record"}:
            raise StoreUnavailableError

    hsm = open_node(database, tmp_path)
    with install(fail):
        with pytest.raises(OutcomeUnknownError):
            session(hsm).create_key("ed25519", name="late")
        hsm.close()

    with node(database, tmp_path, "b") as other:
        eventually(lambda: settled_by_another(other) == ["recovered-committed"])
        assert "late" == session(other).describe("late").name


def leave_two_intents(url: str, folder: Path) -> None:
    """Open a node, and die while it rotates two keys."""
    hsm = open_node(url, folder, "a")
    begun = threading.Event()
    for name in ("bad", "good"):
        key_id = session(hsm).create_key("ed25519", name=name).key_id
        (folder / f"{name}.key").write_text(key_id)

    def strike(reached: str) -> None:
        if reached == "mutation.after_intent":
            if begun.is_set():
                die()
            begun.set()
            threading.Event().wait()

    with install(strike):
        rotate = partial(session(hsm).rotate, "bad")
        threading.Thread(target=rotate, daemon=True).start()
        assert begun.wait(PATIENCE)
        session(hsm).rotate("good")


FLIP = (
    "UPDATE keys SET document = set_byte(document, 40, get_byte(document, 40) # 1) "
    "WHERE key_id = %s"
)
"""Alters the document of a key, or puts it right again."""

SETTLED = "SELECT settled >= epoch FROM nodes JOIN fence USING (node) WHERE node = 'a'"


class HeldSettlement:
    """Settlement of dead nodes, which waits until it may begin; rounds are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds = 0
        self._may = threading.Event()
        settle = Settlement.settle

        def settle_later(settlement: Settlement, name: str, epoch: int) -> None:
            if self._may.is_set():
                settle(settlement, name, epoch)
                self.rounds += 1

        monkeypatch.setattr(Settlement, "settle", settle_later)

    def begin(self) -> None:
        """Let it happen from now on."""
        self._may.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldSettlement:
    """Hold settlement back."""
    return HeldSettlement(monkeypatch)


def test_an_intent_that_stays_open(
    database: str, tmp_path: Path, held: HeldSettlement
) -> None:
    """
    While one intent can't be decided, the others get one outcome each.

    Once its key is recovered, it gets its own, and nothing of the node is unfinished.
    """

    def settled() -> list[AuditEvent]:
        return events(other, lambda event: bool(event.intent_log))

    def is_settled() -> bool:
        return [(True,)] == sql(database, SETTLED)

    assert was_killed(partial(leave_two_intents, database, tmp_path))
    key_id = (tmp_path / "bad.key").read_text()
    sql(database, FLIP, key_id)
    with node(database, tmp_path, "b") as other:
        with pytest.raises(KeyTamperedError):
            session(other).sign(key_id, b"m")
        held.begin()
        eventually(lambda: held.rounds >= 4)

        assert ["recovered-aborted"] == [event.code for event in settled()]
        assert not is_settled()

        sql(database, FLIP, key_id)
        recover = ops.RecoverKey(key_id=key_id, reason="put right")
        other.act_as(caller()).execute(recover)
        eventually(is_settled)

        assert ["recovered-aborted"] * 2 == [event.code for event in settled()]
        assert 2 == len({event.operation_id for event in settled()})
    assert {"a", "b"} == verify(database).keys()


def rotate_and_die(url: str, folder: Path, point: str) -> None:
    """Open a node, and die while it rotates a key."""
    hsm = open_node(url, folder, "a")
    session(hsm).create_key("ed25519", name="other")
    key_id = session(hsm).create_key("ed25519", name="key").key_id
    sql(url, "CREATE TABLE old AS SELECT * FROM keys")
    die_at(point, lambda: session(hsm).rotate(key_id))


def test_an_operation_that_was_not_made(
    database: str, tmp_path: Path, held: HeldSettlement
) -> None:
    """
    A change is not recorded as committed because a row says that it was.
    """
    work = partial(rotate_and_die, database, tmp_path, "mutation.after_intent")
    assert was_killed(work)
    with node(database, tmp_path, "b") as other:
        intent = events(other, lambda event: event.phase is Phase.INTENT)[-1]
        row = "INSERT INTO operations (operation_id, key_id) VALUES (%s, %s)"
        other_key = session(other).describe("other").key_id
        sql(database, row, intent.operation_id, other_key)
        held.begin()
        eventually(lambda: bool(settled_by_another(other)))

        assert ["recovered-aborted"] == settled_by_another(other)
        assert 2 == session(other).rotate("key").generation
    assert {"a", "b"} == verify(database).keys()


@pytest.mark.parametrize("is_altered", [False, True])
def test_a_change_that_was_altered(
    database: str, tmp_path: Path, held: HeldSettlement, is_altered: bool
) -> None:
    """
    An outcome has nothing of a row of the feed that was altered since it was applied.
    """
    work = partial(create_and_die, database, tmp_path, "a", "mutation.after_store")
    assert was_killed(work)
    with node(database, tmp_path, "b") as other:
        generation = session(other).update("a", tags=["x"]).generation
        if is_altered:
            edit = "UPDATE changes SET digest = repeat('0', 64) WHERE generation = %s"
            sql(database, edit, generation - 1)
        held.begin()
        eventually(lambda: settled_by_another(other) == ["recovered-committed"])

        (outcome,) = events(other, lambda event: bool(event.intent_log))
        assert "0" * 64 != outcome.document_after
        assert is_altered == (outcome.revision == 0)
        assert is_altered == (outcome.generation == generation)


@pytest.mark.parametrize("is_altered", [False, True])
def test_a_change_that_its_key_has_forgotten(
    database: str,
    tmp_path: Path,
    held: HeldSettlement,
    monkeypatch: pytest.MonkeyPatch,
    is_altered: bool,
) -> None:
    """
    A change that was committed is not recorded as aborted however late it is settled.

    Where the feed does not say any more what it was, its intent stays open.
    """
    monkeypatch.setattr(documents, "_KEPT_MICROSECONDS", 0)
    work = partial(rotate_and_die, database, tmp_path, "mutation.after_store")
    assert was_killed(work)
    with node(database, tmp_path, "b") as other:
        for number in range(33):
            session(other).update("key", tags=[f"t{number}"])
        if is_altered:
            sql(database, "UPDATE changes SET before = '' WHERE generation = 2")
        held.begin()
        eventually(lambda: held.rounds >= 1)

        expected = [] if is_altered else ["recovered-committed"]
        assert expected == settled_by_another(other)
        assert [(not is_altered,)] == sql(database, SETTLED)
        with node(database, tmp_path, "a") as again:
            ends = events(again, lambda e: e.phase is Phase.OUTCOME)
            codes = [event.code for event in ends if event.kind == "RotateKey"]
            assert 2 * expected == codes


@pytest.mark.parametrize(
    "attack",
    [
        "INSERT INTO keys OVERRIDING SYSTEM VALUE SELECT * FROM old WHERE name = 'key'",
        "DELETE FROM operations",
    ],
    ids=["older", "gone"],
)
def test_a_change_whose_key_was_put_back(
    database: str, tmp_path: Path, held: HeldSettlement, attack: str
) -> None:
    """
    A change that the feed has is not recorded as aborted for what the key says now.
    """
    work = partial(rotate_and_die, database, tmp_path, "mutation.after_store")
    assert was_killed(work)
    with node(database, tmp_path, "b") as other:
        sql(database, f"DELETE FROM keys WHERE name = 'key'; {attack}")  # noqa: S608
        held.begin()
        eventually(lambda: held.rounds >= 1)

        assert [] == settled_by_another(other)
        with pytest.raises((KeyNotFoundError, KeyTamperedError)):
            session(other).sign("key", b"m")


POLICY = """
version: 1
extends: default
rules:
  - name: two-people
    effect: require-approval
    match:
      operations: [Sign, RotateKey]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Give a policy that wants another person for uses and rotations."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def ask_and_die(url: str, folder: Path, name: str, point: str) -> None:
    """Open a node, let an operation be approved, and die while it is done."""
    hsm = open_node(url, folder, name, policy_config=folder / "policy.yaml")
    key_id = ed25519(hsm, name)
    operation = ops.RotateKey(key_id=key_id) if point in ROTATE else sign(key_id)
    asked = approve(person(hsm, "ben"), ask(person(hsm, "ada"), operation))
    (folder / f"{point}.approval").write_text(asked.approval_id)
    die_at(point, lambda: person(hsm, "ada").execute(operation))


ROTATE = ("mutation.after_store",)
POINTS = {
    "approval.reserved": ApprovalState.GRANTED,
    "approval.before_settling": ApprovalState.CONSUMED,
    "mutation.after_store": ApprovalState.CONSUMED,
}
"""Where a node dies, and what then becomes of the approval."""


def test_reservations_of_dead_nodes(
    database: str, tmp_path: Path, policy: Path
) -> None:
    """
    An approval that a dead node had reserved is consumed if the operation was done.
    """
    for number, point in enumerate(POINTS):
        work = partial(ask_and_die, database, tmp_path, f"n{number}", point)
        assert was_killed(work)
    with node(database, tmp_path, "b", policy_config=policy) as other:
        ben = person(other, "ben")

        def state_of(point: str) -> ApprovalState:
            approval_id = (tmp_path / f"{point}.approval").read_text()
            return ben.execute(ops.GetApproval(approval_id=approval_id)).state

        eventually(lambda: {point: state_of(point) for point in POINTS} == POINTS)
        key_id = session(other).describe("n0").key_id
        assert person(other, "ada").execute(sign(key_id)).signature
        assert 2 == session(other).describe("n2").versions
        with node(database, tmp_path, "n0", policy_config=policy) as again:
            assert ApprovalState.CONSUMED is state_of("approval.reserved")
            asked = ask(person(again, "ada"), sign(key_id))
            assert ApprovalState.PENDING is asked.state
    assert {"b", "n0", "n1", "n2"} == verify(database).keys()


def test_an_approval_whose_operation_was_altered(
    database: str, tmp_path: Path, policy: Path, held: HeldSettlement
) -> None:
    """
    An approval that was used is not freed because a row says that nothing was done.
    """
    work = partial(ask_and_die, database, tmp_path, "a", "mutation.after_store")
    assert was_killed(work)
    approval_id = (tmp_path / "mutation.after_store.approval").read_text()
    with node(database, tmp_path, "b", policy_config=policy) as other:
        sql(database, "UPDATE operations SET key_id = NULL, aborted = true")
        held.begin()
        eventually(lambda: sql(database, SETTLED) == [(True,)])

        asked = person(other, "ben").execute(ops.GetApproval(approval_id=approval_id))
        assert ApprovalState.CONSUMED is asked.state
        assert ["recovered-committed"] == settled_by_another(other)
        assert 2 == session(other).describe("a").versions


@pytest.fixture
def settlements(monkeypatch: pytest.MonkeyPatch) -> list[Settlement]:
    """Give a list of what settles for each node, in the order of their opening."""
    made: list[Settlement] = []

    def settlement(*parts: Any) -> Settlement:
        made.append(Settlement(*parts))
        return made[-1]

    monkeypatch.setattr(cluster, "Settlement", settlement)
    return made


def settling(
    one: Settlement, hsm: OpenHSM, approval_id: str, states: list[ApprovalState]
) -> Callable[[str], None]:
    """Return what settles for node b once an approval is reserved; note its state."""

    def settle(reached: str) -> None:
        if reached == "approval.reserved":
            one.settle("b", 2)  # Its epoch after the first life.
            found = ops.GetApproval(approval_id=approval_id)
            states.append(person(hsm, "ben").execute(found).state)

    return settle


def test_a_reservation_that_is_left(
    database: str, tmp_path: Path, policy: Path
) -> None:
    """
    A node that stops before it could consume an approval leaves that to another.
    """

    def fail(reached: str) -> None:
        if reached == "approval.before_settling":
            raise StoreUnavailableError

    hsm = open_node(database, tmp_path, policy_config=policy)
    use = sign(ed25519(hsm))
    asked = approve(person(hsm, "ben"), ask(person(hsm, "ada"), use))
    with install(fail):
        assert person(hsm, "ada").execute(use).signature
        hsm.close()

    with node(database, tmp_path, "b", policy_config=policy) as other:
        ben, get = person(other, "ben"), ops.GetApproval(approval_id=asked.approval_id)
        eventually(lambda: ben.execute(get).state is ApprovalState.CONSUMED)


def test_a_reservation_that_can_not_be_settled_yet(
    database: str, tmp_path: Path, policy: Path
) -> None:
    """
    A dead node counts as settled only once its reserved approvals are, too.
    """
    failures: list[str] = []
    is_back = threading.Event()

    def fail(reached: str) -> None:
        if reached == "approval.before_settling" and not is_back.is_set():
            failures.append(reached)
            raise StoreUnavailableError

    work = partial(ask_and_die, database, tmp_path, "a", "approval.reserved")
    assert was_killed(work)
    with install(fail), node(database, tmp_path, "b", policy_config=policy):
        eventually(lambda: len(failures) >= 3)
        assert [(False,)] == sql(database, SETTLED)
        is_back.set()
        eventually(lambda: sql(database, SETTLED) == [(True,)])


def test_settling_late(
    database: str, tmp_path: Path, policy: Path, settlements: list[Settlement]
) -> None:
    """
    What a node began after it was started again is not settled with what it left.
    """
    states: list[ApprovalState] = []
    with node(database, tmp_path, "a", policy_config=policy) as other:
        open_node(database, tmp_path, "b").close()
        with node(database, tmp_path, "b", policy_config=policy) as again:
            use = sign(ed25519(again))
            asked = approve(person(again, "ben"), ask(person(again, "ada"), use))
            with install(settling(settlements[0], other, asked.approval_id, states)):
                assert person(again, "ada").execute(use).signature

    assert [ApprovalState.RESERVED] == states


def test_reserved_again_elsewhere(
    database: str, tmp_path: Path, policy: Path, settlements: list[Settlement]
) -> None:
    """
    An operation that failed on a dead node keeps the approval that it has elsewhere.
    """

    def fail(reached: str) -> None:
        if reached == "approval.reserved":
            raise StoreUnavailableError

    states: list[ApprovalState] = []
    with node(database, tmp_path, "a", policy_config=policy) as other:
        rotate = ops.RotateKey(key_id=ed25519(other))
        asked = approve(person(other, "ben"), ask(person(other, "ada"), rotate))
        with node(database, tmp_path, "b", policy_config=policy) as dead:
            with install(fail), pytest.raises(StoreUnavailableError):
                person(dead, "ada").execute(rotate, idempotency_key="once")
        with install(settling(settlements[0], other, asked.approval_id, states)):
            done = person(other, "ada").execute(rotate, idempotency_key="once")

    assert 2 == done.version
    assert [ApprovalState.RESERVED] == states

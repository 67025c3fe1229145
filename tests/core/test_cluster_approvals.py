# SPDX-License-Identifier: MIT
"""Approvals of several nodes: asked on one, decided on another, used once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.approvals.journal import (
    TAMPERED,
    ApprovalAnchor,
    ApprovalSetDigest,
)
from hsm_core._internal.approvals.maintenance import DualControl, prune_approvals
from hsm_core._internal.approvals.workflow import ApprovalReservation
from hsm_core._internal.cluster import approvals
from hsm_core._internal.handlers.signatures import SignHandler
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.postgresql.feed import KEY, Change
from hsm_core.algorithms import Algorithm
from hsm_core.model import ApprovalDemand, ApprovalState, AuditEvent, KeyInfo
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.dual_support import (
    TWO_PEOPLE,
    DemandingPolicy,
    approve,
    ask,
    ed25519,
    events_of,
    person,
    sign,
)
from tests.core.node_support import PATIENCE, Node, nodes_of
from tests.self_tests import open_tested


@pytest.fixture
def nodes(database: str) -> Iterator[list[Node]]:
    """Give two nodes whose policy wants another person for signatures."""
    with nodes_of(database) as found:
        for node in found:
            demand(node)
        yield found


def demand(node: Node, **demands: ApprovalDemand) -> None:
    """Put a policy in force that demands, by default for signatures."""
    services: Any = node.hsm._services  # noqa: SLF001 (no file says this)
    policy = DemandingPolicy(**(demands or {"Sign": TWO_PEOPLE}))
    services.policy.replace(policy, 0)


def dual_of(node: Node) -> DualControl:
    """Return the approvals of a node, as its jobs have them."""
    maintenance: Any = node.hsm._maintenance  # noqa: SLF001 (as its jobs do)
    consents = node.hsm._services.consents  # noqa: SLF001
    return DualControl(maintenance._register, maintenance._care, consents)  # noqa: SLF001


def test_asked_here_decided_there(nodes: list[Node]) -> None:
    """
    A request of one node is decided on another, used on a third, and spent for all.
    """
    one, two = nodes
    key_id = ed25519(one.hsm)
    asked = ask(person(one.hsm, "ada"), sign(key_id))
    seen = person(two.hsm, "ben").execute(ops.ListApprovals()).items
    approve(person(two.hsm, "ben"), asked)
    signed = person(one.hsm, "ada").execute(sign(key_id))

    assert [asked.approval_id] == [found.approval_id for found in seen]
    assert signed.signature
    for node in nodes:
        found = person(node.hsm, "ada").execute(
            ops.GetApproval(approval_id=asked.approval_id)
        )
        assert ApprovalState.CONSUMED is found.state
        again = ask(person(node.hsm, "ada"), sign(key_id))
        assert again.approval_id != asked.approval_id
        person(node.hsm, "ada").execute(
            ops.CancelApproval(approval_id=again.approval_id)
        )


def test_used_once_by_all_nodes(nodes: list[Node]) -> None:
    """
    Of many requests on two nodes at once, one uses the approval.
    """
    key_id = ed25519(nodes[0].hsm)
    asked = ask(person(nodes[0].hsm, "ada"), sign(key_id))
    approve(person(nodes[1].hsm, "ben"), asked)
    signed: list[bytes] = []
    refused: list[str] = []

    def work(node: Node) -> None:
        try:
            signed.append(person(node.hsm, "ada").execute(sign(key_id)).signature)
        except errors.HSMError as error:
            refused.append(error.code)

    threads = [
        threading.Thread(target=work, args=(nodes[number % 2],)) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(signed)
    assert {"approval_required", "conflict"} >= set(refused)
    assert not dual_of(nodes[0]).care.compare()
    assert not dual_of(nodes[1]).care.compare()


@pytest.mark.parametrize(
    "point",
    ["approval.reserved", "mutation.after_intent", "mutation.after_outcome", ""],
)
def test_one_change_on_two_nodes(nodes: list[Node], point: str) -> None:
    """
    A change that was approved, sent to two nodes under one key, answers the same.

    The second node gets it when the first has reached a point, or at the same moment.
    """
    for node in nodes:
        demand(node, RotateKey=TWO_PEOPLE)
    key_id = ed25519(nodes[0].hsm)
    rotate = ops.RotateKey(key_id=key_id)
    for number in range(1 if point else 5):
        approve(person(nodes[1].hsm, "ben"), ask(person(nodes[0].hsm, "ada"), rotate))
        answers = both(nodes, rotate, f"once-{number}", point)

        assert [number + 2] * 2 == [answer.version for answer in answers]
        found = person(nodes[0].hsm, "ben").execute(ops.ListApprovals()).items
        assert [ApprovalState.CONSUMED] * (number + 1) == [a.state for a in found]


def both(
    nodes: list[Node], rotate: ops.RotateKey, once: str, point: str
) -> list[KeyInfo]:
    """Execute a change on two nodes, the second when the first is at a point."""
    reached, is_first = threading.Event(), threading.local()

    def pause(name: str) -> None:
        if name == point and getattr(is_first, "here", False):
            reached.set()
            time.sleep(0.5)

    def first() -> KeyInfo:
        is_first.here = True
        return send(nodes[0])

    def second() -> KeyInfo:
        assert not point or reached.wait(PATIENCE)
        return send(nodes[1])

    def send(node: Node) -> KeyInfo:
        return person(node.hsm, "ada").execute(rotate, idempotency_key=once)

    with install(pause), ThreadPoolExecutor(2) as pool:
        found = [pool.submit(first), pool.submit(second)]
        return [each.result() for each in found]


def test_a_node_that_starts_later(nodes: list[Node], database: str) -> None:
    """
    A node that joins knows the approvals of the others, and counts like them.
    """
    key_id = ed25519(nodes[0].hsm)
    asked = ask(person(nodes[0].hsm, "ada"), sign(key_id))
    with nodes_of(database, 1) as (third,):
        demand(third)
        approve(person(third.hsm, "ben"), asked)
        assert not dual_of(third).care.compare()
        assert person(third.hsm, "ada").execute(sign(key_id)).signature
        assert third.changes.applied == nodes[0].changes.catch_up()

    assert dual_of(nodes[0]).care.status.findings == 0


def test_an_older_record_is_refused_by_all(nodes: list[Node]) -> None:
    """
    An approval put back to an earlier state is refused, by the node that made it too.
    """
    one, two = nodes
    key_id = ed25519(one.hsm)
    asked = ask(person(one.hsm, "ada"), sign(key_id))
    read = "SELECT record, generation, state FROM approvals WHERE approval_id = $1"
    database: Any = one.inventory.store.database  # type: ignore[attr-defined]
    before = database.row(read, (asked.approval_id,))
    approve(person(two.hsm, "ben"), asked)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE approvals SET record = $1, generation = $2, state = $3 "
            "WHERE approval_id = $4",
            (*before, asked.approval_id),
        )

    for node in nodes:
        with pytest.raises(errors.ApprovalTamperedError, match="older"):
            approve(person(node.hsm, "eve"), asked)
        assert (asked.approval_id,) == dual_of(node).care.compare()
    assert (asked.approval_id,) == dual_of(one).care.forget("because")
    two.changes.catch_up()
    assert not dual_of(two).care.compare()
    assert 0 == dual_of(two).care.status.findings


def test_decided_elsewhere_while_it_is_read(nodes: list[Node]) -> None:
    """
    A decision of another node that arrives while an approval is read is no tampering.

    It arrives between the comparisons: once the record is authenticated.
    """
    one, two = nodes
    key_id = ed25519(one.hsm)
    asked = ask(person(one.hsm, "ada"), sign(key_id))
    register: Any = dual_of(one).register
    mac_of, readers = register._mac_of, [threading.get_ident()]  # noqa: SLF001

    def decide(payload: bytes) -> bytes:
        if readers == [threading.get_ident()]:
            readers.clear()
            approve(person(two.hsm, "ben"), asked)
            with ThreadPoolExecutor(1) as follower:
                follower.submit(one.changes.catch_up).result()
        result: bytes = mac_of(payload)
        return result

    register._mac_of = decide  # noqa: SLF001 (a public operation has no such moment)
    found = person(one.hsm, "ada").execute(
        ops.GetApproval(approval_id=asked.approval_id)
    )

    assert not readers
    assert ApprovalState.GRANTED is found.state
    assert 0 == dual_of(one).care.status.findings
    assert person(one.hsm, "ada").execute(sign(key_id)).signature
    assert TAMPERED not in {event.kind for event in events_of(one.hsm)}


def test_removed_elsewhere_meanwhile(nodes: list[Node]) -> None:
    """
    An approval that another node has removed is not missing on a node that lags.
    """
    one, two = nodes
    asked = ask(person(one.hsm, "ada"), sign(ed25519(one.hsm)))
    person(one.hsm, "ada").execute(ops.CancelApproval(approval_id=asked.approval_id))
    one.changes.close()  # Its thread would read the removal soon.
    assert (asked.approval_id,) == prune_approvals(dual_of(two).register, -1)

    assert not dual_of(one).care.compare()
    assert 0 == dual_of(one).care.status.findings
    assert TAMPERED not in {event.kind for event in events_of(one.hsm)}


def test_removed_while_all_are_read_again(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An approval that another node removes while a node reads all of them stays gone.
    """
    one, two = nodes
    asked = ask(person(one.hsm, "ada"), sign(ed25519(one.hsm)))
    person(one.hsm, "ada").execute(ops.CancelApproval(approval_id=asked.approval_id))
    others = dual_of(one).care.others
    assert others is not None
    others.catch_up()
    one.changes.close()  # Its thread would read the removal now or later.
    one.changes.publish(Change(KEY))
    sum_of = ApprovalSetDigest.sum_of
    gone: list[str] = []

    with ThreadPoolExecutor(1) as follower:

        def remove(self: ApprovalSetDigest, anchors: dict[str, ApprovalAnchor]) -> int:
            if not gone:
                gone.extend(prune_approvals(dual_of(two).register, -1))
                wait([follower.submit(one.changes.catch_up)], 1.0)
            return sum_of(self, anchors)

        monkeypatch.setattr(ApprovalSetDigest, "sum_of", remove)
        others.catch_up()

    assert [asked.approval_id] == gone
    assert not dual_of(one).care.compare()


def test_a_long_history(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All changes of approvals are read although that takes longer than a request may.
    """
    one, two = nodes
    asked = ask(person(one.hsm, "ada"), sign(ed25519(one.hsm)))
    slow = approvals._NEWEST.replace(  # noqa: SLF001 (millions of them take as long)
        "FROM changes", "FROM (SELECT pg_sleep(3)) AS slept, changes"
    )
    monkeypatch.setattr(approvals, "_NEWEST", slow)
    two.changes.publish(Change(KEY))

    approve(person(one.hsm, "ben"), asked)


def test_removed_ones_are_gone_for_all(nodes: list[Node], database: str) -> None:
    """
    What one node prunes is no finding on another, nor after a start.
    """
    key_id = ed25519(nodes[0].hsm)
    asked = ask(person(nodes[0].hsm, "ada"), sign(key_id))
    person(nodes[1].hsm, "ada").execute(
        ops.CancelApproval(approval_id=asked.approval_id)
    )
    nodes[0].session.suspend(key_id)  # a change that the other node has not read yet
    gone = prune_approvals(dual_of(nodes[1]).register, -1)

    assert (asked.approval_id,) == gone
    with pytest.raises(errors.ApprovalNotFoundError):
        person(nodes[0].hsm, "ada").execute(
            ops.GetApproval(approval_id=asked.approval_id)
        )
    assert not dual_of(nodes[0]).care.compare()
    with nodes_of(database, 1) as (third,):
        assert not dual_of(third).care.compare()
        assert nodes[0].changes.approvals_digest == bytes(32)


def test_states_that_could_not_be_loaded(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After a recovery, a node that could not load the last states loads them again.
    """
    one, two = nodes
    asked = ask(person(one.hsm, "ada"), sign(ed25519(one.hsm)))
    show = ops.GetApproval(approval_id=asked.approval_id)
    one.changes.close()  # It reads the decision after the recovery.

    def fail(*_: object) -> None:
        raise errors.StoreUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(ApprovalSetDigest, "sum_of", fail)
        approve(person(two.hsm, "ben"), asked)
        two.changes.recover(lambda known: known)
        with pytest.raises(errors.StoreUnavailableError):
            person(one.hsm, "ada").execute(show)

    assert ApprovalState.GRANTED is person(one.hsm, "ada").execute(show).state
    assert 0 == dual_of(one).care.status.findings


def test_a_row_whose_generation_was_altered(nodes: list[Node]) -> None:
    """
    An approval that can't be settled for its row keeps no other from being settled.
    """
    one, two = nodes
    key_id = ed25519(one.hsm)
    ada, ben = person(one.hsm, "ada"), person(two.hsm, "ben")
    asked = [ask(ada, sign(key_id, text)) for text in (b"one", b"two")]
    for each in asked:
        approve(ben, each)

    def alter(number: int) -> None:
        database: Any = one.inventory.store
        with database.database.transaction() as connection:
            connection.execute(
                b"UPDATE approvals SET generation = generation + $1 "
                b"WHERE approval_id = $2",
                (number, asked[0].approval_id),
            )

    def is_of_it(event: AuditEvent) -> bool:
        return event.approval_id == asked[0].approval_id

    def state_of(request: ops.ApprovalInfo) -> ApprovalState:
        return ada.execute(ops.GetApproval(approval_id=request.approval_id)).state

    def strike(name: str) -> None:
        if name == "approval.before_settling":
            raise errors.StoreUnavailableError

    with install(strike):
        for text in (b"one", b"two"):
            ada.execute(sign(key_id, text))
    alter(5)
    care = dual_of(one).care
    care.heal()
    told = events_of(one.hsm, is_of_it)
    for _ in range(3):
        care.heal()

    assert told == events_of(one.hsm, is_of_it)
    assert ApprovalState.CONSUMED is state_of(asked[1])
    with pytest.raises(errors.ApprovalTamperedError):
        state_of(asked[0])
    alter(-5)
    care.compare()
    care.heal()
    assert ApprovalState.CONSUMED is state_of(asked[0])


_REFUSALS = (errors.ApprovalRequiredError, errors.ConflictError)


@pytest.fixture
def hsms(database: str, tmp_path: Path) -> Iterator[list[Any]]:
    """Give two nodes with their own audit logs, as servers have them."""
    policy = DemandingPolicy(Sign=TWO_PEOPLE, CreateKey=TWO_PEOPLE)
    with ExitStack() as stack:
        opened: list[Any] = []
        for name in ("one", "two"):
            mark = tmp_path / name
            settings = Settings(store=database, node_name=name, node_mark=mark)
            opened.append(stack.enter_context(open_tested(settings)))
        key_id = ed25519(opened[0])
        for hsm in opened:
            hsm._services.policy.replace(policy, 0)  # noqa: SLF001 (no file says this)
        yield [*opened, key_id]


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("makes_key", [True, False])
def test_one_that_another_node_releases(
    hsms: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    makes_key: bool,
    is_known: bool,
) -> None:
    """
    A node that others take for dead does nothing under an approval that they release.
    """
    one, two, key_id = hsms
    operation = (
        ops.CreateKey(algorithm=Algorithm.AES_256_GCM) if makes_key else sign(key_id)
    )
    asked = ask(person(one, "ada"), operation)
    approve(person(two, "ben"), asked)
    used: list[object] = []

    def release(name: str = "") -> None:
        if used or name != ("approval.reserved" if makes_key else ""):
            return
        used.append("begun")
        consents = two._services.consents  # noqa: SLF001 (as a settlement does)
        found = consents.state_of(asked.approval_id)
        named = found.approval_id, found.operation_id
        hold = ApprovalReservation(*named, caller(), found.generation)
        consents.settle(hold, done=False)
        used.append(person(two, "ada").execute(operation))
        if is_known:
            one._services.inventory.feed.catch_up()  # noqa: SLF001 (as a thread does)

    perform = SignHandler.perform

    def slow(handler: SignHandler, context: Any) -> Any:
        answer = perform(handler, context)
        release()
        return answer

    monkeypatch.setattr(SignHandler, "perform", slow)
    with install(release), pytest.raises(_REFUSALS):
        person(one, "ada").execute(operation)

    assert 2 == len(used)
    keys = person(one, "ada").execute(ops.ListKeys()).items
    assert (2 if makes_key else 1) == len(keys)

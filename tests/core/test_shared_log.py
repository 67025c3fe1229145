"""Logs of a cluster: groups that are refused, and those with unknown outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.medium import GroupRefusedError
from hsm_core._internal.audit.shared_log import SharedAuditLog
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import AuditEvent, ResumeDetail
from hsm_core.protocols import AuditDraft, AuditFacts, UseDraft
from tests.core.audit_support import KEY, draft, intent, outcome, stored
from tests.core.shared_log_support import FakeDatabase, FakeView, open_shared_log

PATIENCE = 60.0


def use(key_id: str, request: str = "r") -> UseDraft:
    """Return the draft of a use by plan."""
    return UseDraft(AuditFacts(kind="Sign", key_id=key_id), request_id=request)


def long_use(key_id: str, request: str = "r") -> AuditDraft:
    """Return the draft of a use by the long way."""
    return draft(request_id=request, key_id=key_id, subjects=(key_id, "token-1"))


class Node:
    """A log with its database."""

    def __init__(self) -> None:
        self.database = FakeDatabase()
        self.view = FakeView(self.database)
        self.log: SharedAuditLog = open_shared_log(self.database, self.view)

    def events(self) -> list[AuditEvent]:
        """Return all records, checked."""
        follower = Follower(log_id=None, hmac_key=KEY)
        return [follower.follow(stored(record)) for record in self.database.records]

    def shown(self) -> list[str]:
        """Return what each record is of, without the first."""
        return [e.request_id or e.operation_id or e.kind for e in self.events()[1:]]

    def hold(self) -> Callable[[], None]:
        """Hold the next write; return what lets it go on once it was reached."""
        reached, goes = threading.Event(), threading.Event()

        def wait() -> None:
            reached.set()
            assert goes.wait(PATIENCE)
            self.database.before_write = lambda: None

        self.database.before_write = wait

        def go() -> None:
            assert reached.wait(PATIENCE)
            goes.set()

        self.reached = reached
        return go


@pytest.fixture
def node() -> Iterator[Node]:
    """Give a node."""
    found = Node()
    yield found
    found.log.close()
    assert found.log.head().seq + 1 == len(found.database.records)
    found.events()


def until_healed(node: Node) -> None:
    """Wait until an outage is over."""
    ends = time.monotonic() + PATIENCE
    while not node.log.available:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_use_is_recorded_at_its_revision(node: Node) -> None:
    """A use says which change it was decided at; other records do not."""
    node.database.change("other")
    node.view.catch_up()
    node.log.append([use("k")]).wait()
    node.log.append([draft(1)]).wait()
    assert [event.revision for event in node.events()] == [0, 1, 0]
    assert node.view.ends == [1, 2]


@pytest.mark.parametrize(
    ("kind", "subject"),
    [(use, "k"), (use, None), (long_use, "k"), (long_use, "token-1"), (long_use, None)],
)
def test_use_of_what_has_changed_is_refused(
    node: Node, kind: Callable[[str], AuditDraft | UseDraft], subject: str | None
) -> None:
    """What was appended with no use keeps its ticket and is written."""
    go = node.hold()
    first = node.log.append([intent("i-1")])
    assert node.reached.wait(PATIENCE)
    refused = node.log.append([kind("k"), draft(3)])
    kept = node.log.append([intent("i-2")])
    node.database.change(subject)
    go()
    with pytest.raises(GroupRefusedError):
        refused.wait()
    kept.wait()
    first.wait()
    assert node.shown() == ["i-1", "i-2"]
    assert node.view.position.revision == 1
    node.log.append([kind("k")]).wait()
    assert node.events()[-1].revision == 1
    assert node.log.health.failures == 0


def test_change_of_another_key_meets_no_use(node: Node) -> None:
    """A group is written though the node is behind."""
    node.database.change("other")
    node.log.append([use("k"), long_use("l")]).wait()
    assert node.view.position.revision == 0


def test_appends_behind_a_refused_group_are_chained_again(node: Node) -> None:
    """What waited meanwhile follows on what stands."""
    go = node.hold()
    refused = node.log.append([use("k", "refused")])
    assert node.reached.wait(PATIENCE)
    others = [node.log.append([use("l", f"l-{n}")]) for n in range(3)]
    ended = node.log.append([outcome("o-1", "digest")])
    node.database.change("k")
    go()
    with pytest.raises(GroupRefusedError):
        refused.wait()
    for ticket in (*others, ended):
        ticket.wait()
    assert node.shown() == ["l-0", "l-1", "l-2", "o-1"]


@pytest.mark.parametrize("is_made", [True, False])
def test_unknown_outcome(node: Node, is_made: bool) -> None:
    """The epoch is raised, and what stands counts; uses are not written again."""
    node.log.append([draft(1)]).wait()
    node.database.unknown = [is_made]
    go = node.hold()
    tickets = [node.log.append([intent("i-1")])]
    assert node.reached.wait(PATIENCE)
    tickets += [node.log.append([use("k", "use")]), node.log.append([outcome("i-1")])]
    go()
    for ticket in tickets:
        with pytest.raises(AuditUnavailableError) as caught:
            ticket.wait()
        assert not isinstance(caught.value, GroupRefusedError)
    until_healed(node)
    assert node.database.epoch == node.view.epoch == 2
    assert node.shown() == ["request-1", "i-1", "i-1", "system.resume"]
    detail = node.events()[-1].detail
    assert isinstance(detail, ResumeDetail)
    assert detail.rewritten_from == (3 if is_made else 2)
    node.log.append([use("k", "again")]).wait()
    assert node.shown()[-1] == "again"


def test_unknown_outcome_of_what_repairs(node: Node) -> None:
    """An outage within the repair repeats nothing."""
    node.database.unknown = [True, True, False, True]
    with pytest.raises(AuditUnavailableError):
        node.log.append([intent("i-1")]).wait()
    until_healed(node)
    assert node.shown().count("i-1") == 1
    assert node.shown().count("system.resume") >= 1
    assert node.database.epoch >= 3


def test_group_is_refused_where_its_own_epoch_was_raised(node: Node) -> None:
    """A node that lost its place writes nothing, and says so."""
    node.database.epoch += 1
    node.database.is_fenced = True
    with pytest.raises(AuditUnavailableError):
        node.log.append([draft(1)]).wait()
    assert node.log.health.state == "failing"
    assert node.database.records == []
    with pytest.raises(AuditUnavailableError):
        node.log.append([draft(2)])
    node.database.is_fenced = False
    until_healed(node)


def test_refusal_without_reason_is_an_outage(node: Node) -> None:
    """A group that would be refused again and again does not spin."""
    node.database.epoch += 1
    with pytest.raises(AuditUnavailableError):
        node.log.append([draft(1)]).wait()
    until_healed(node)
    assert node.shown() == ["request-1", "system.resume"]

# SPDX-License-Identifier: MIT
"""Verification of all logs of a cluster: whole ones pass, each attack is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
import pytest

from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    AuditTamperedError,
    ConfigurationError,
    HSMError,
    InvalidInputError,
)
from hsm_core.factory import open_hsm
from hsm_core.model import AuditedCaller, AuditEntry, Phase
from hsm_core.operations import ListAuditEvents, VerifyAudit, following_range
from hsm_core.protocols import HSM, AuditDraft
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import FakeClock, caller
from hsm_core.users import User
from tests.core.audit_support import KEY, fill, intent
from tests.core.cluster_logs import Site, site_on
from tests.core.cluster_nodes import open_node, sql
from tests.core.hsm_support import session_of
from tests.core.second_reader import BadLogError, Log, read_cluster

_KEY_ID: Final = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"


def verify(url: str, key: bytes | None = KEY) -> dict[str, int]:
    """Verify a cluster; return the number of records of each node."""
    found = ClusterVerifier(read_location(url), key).verify()
    if key is not None:
        read = read_second(url)
        assert read.keys() == {each.log.log_id for each in found}
        for each in found:
            # A node that has its log open may have written more.
            seq, leaf = read[each.log.log_id].head
            assert seq > each.log.head_seq or leaf == each.log.head_hash
    return {each.node: each.log.records for each in found}


def read_second(url: str) -> dict[str, Log]:
    """Read a cluster by the second reader, in one state."""
    statements = {
        "logs": "SELECT log_id, head, pruned_next, pruned_record FROM logs",
        "records": "SELECT log_id, seq, line FROM records",
        "facts": "SELECT log_id, first_seq, line FROM facts",
        "baselines": "SELECT log_id, next_seq, number, line FROM baselines",
    }
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        tables = {
            name: connection.execute(statement).fetchall()
            for name, statement in statements.items()
        }
    return read_cluster(tables, KEY)


def use(site: Site, node: str, generation: int, revision: int, count: int = 1) -> None:
    """Record uses of a key at a revision, whatever the node has applied."""
    draft = AuditDraft(
        phase=Phase.SINGLE,
        kind="Sign",
        caller=AuditedCaller(principal="alice"),
        key_id=_KEY_ID,
        version=1,
        generation=generation,
        bound=b"x",
        revision=revision,
    )
    site.logs[node].append([draft] * count).wait()


def change(site: Site, node: str, generation: int, revision: int) -> None:
    """Record a change of the key: intent and outcome."""
    begun = AuditDraft(
        phase=Phase.INTENT,
        kind="UpdateKey",
        operation_id=f"{revision:032x}",
        key_id=_KEY_ID,
        generation=generation,
    )
    site.logs[node].append([begun])
    ended = msgspec.structs.replace(
        begun, phase=Phase.OUTCOME, revision=revision, document_after="ab" * 32
    )
    site.logs[node].append([ended]).wait()


def story(site: Site, clock: FakeClock) -> None:
    """Record uses and changes of one key on two nodes, as they happen in order."""
    change(site, "a", 1, 1)
    use(site, "b", 1, 1, 150)
    site.watch()
    clock.advance(3)
    change(site, "b", 2, 2)
    use(site, "a", 2, 2, 5)
    site.watch()
    clock.advance(3)
    use(site, "b", 2, 3, 5)
    site.watch()


def test_whole_logs_pass(database: str) -> None:
    """They pass while nodes have them open, and after they were closed."""
    clock = FakeClock()
    with site_on(database, "a", "b", clock=clock) as site:
        story(site, clock)
        before = verify(database)

    assert before == verify(database) == verify(database, None)
    assert {"a", "b"} == before.keys()


OF_NODE: Final = "log_id = (SELECT log_id FROM logs WHERE node = '?')"
ATTACKS: Final[dict[str, tuple[str, str]]] = {
    "a log is removed": (
        "DELETE FROM records WHERE OF_A; DELETE FROM facts WHERE OF_A; "
        "DELETE FROM logs WHERE OF_A",
        "log_missing",
    ),
    "a record is removed": (
        "DELETE FROM records WHERE OF_B AND seq = 60",
        "sequence",
    ),
    "an end is removed": ("DELETE FROM records WHERE OF_B AND seq > 100", "shorter"),
    "a record is altered": (
        "UPDATE records SET line = overlay(line PLACING '\\x7a'::bytea FROM 200) "
        "WHERE OF_B AND seq = 60",
        "mac",
    ),
    "two records are swapped": (
        "UPDATE records SET line = (SELECT line FROM records AS other WHERE "
        "other.log_id = records.log_id AND other.seq = 121 - records.seq) "
        "WHERE OF_B AND seq IN (60, 61)",
        "sequence",
    ),
    "a record of another log": (
        "UPDATE records SET line = (SELECT line FROM records WHERE OF_A AND seq = 3) "
        "WHERE OF_B AND seq = 3",
        "mac",
    ),
    "facts lines are removed": ("DELETE FROM facts WHERE OF_B", "facts"),
    "a facts line is added": (
        "INSERT INTO facts SELECT log_id, 5000, line FROM facts WHERE OF_B LIMIT 1",
        "facts",
    ),
    "a head mark is altered": (
        "UPDATE logs SET head = overlay(head PLACING '\\x07'::bytea FROM 80) "
        "WHERE OF_B",
        "head_damaged",
    ),
    "head marks are swapped": (
        "UPDATE logs SET head = (SELECT head FROM logs WHERE OF_A) WHERE OF_B",
        "log_id",
    ),
    "a view is added": ("CREATE VIEW more AS SELECT * FROM records", "database"),
}
"""What an attacker executes, and how verification names it."""


@pytest.fixture(scope="module")
def told(postgresql: Any) -> Iterator[str]:
    """Give the name of a database with two logs, for attacks on copies of it."""
    name = postgresql.new_database()
    clock = FakeClock()
    with site_on(postgresql.url(name), "a", "b", clock=clock) as site:
        story(site, clock)
    yield name
    postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_named(postgresql: Any, told: str, attack: str) -> None:
    """Whoever may write the database but has no key is found out, with a reason."""
    copy = postgresql.new_database(template=told)
    statement, reason = ATTACKS[attack]
    for node in "ab":
        statement = statement.replace(f"OF_{node.upper()}", OF_NODE.replace("?", node))
    sql(postgresql.url(copy), statement)

    with pytest.raises(AuditTamperedError) as caught:
        verify(postgresql.url(copy))
    assert reason == caught.value.facts["reason"]
    if reason != "database":
        with pytest.raises(BadLogError) as found:
            read_second(postgresql.url(copy))
        assert reason == found.value.reason


def test_an_older_end_with_its_mark_is_named(database: str) -> None:
    """An older copy of one log is authentic; the other log names what it lacks."""
    clock = FakeClock()
    with site_on(database, "a", "b", clock=clock) as site:
        use(site, "b", 1, 0, 3)
        ((log_id, head),) = sql(
            database, "SELECT log_id, head FROM logs WHERE node = 'b'"
        )
        use(site, "b", 1, 0, 3)
        site.watch()
        site.watches["b"].record_growth(now=True)
    sql(database, "DELETE FROM records WHERE log_id = %s AND seq > 3", log_id)
    sql(database, "DELETE FROM facts WHERE log_id = %s AND first_seq > 3", log_id)
    sql(database, "UPDATE logs SET head = %s WHERE log_id = %s", head, log_id)

    with pytest.raises(AuditTamperedError) as caught:
        verify(database)
    assert {"reason": "cut", "log_id": log_id, "seq": 4} == caught.value.facts


def _stale(site: Site, _clock: FakeClock) -> None:
    change(site, "a", 1, 1)
    change(site, "a", 2, 2)
    use(site, "b", 1, 2)


def _after_coverage(site: Site, _clock: FakeClock) -> None:
    change(site, "a", 1, 1)
    change(site, "a", 2, 2)
    site.watch()
    use(site, "b", 1, 1)


def _unnamed(site: Site, clock: FakeClock) -> None:
    use(site, "a", 1, 0)
    for _ in range(8):
        use(site, "b", 1, 0)
        clock.advance(2)


def _unsettled(site: Site, clock: FakeClock) -> None:
    site.logs["a"].append([intent("c" * 32)]).wait()
    clock.advance(31)
    site.watch()
    use(site, "b", 1, 0)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_stale, "stale_use"),
        (_after_coverage, "stale_use"),
        (_unnamed, "unnamed"),
        (_unsettled, "unsettled"),
    ],
)
def test_what_a_database_that_lies_makes_nodes_record(
    database: str, write: Callable[[Site, FakeClock], None], reason: str
) -> None:
    """Logs that are each whole contradict each other, and verification says how."""
    clock = FakeClock()
    with site_on(database, "a", "b", clock=clock) as site:
        write(site, clock)

    with pytest.raises(AuditTamperedError) as caught:
        verify(database)
    assert reason == caught.value.facts["reason"]
    if reason == "stale_use":
        with pytest.raises(BadLogError) as found:
            read_second(database)
        assert caught.value.facts["seq"] == found.value.seq


def test_a_pause_of_a_node_is_no_silence(database: str) -> None:
    """Only the time in which a node records something counts against it."""
    clock = FakeClock()
    with site_on(database, "a", "b", clock=clock) as site:
        use(site, "b", 1, 0)
        use(site, "a", 1, 0)
        clock.advance(600)
        use(site, "b", 1, 0)
        site.watch()

    assert {"a": 3, "b": 4} == verify(database)


@pytest.mark.parametrize("kind", ["system.start", "system.resume"])
def test_short_lives_of_a_node_are_no_silence(database: str, kind: str) -> None:
    """A node that starts again and again, or often can't write, has named nobody."""
    clock, start = FakeClock(), AuditDraft(phase=Phase.SINGLE, kind=kind)
    with site_on(database, "a", "b", clock=clock) as site:
        use(site, "a", 1, 0)
        for _ in range(8):
            clock.advance(60)
            site.logs["b"].append([start]).wait()
            use(site, "b", 1, 0)
            clock.advance(1)
            use(site, "b", 1, 0)

    assert {"a": 2, "b": 25} == verify(database)


def test_a_database_without_a_cluster_is_refused(database: str) -> None:
    """Nothing is created in it."""
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="holds no cluster"):
            verify(database)


def test_pruned_logs_pass(database: str) -> None:
    """The baseline stands for what was pruned, also where others name it."""
    clock = FakeClock()
    with site_on(database, "a", "b", clock=clock) as site:
        fill(site.logs["b"], 50)
        story(site, clock)
        clock.advance(30 * 24 * 3600)
        site.watch()
        log = site.logs["b"]
        log.prune(log.prunable(clock.now() - 24 * 3600 * 1_000_000), "cd" * 32)
        first = log.first_seq

        assert 0 < first
        assert verify(database)


def test_the_logs_of_nodes_that_work_pass(database: str, tmp_path: Path) -> None:
    """Uses and outcomes bear revisions, and each node names the other's log."""

    def node(name: str) -> OpenHSM:
        mark = tmp_path / f"{name}.mark"
        settings = Settings(store=database, node_name=name, node_mark=mark)
        return open_hsm(settings, master_key=bytes(32), hmac_key=KEY, test_all=False)

    with closing(node("a")) as a, closing(node("b")) as b:
        first, second = session_of(a), session_of(b)
        key_id = first.create_key(Algorithm.EC_P256).key_id
        second.sign(key_id, b"x")
        second.rotate(key_id)
        first.sign(key_id, b"x")
        first.suspend(key_id)
        with pytest.raises(HSMError):
            second.sign(key_id, b"x")
        before = verify(database)
        _check_queries(a.act_as(caller()), b.act_as(caller()))

    assert before.keys() == verify(database).keys() == {"a", "b"}
    lines = [bytes(line) for (line,) in sql(database, "SELECT line FROM records")]
    kinds = {b'"kind":"Sign"': 2, b'"phase":"outcome"': 3}
    for mark, count in kinds.items():
        found = [each for each in lines if mark in each and b'"code"' not in each]
        assert count == len([each for each in found if b',"revision":' in each])
    sql(database, "DELETE FROM logs WHERE node = 'a'")
    with pytest.raises(AuditTamperedError) as caught:
        verify(database)
    assert "log_missing" == caught.value.facts["reason"]


def test_a_node_that_joins_during_a_verification(database: str, tmp_path: Path) -> None:
    """A verification goes on in the log that it began, whatever logs come before it."""
    with closing(open_node(database, tmp_path, "b")) as b:
        auditor = b.act_as(caller())
        auditor.execute(ListAuditEvents())
        call = VerifyAudit(limit=1)
        found = auditor.execute(call)
        with closing(open_node(database, tmp_path, "a")) as a:
            a.act_as(caller()).execute(ListAuditEvents())
            following = following_range(call, found)
            assert following is not None
            assert "b" == auditor.execute(following).node


def _check_queries(first: HSM, second: HSM) -> None:
    """Check that any node shows and verifies the records of all, in order of time."""
    shown: list[AuditEntry] = []
    query = ListAuditEvents(limit=3)
    while True:
        page = second.execute(query)
        shown += page.items
        if not page.next_cursor:
            break
        query = msgspec.structs.replace(query, cursor=page.next_cursor)
    times = [entry.event.time for entry in shown]
    places = [(entry.node, entry.event.seq) for entry in shown]

    assert {"a", "b"} == {entry.node for entry in shown}
    assert sorted(times, reverse=True) == times
    assert len(set(places)) == len(places)
    for node in ("a", "b"):
        seqs = [seq for found, seq in places if found == node]
        assert list(range(max(seqs), -1, -1)) == seqs
    only = ListAuditEvents(log_id=shown[0].log_id, limit=1000)
    assert {shown[0].node} == {entry.node for entry in first.execute(only).items}
    found = first.execute(VerifyAudit())
    assert "a" == found.node
    following = following_range(VerifyAudit(), found)
    assert following is not None
    last = second.execute(following)
    assert ("b", following.log_id) == (last.node, last.log_id)
    whole, report = Session(first).verify_audit(), User(second).audit.verify()
    assert ("b", last.log_id) == (whole.node, whole.log_id)
    assert found.verified + last.verified < whole.verified < report.records
    assert ["a", "b"] == [log.node for log in report.logs]
    assert {entry.log_id for entry in shown} == {log.log_id for log in report.logs}
    for wrong in (ListAuditEvents(log_id="0" * 32), ListAuditEvents(cursor="x")):
        with pytest.raises(InvalidInputError):
            first.execute(wrong)

# SPDX-License-Identifier: MIT
"""Audit logs of several nodes: each continues its own, and they name each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from hsm_core._internal.audit.heads import HeadsWatch
from hsm_core._internal.audit.reading import AuditWalk, lines_from
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.postgresql.audit_logs import ReadableLog
from hsm_core._internal.stores.postgresql.audit_offline import ClusterVerifier
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import HeadsDetail, LogHead
from tests.core.audit_support import KEY, draft, fill, intent
from tests.core.cluster_logs import Site, site_on
from tests.postgresql import PostgreSQL


def test_a_node_continues_its_own_log(database: str) -> None:
    """Another node begins one of its own; each finds its records again."""
    with site_on(database, "a", "b") as site:
        fill(site.logs["a"], 3)
        fill(site.logs["b"], 5)
        before = {node: log.log_id for node, log in site.logs.items()}

    with site_on(database, "a", "b", "c") as site:
        assert before == {node: site.logs[node].log_id for node in ("a", "b")}
        assert [2, 4, -1] == [log.head().seq for log in site.logs.values()]


def test_logs_name_the_growth_of_the_others(database: str) -> None:
    """The record has size and last leaf hash of each log that has grown, once."""
    with site_on(database, "a", "b", "c") as site:
        fill(site.logs["b"], 3)
        fill(site.logs["c"], 2)
        heads = {log.log_id: log.head() for log in site.logs.values()}
        site.watches["a"].record_growth(now=True)
        site.watches["a"].record_growth(now=True)
        line = site.logs["a"].lines(1, 2)

        assert 1 == len(line)
        detail = event_of(line[0], 1).detail
        assert isinstance(detail, HeadsDetail)
        for head in detail.logs:
            assert heads[head.log_id].seq == head.size - 1
            assert heads[head.log_id].leaf_hash == head.leaf_hash
        names = {site.logs["b"].log_id, site.logs["c"].log_id}
        assert names == {head.log_id for head in detail.logs}


def test_many_logs_are_named_by_several_records(database: str) -> None:
    """Nodes that are gone leave more logs behind than one record has room for."""
    heads = [
        LogHead(log_id=f"{number:032x}", size=2**40, leaf_hash="f" * 64)
        for number in range(1000)
    ]
    with site_on(database, "a") as site:
        log = site.logs["a"]
        HeadsWatch(log, lambda known: heads).record_growth(now=True)
        records = log.lines(1, 100)

    details = [event_of(line, seq).detail for seq, line in enumerate(records, 1)]
    assert heads == [
        head
        for detail in details
        for head in (detail.logs if isinstance(detail, HeadsDetail) else ())
    ]


def test_idle_logs_come_to_rest(database: str) -> None:
    """Records that name growth are no growth that others would have to name."""
    with site_on(database, "a", "b") as site:
        fill(site.logs["a"], 2)
        site.watch()
        site.watch()
        before = [log.head().seq for log in site.logs.values()]
        site.watch()
        site.watch()

        assert [2, 1] == before == [log.head().seq for log in site.logs.values()]


def test_idle_logs_are_looked_at_once(database: str) -> None:
    """An idle node that names a busy one for months costs the busy one nothing."""
    with site_on(database, "a", "b") as site:
        log_id = site.logs["b"].log_id
        for number in range(3):
            fill(site.logs["a"], 1 + number)
            site.watches["b"].record_growth(now=True)
        known = {site.logs["a"].log_id: 2**62, log_id: 1}
        assert [] == site.all.grown(known)
        with site.database.transaction() as connection:
            connection.execute(
                "UPDATE records SET line = (SELECT line FROM records "
                "WHERE log_id <> $1 AND seq = 1) WHERE log_id = $1 AND seq < 3",
                (log_id,),
            )

        assert [] == site.all.grown(known)
        assert [] == site.all.grown({**known, log_id: 2})
        fill(site.logs["b"], 1)
        assert [5] == [head.size for head in site.all.grown(known)]
        assert [5] == [head.size for head in site.all.grown({**known, log_id: 0})]
        assert [] == site.all.grown({**known, log_id: 5})


def test_open_intents_of_another_node_are_found(database: str) -> None:
    """They are verified, and found while the other node has its log open."""
    with site_on(database, "a", "b") as site:
        site.logs["b"].append([intent("b" * 32)], durable=True).wait()
        log_id = site.all.log_of("b")

        assert site.logs["b"].log_id == log_id
        assert ["b" * 32] == [e.operation_id for e in site.all.open_intents(log_id)]
        assert [] == site.all.open_intents(site.all.log_of("a"))
        assert "" == site.all.log_of("c")


def _late(site: Site, point: str, first: Callable[[], object]) -> Callable[[str], None]:
    """Return what lets a successor of node a do something first, once."""
    former = site.logs["a"]

    def strike(reached: str) -> None:
        if reached == point and site.logs["a"] is former:
            site.open("a")
            first()

    return strike


def test_a_process_that_was_replaced_while_it_closed_its_log(database: str) -> None:
    """It leaves the end of the log as its successor has noted it."""
    with site_on(database, "a") as site:
        former = site.logs["a"]
        fill(former, 3)
        late = _late(site, "audit.before_clean_mark", lambda: fill(site.logs["a"], 2))
        with install(late), pytest.raises(AuditUnavailableError):
            former.close()

        assert 4 == site.all.log(former.log_id).head().seq
        assert 5 == verified(database)


def test_a_process_that_was_replaced_while_it_pruned(database: str) -> None:
    """It removes nothing that its successor needs."""
    with site_on(database, "a") as site:
        former = site.logs["a"]
        fill(former, 20)

        def prune_again() -> None:
            fill(site.logs["a"], 20)
            assert site.logs["a"].prune(30, "again") is not None

        late = _late(site, "audit.prune.after_record", prune_again)
        with install(late), pytest.raises(AuditUnavailableError):
            former.prune(10, "once")

        assert 30 == site.all.log(former.log_id).first_seq
        assert 12 == verified(database)
        with suppress(AuditUnavailableError):
            former.close()


class _PrunedMeanwhile(ReadableLog):
    """A log whose node prunes it as soon as a reader knows where it begins."""

    def __init__(self, site: Site, end: int) -> None:
        self._pruned = site.logs["a"]
        super().__init__(site.database, self._pruned.log_id, KEY)
        self._end = end

    @property
    def first_seq(self) -> int:
        """Oldest record before the node prunes, and after that the oldest again."""
        first = super().first_seq
        if first < self._end:
            self._pruned.prune(self._end, "meanwhile")
        return first


def test_a_log_that_its_node_prunes_meanwhile_is_not_damaged(database: str) -> None:
    """Whoever reads the log of another node goes on behind what has just gone."""
    with site_on(database, "a", "b") as site:
        fill(site.logs["a"], 50)

        assert 10 == _PrunedMeanwhile(site, 10).verify(0, 1000).start_seq
        assert (20, 5) == _found(lines_from(_PrunedMeanwhile(site, 20), 0, 5))
        end = _PrunedMeanwhile(site, 30).leaf_at(5)
        assert end is not None
        assert 30 == end.seq
        assert [] == list(_PrunedMeanwhile(site, 40).baseline())
        walk = AuditWalk(log := _PrunedMeanwhile(site, 45), log.verify)
        assert {} == walk.known()


def _found(page: tuple[int, list[bytes]]) -> tuple[int, int]:
    """Return where a page of records begins, and how many it has."""
    first, lines = page
    return first, len(lines)


def verified(database: str) -> int:
    """Verify the log of the one node; return how many records it has."""
    (found,) = ClusterVerifier(read_location(database), KEY).verify()
    return found.log.records


def _append(site: Site, number: int, *, patience: float = 0.0) -> None:
    """Append one record; try again for some time."""
    limit = time.monotonic() + patience
    while True:
        try:
            site.logs["a"].append([draft(number)]).wait()
        except AuditUnavailableError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.05)
        else:
            return


def test_a_log_resumes_when_its_database_is_back() -> None:
    """While it is gone nothing is acknowledged; what was before is there once."""
    server = PostgreSQL.create()
    try:
        name = server.new_database()
        with site_on(server.url(name), "a") as site:
            for number in range(20):
                _append(site, number)
            server.stop("immediate")
            with pytest.raises(AuditUnavailableError):
                _append(site, 20)
            server.start()
            _append(site, 40, patience=60)
            lines = site.logs["a"].lines(0, 1000)
            events = [event_of(line, seq) for seq, line in enumerate(lines)]
            asked = [event.request_id for event in events]

            for number in range(20):
                assert 1 == asked.count(f"request-{number}")
            assert "request-40" in asked
            assert "system.resume" in [event.kind for event in events]
        found = ClusterVerifier(read_location(server.url(name)), KEY).verify()
        assert [len(lines)] == [each.log.records for each in found]
    finally:
        server.remove()

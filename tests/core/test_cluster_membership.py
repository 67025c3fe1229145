# SPDX-License-Identifier: MIT
"""Membership of a cluster over real servers: names, beats, deaths, levels."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hsm_core._internal.cluster import fence
from hsm_core._internal.cluster.death_watch import PACE, DeathWatch, Pace
from hsm_core._internal.cluster.membership import (
    LEVEL,
    Membership,
    NodeFencedError,
    NodeOutdatedError,
)
from hsm_core._internal.cluster.node_rows import NodeFacts, enter
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.postgresql.audit_logs import ClusterLogs
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.time.clock import SystemClock
from hsm_core.errors import ConfigurationError, InvalidInputError, StoreLockedError
from hsm_core.model import LogHead
from tests.core.cluster_nodes import node

PATIENCE = 60.0
HASTE = Pace(beat=0.1, dead=0.6)
"""For those who watch a node that never beats."""


@contextmanager
def opened(url: str, node: str, instance: str) -> Iterator[ClusterDatabase]:
    """Open the database for the sessions of a node."""
    name = fence.session_name(node, instance)
    database = ClusterDatabase(read_location(url, name=name))
    try:
        yield database
    finally:
        database.close()


class Cluster:
    """Nodes of one database, all closed at the end."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self._stack = stack

    def database(self, node: str, instance: str) -> ClusterDatabase:
        """Return sessions of a node."""
        return self._stack.enter_context(opened(self.url, node, instance))

    def join(self, node: str, *, level: int = LEVEL, pace: Pace = PACE) -> Membership:
        """Join as a new process."""
        instance = fence.new_instance(secrets.token_bytes(4))
        database = self.database(node, instance)
        member = Membership.join(
            database, node, instance, clock=SystemClock(), level=level, pace=pace
        )
        self._stack.callback(member.close)
        return member


@pytest.fixture
def cluster(database: str) -> Iterator[Cluster]:
    """Give a new cluster."""
    with ExitStack() as stack:
        yield Cluster(database, stack)


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.02)


def states(member: Membership) -> dict[str, str]:
    """Return the state of each node."""
    return {row.node: row.state for row in member.nodes()}


def test_node_joins_and_leaves(cluster: Cluster) -> None:
    """A node that left can join again, under a new epoch."""
    first, second = cluster.join("a"), cluster.join("b")
    first.start()
    second.start()
    until(lambda: all(row.beat > 2 for row in first.nodes()))
    assert states(first) == {"a": "live", "b": "live"}
    assert first.epoch == second.epoch == 1
    assert abs(first.clock_difference_seconds) < PATIENCE
    second.close(settled=True)
    assert states(first) == {"a": "live", "b": "stopped"}
    again = cluster.join("b")
    assert again.epoch > second.epoch
    assert states(first) == {"a": "live", "b": "live"}
    again.close()
    assert states(first) == {"a": "live", "b": "dead"}


def test_node_beats_while_it_opens(
    cluster: Cluster, database: str, tmp_path: Path
) -> None:
    """A node with a long log is not taken for dead before it is open."""
    observer = cluster.database("o", "none")

    def beat() -> int:
        found = observer.row("SELECT beat FROM nodes WHERE node = 'a'")
        assert found is not None
        return int(found[0])

    def strike(reached: str) -> None:
        if reached == "audit.open.after_mark":
            before = beat()
            until(lambda: beat() > before + 1)

    with install(strike), node(database, tmp_path):
        assert {"a": "live"} == {
            name: "live" if instance else "dead"
            for name, instance in observer.rows("SELECT node, instance FROM fence")
        }


def test_node_beats_while_naming_hangs(
    cluster: Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement about the other logs that hangs costs no beat, and so no name."""
    observer = cluster.database("o", "none")
    hangs, goes_on = threading.Event(), threading.Event()
    grown = ClusterLogs.grown

    def hang(logs: ClusterLogs, known: Mapping[str, int]) -> list[LogHead]:
        hangs.set()
        assert goes_on.wait(PATIENCE)
        return grown(logs, known)

    def beat() -> int:
        ((found,),) = observer.rows("SELECT beat FROM nodes WHERE node = 'a'")
        return int(found)

    with node(database, tmp_path):
        monkeypatch.setattr(ClusterLogs, "grown", hang)
        assert hangs.wait(PATIENCE)
        before = beat()
        until(lambda: beat() > before + 2)
        goes_on.set()


def test_second_process_of_a_name_is_refused(cluster: Cluster) -> None:
    """A name has one process."""
    cluster.join("a").start()
    with pytest.raises(StoreLockedError, match="is node a of this cluster"):
        cluster.join("a")


def test_name_of_a_dead_process_is_taken_over(cluster: Cluster) -> None:
    """A name is free once its beat stands still."""
    dead = cluster.join("a")
    began = time.monotonic()
    heir = cluster.join("a", pace=HASTE)
    assert time.monotonic() - began >= HASTE.dead
    assert heir.epoch == dead.epoch + 1
    with pytest.raises(NodeFencedError, match="Restart"):
        dead.renew()
    with pytest.raises(NodeFencedError):
        dead.check()
    heir.check_fence()


def test_name_is_taken_over_behind_a_change(cluster: Cluster) -> None:
    """Who takes a name over locks nothing that a change of before waits for."""
    before = cluster.join("a")
    # Of another name, for the sessions of before are ended.
    other = cluster.database("o", "none")
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
    joined: list[Membership] = []
    thread = threading.Thread(target=lambda: joined.append(cluster.join("a")))
    with other.transaction() as connection:
        before.lock_fence(connection)
        thread.start()
        until(lambda: connection.execute(waits).fetchone())
        connection.execute("SELECT 1 FROM cluster FOR UPDATE NOWAIT")
    thread.join(PATIENCE)
    assert joined[0].epoch == 2


def test_beat_of_a_replaced_process_changes_nothing(cluster: Cluster) -> None:
    """A process that hung and returns leaves the row of its successor alone."""
    replaced = cluster.join("a")
    replaced.facts = lambda: NodeFacts(level=LEVEL, version="older")
    heir = cluster.join("a", pace=HASTE)
    before = heir.nodes()
    told: list[NodeFencedError] = []
    replaced.on_stop = told.append
    replaced.start()
    until(lambda: told)

    assert before == heir.nodes()
    assert "fenced" in str(told[0])


def test_dead_node_is_fenced_and_settled_once(cluster: Cluster) -> None:
    """A death is settled again until that succeeds, and then no more."""
    watcher, dead = cluster.join("a", pace=HASTE), cluster.join("b")
    settled: list[tuple[str, int]] = []
    failed = threading.Event()

    def settle(node: str, epoch: int) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("The first attempt fails.")
        settled.append((node, epoch))
        watcher.note_settled(node, epoch)

    watcher.on_dead = settle
    told: list[NodeFencedError] = []
    dead.on_stop = told.append
    watcher.start()
    until(lambda: states(watcher)["b"] == "stopped")
    assert settled == [("b", dead.epoch + 1)]
    dead.start()
    until(lambda: told)
    with pytest.raises(NodeFencedError, match="fenced"):
        dead.check_fence()
    watcher.retire("b")
    assert states(watcher) == {"a": "live"}
    with pytest.raises(InvalidInputError):
        watcher.retire("a")
    assert cluster.join("b").epoch > dead.epoch + 1


def test_a_node_that_is_retired_while_it_starts(cluster: Cluster) -> None:
    """A node that has just got its name again stays in the list of nodes."""
    watcher = cluster.join("a")
    cluster.join("b").close(settled=True)
    before = {row.node: row.epoch for row in watcher.nodes()}
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
    database = cluster.database("b", "i" * 8)
    with ThreadPoolExecutor(1) as operator:
        with database.transaction() as connection:
            assert fence.take(connection, "b", "i" * 8, before["b"])
            enter(connection, "b", LEVEL)
            retired = operator.submit(watcher.retire, "b")
            until(lambda: connection.execute(waits).fetchone())
        with pytest.raises(InvalidInputError):
            retired.result()
    assert states(watcher) == {"a": "live", "b": "live"}


def test_sessions_of_a_fenced_node_are_ended(cluster: Cluster) -> None:
    """A fenced node has no session any more."""
    dead = cluster.join("b")
    held = cluster.database("b", dead.instance)
    with held.reading() as connection:
        process = connection.execute("SELECT pg_backend_pid()").fetchall()[0]
        watcher = cluster.join("a", pace=HASTE)
        watcher.start()
        until(lambda: states(watcher)["b"] != "live")
        database = cluster.database("c", "none")
        open_ones = "SELECT 1 FROM pg_stat_activity WHERE pid = $1"
        until(lambda: not database.rows(open_ones, process))


def test_own_epoch_is_raised_behind_an_open_transaction(cluster: Cluster) -> None:
    """What was sent under the old epoch is waited for."""
    member = cluster.join("a")
    other = cluster.database("a", member.instance)
    raised = threading.Event()

    def renew() -> None:
        member.renew()
        raised.set()

    thread = threading.Thread(target=renew)
    with other.transaction() as connection:
        lock = "SELECT 1 FROM fence WHERE node = $1 AND epoch = $2 FOR SHARE"
        assert connection.execute(lock, ("a", member.epoch)).fetchone()
        thread.start()
        assert not raised.wait(0.2)
    thread.join(PATIENCE)
    assert raised.is_set()
    assert member.epoch == 2
    member.check_fence()


def test_level_rises_with_the_oldest_node(cluster: Cluster) -> None:
    """The level follows the oldest node, and keeps older programs out."""
    old, new = cluster.join("a"), cluster.join("b", level=LEVEL + 1)
    observer = cluster.database("o", "none")

    def level() -> object:
        found = observer.row("SELECT level FROM cluster")
        return found and found[0]

    old.start()
    new.start()
    until(lambda: level() == LEVEL)
    old.close()
    until(lambda: level() == LEVEL + 1)
    with pytest.raises(ConfigurationError, match="does not support"):
        cluster.join("c")
    joined = cluster.join("c", level=LEVEL + 1)
    told: list[NodeFencedError] = []
    joined.on_stop = told.append
    joined.start()
    with observer.transaction() as connection:
        connection.execute("UPDATE cluster SET level = level + 1")
    until(lambda: told)
    assert "does not support" in str(told[0])


def test_a_fenced_node_that_is_too_old_says_so(cluster: Cluster) -> None:
    """It was cut off while the cluster was upgraded; it could not join again."""
    cut_off, observer = cluster.join("a"), cluster.database("o", "none")
    observer.run(lambda connection: fence.raise_epoch(connection, "a", cut_off.epoch))
    with observer.transaction() as connection:
        connection.execute("UPDATE cluster SET level = 99")

    with pytest.raises(NodeOutdatedError, match="does not support"):
        cut_off.check_fence()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 41])
def test_bad_names_are_refused(name: str) -> None:
    """A name fits in the names of the database and its sessions."""
    with pytest.raises(ConfigurationError, match="node_name"):
        fence.check_node_name(name)


def test_time_without_looking_does_not_count() -> None:
    """An observer that was stopped takes nobody for dead."""
    watch = DeathWatch()
    beats = {"b": ("i", 1, 7)}
    assert watch.observe(beats, 0.0, 0.1) == []
    # The observer was stopped.
    assert watch.observe(beats, 50.0, 50.1) == []
    for step in range(1, 6):
        assert watch.observe(beats, 50.0 + step / 2, 50.1 + step / 2) == []
    watch.restart()
    for step in range(7):
        assert watch.observe(beats, 60.0 + step / 2, 60.05 + step / 2) == []
    assert watch.observe(beats, 63.5, 63.6) == ["b"]
    assert watch.observe({"b": ("i", 1, 8)}, 64.0, 64.1) == []

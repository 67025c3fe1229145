# SPDX-License-Identifier: MIT
"""Leases of background jobs: one node runs each, and another once that one is dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hsm_core._internal.cluster import fence
from hsm_core._internal.cluster.jobs import RETRY_SECONDS, JobLeases
from hsm_core._internal.cluster.node_rows import enter
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from tests.core.cluster_nodes import node, session
from tests.core.node_support import eventually

JOBS = ("rotation", "destruction", "scrubbing", "approval-expiry")


class Member:
    """A node of a test, without a thread."""

    def __init__(self, database: ClusterDatabase, node: str) -> None:
        self.node = node
        self._database = database
        self.epoch = 0

    def join(self) -> JobLeases:
        """Take the name, whatever it was."""
        with self._database.transaction() as connection:
            before = fence.read_standing(connection, self.node).epoch
            epoch = fence.take(connection, self.node, "i" * 8, before)
            enter(connection, self.node, 1)
        assert epoch is not None
        self.epoch = epoch
        return JobLeases(self._database, self)

    def renew(self) -> None:
        """Raise the own epoch, as after a lost connection."""
        with self._database.transaction() as connection:
            epoch = fence.renew(connection, self.node, "i" * 8)
        assert epoch is not None
        self.epoch = epoch

    def die(self) -> None:
        """Be fenced by another."""
        with self._database.transaction() as connection:
            fence.raise_epoch(connection, self.node, self.epoch)


@pytest.fixture
def opened(database: str) -> Iterator[ClusterDatabase]:
    """Give a new database."""
    found = ClusterDatabase(read_location(database))
    yield found
    found.close()


def test_successor_of_the_same_name(opened: ClusterDatabase) -> None:
    """
    A process that still runs after another took its name takes no lease from it.
    """
    former, present = Member(opened, "a"), Member(opened, "a")
    its, ours = former.join(), present.join()
    assert ours.holds("rotation")
    assert not its.holds("rotation")
    assert (present.epoch,) == opened.row("SELECT epoch FROM leases")


def test_jobs_move_when_nodes_die(opened: ClusterDatabase) -> None:
    """
    Every job has one node, which keeps it; those of a dead one go to another.
    """
    former, other = Member(opened, "a"), Member(opened, "b")
    its, theirs = former.join(), other.join()
    assert all(its.holds(job) for job in JOBS)
    assert not any(theirs.holds(job) for job in JOBS)

    former.die()
    assert not any(its.holds(job) for job in JOBS)
    assert all(theirs.holds(job) for job in JOBS)
    again = former.join()
    assert not any(again.holds(job) for job in JOBS)


def test_a_holder_that_is_not_listed_as_a_node(
    opened: ClusterDatabase, database: str, tmp_path: Path
) -> None:
    """
    The jobs of a node that nobody watches are taken, and so are run.
    """
    with opened.transaction() as connection:
        connection.execute("INSERT INTO fence VALUES ('ghost', 5, 'deadbeef')")
        connection.execute("INSERT INTO leases VALUES ('rotation', 'ghost', 5)")
    with node(database, tmp_path) as one:
        keys = session(one)
        keys.create_key("ed25519", name="due")
        keys.set_rotation("due", max_uses=1)
        keys.sign("due", b"m")

        def look() -> bool:
            one.schedulers._worker.hurry()  # noqa: SLF001 (it is an hour till then)
            return keys.describe("due").versions > 1

        eventually(look)


def test_a_locked_node_gives_back_its_jobs(opened: ClusterDatabase) -> None:
    """
    A job of a node that was locked is ended there, and goes to another.
    """
    one, two = Member(opened, "a").join(), Member(opened, "b").join()
    ended: list[bool] = []
    assert one.holds("rotation")
    one.is_locked = lambda: True

    assert not one.holds("rotation", lambda: ended.append(two.holds("rotation")))
    assert [False] == ended
    assert two.holds("rotation")
    assert not one.holds("rotation")
    assert "b" == two.holder("rotation")


def test_a_holder_that_renews_its_epoch(opened: ClusterDatabase) -> None:
    """
    A node keeps its leases when it raises its own epoch, and no others.
    """
    one, two = Member(opened, "a"), Member(opened, "b")
    first = one.join()
    assert first.holds("of a former process")
    first = one.join()
    assert first.holds("rotation")
    second = two.join()
    one.renew()

    assert not second.holds("rotation")
    assert one.epoch == 3
    rows = opened.rows("SELECT name, epoch FROM leases")
    assert {"rotation": 3, "of a former process": 1} == dict(rows)


def test_a_lease_that_is_given_back_late(opened: ClusterDatabase) -> None:
    """
    A process that was fenced while it left does not give back its successor's lease.
    """
    former, present = Member(opened, "a"), Member(opened, "a")
    its = former.join()
    assert its.holds("rotation")
    its.is_locked = lambda: True

    def pause() -> None:
        assert present.join().holds("rotation")

    assert not its.holds("rotation", pause)
    assert [("a", present.epoch)] == opened.rows("SELECT node, epoch FROM leases")


def test_many_at_once(opened: ClusterDatabase) -> None:
    """
    Of nodes that ask at the same time, one gets the job.
    """
    leases = [Member(opened, f"n{number}").join() for number in range(4)]
    found: list[bool] = []

    def ask(each: JobLeases) -> None:
        found.append(each.holds("rotation"))

    threads = [threading.Thread(target=ask, args=(each,)) for each in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [False, False, False, True] == sorted(found)


def test_a_guarded_task(opened: ClusterDatabase) -> None:
    """
    A task runs on the node that has its job; the others ask again soon.
    """
    leases = [Member(opened, name).join() for name in "ab"]
    ran: list[int] = []

    def task(number: int) -> float:
        ran.append(number)
        return 77.0

    found = [
        each.guarded("rotation", partial(task, number))()
        for number, each in enumerate(leases)
    ]

    assert 1 == len(ran)
    assert {77.0, RETRY_SECONDS} == set(found)


def test_one_rotation_on_two_nodes(database: str, tmp_path: Path) -> None:
    """
    A key that is due is rotated once, however often all nodes look.
    """
    with node(database, tmp_path, "a") as one, node(database, tmp_path, "b") as two:
        keys = session(one)
        keys.create_key("ed25519", name="due")
        keys.set_rotation("due", max_uses=1)
        keys.sign("due", b"m")

        def look() -> bool:
            for each in (one, two):
                each.schedulers._worker.hurry()  # noqa: SLF001 (it is an hour till then)
            return keys.describe("due").versions > 1

        eventually(look)
        for _ in range(5):
            look()
        time.sleep(0.2)

        assert 2 == session(two).describe("due").versions

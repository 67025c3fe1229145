# SPDX-License-Identifier: MIT
"""Nodes and databases that are killed: nothing answered is lost, nothing made twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random

import pytest

from hsm_core._internal.audit.reading import verified_events
from hsm_core._internal.stores.postgresql.audit_logs import ClusterLogs
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.factory import OpenHSM
from hsm_core.model import Phase
from hsm_core.operations import ListNodes
from hsm_core.testing import caller
from tests.core.cluster_lives import SHARED, Journal, Life
from tests.core.cluster_nodes import AUDIT_KEY, node, session, verify
from tests.core.node_support import eventually
from tests.postgresql import PostgreSQL

KILLS = int(os.environ.get("FERROHSM_NODE_KILLS", "2"))
"""How many nodes are killed; 300 in the session `node_kills`, and 100 databases."""


@pytest.fixture
def server(postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """Give a server that may be killed in the long form."""
    if KILLS <= 2:
        yield postgresql
        return
    own = PostgreSQL.create(max_connections="100")
    yield own
    own.remove()


def test_nodes_and_databases_that_are_killed(
    server: PostgreSQL, tmp_path: Path
) -> None:
    """
    Two nodes work and are killed, again and again, and in between their database.
    """
    url, random = server.url(server.new_database()), Random(KILLS)
    with node(url, tmp_path, "first") as hsm:
        session(hsm).create_key("ed25519", name=SHARED)
    for number in range(0, KILLS, 2):
        lives = [
            Life.begin(url, tmp_path, f"n{each % 6}", each)
            for each in (number, number + 1)
        ]
        for life in lives:
            life.wait_until_ready()
        time.sleep(random.uniform(0.1, 0.6))
        if KILLS > 2 and number % 3:
            server.kill()
            server.start()
            time.sleep(random.uniform(0.1, 0.6))
        for life in lives:
            life.kill()

    with node(url, tmp_path, "last") as hsm:
        eventually(lambda: is_settled(hsm))
        compare(hsm, Journal.read(tmp_path / "journal"), url)
    assert min(2 + KILLS, 8) == len(verify(url))


def is_settled(hsm: OpenHSM) -> bool:
    """Return whether no node has anything unfinished."""
    nodes = hsm.act_as(caller()).execute(ListNodes()).items
    return [one.node for one in nodes if one.state != "stopped"] == ["last"]


def compare(hsm: OpenHSM, journal: Journal, url: str) -> None:
    """Compare keys and records with what the nodes wrote down."""
    for (operation, name), answers in journal.answers.items():
        if operation == "create":
            assert answers == [session(hsm).describe(name).key_id]
    versions = session(hsm).describe(SHARED).versions
    rotated = [int(answer) for answer in journal.answers.get(("rotate", SHARED), [])]
    assert len(set(rotated)) == len(rotated)
    assert set(rotated) <= set(range(2, versions + 1))
    assert versions - 1 <= journal.begun["rotate", SHARED]
    made = {key.name for key in session(hsm).keys()}
    assert made <= {SHARED} | {name for kind, name in journal.begun if kind == "create"}

    signed = rotations = 0
    database = ClusterDatabase(read_location(url))
    logs = ClusterLogs(database, AUDIT_KEY)
    for event in chain.from_iterable(
        verified_events(log, log.verify, log.first_seq)
        for log in (logs.log(name.log_id) for name in logs.names())
    ):
        signed += event.kind == "Sign" and event.code == "ok"
        is_outcome = event.kind == "RotateKey" and event.phase is Phase.OUTCOME
        rotations += is_outcome and event.code == "ok"
    database.close()
    assert journal.done["sign", SHARED] <= signed <= journal.begun["sign", SHARED]
    assert len(rotated) <= rotations <= versions - 1
    assert signed

# SPDX-License-Identifier: MIT
"""Nodes of a cluster on the command line: listed, retired, and shown in the status."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from tests.cli.support import run_here
from tests.postgresql import PostgreSQL


def opened(url: str, name: str, folder: Path) -> OpenHSM:
    """Open a node."""
    settings = Settings(store=url, node_name=name, node_mark=folder / f"{name}.mark")
    return open_hsm(
        settings, master_key=bytes(32), hmac_key=bytes(range(32)), test_all=False
    )


@pytest.fixture(scope="module")
def node(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenHSM]:
    """Give a running node, of a cluster that another one has left."""
    folder = tmp_path_factory.mktemp("nodes")
    url = postgresql.url(postgresql.new_database())
    with opened(url, "a", folder) as hsm:
        opened(url, "gone", folder).close()
        yield hsm


def test_nodes_are_listed_and_retired(node: OpenHSM) -> None:
    """A node that left can be retired, and one that runs can't."""
    hsm = node.act_as(caller())
    listed = run_here("operator", "nodes", "list", hsm=hsm)
    refused = run_here("operator", "nodes", "retire", "a", hsm=hsm)
    retired = run_here("operator", "nodes", "retire", "gone", hsm=hsm)

    assert (0, 0) == (listed.code, retired.code)
    assert ["a", "live"] == listed.lines[1].split()[:2]
    assert ["gone", "stopped"] == listed.lines[2].split()[:2]
    assert 0 != refused.code
    assert "Node 'a' can't be retired" in refused.err
    assert "gone" not in retired.text


def test_the_status_of_a_node(node: OpenHSM) -> None:
    """It names the node, and says that nothing waits for a standby."""
    ends = time.monotonic() + 60
    while (
        "live nodes" not in (text := run_here("status", hsm=node.act_as(caller())).text)
        or "live nodes           0" in text
    ):
        assert time.monotonic() < ends
        time.sleep(0.1)

    assert "NOT SERVING" not in text
    assert "can lose acknowledged changes; the HSM then locks" in " ".join(text.split())


def test_a_single_machine_has_no_nodes() -> None:
    """It says so, and shows nothing of a cluster in its status."""
    with memory_hsm() as hsm:
        user = hsm.act_as(caller())
        listed = run_here("operator", "nodes", "list", hsm=user)
        status = run_here("status", hsm=user)

    assert 0 != listed.code
    assert "This HSM has no nodes" in listed.err
    assert "standby" not in status.text

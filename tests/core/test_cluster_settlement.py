# SPDX-License-Identifier: MIT
"""What a dead node left unfinished is settled by another, and recorded there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from hsm_core.errors import KeyNotFoundError
from hsm_core.model import Phase
from tests.core.cluster_nodes import die_at, events, node, open_node, session, verify
from tests.core.filesystem_child import was_killed
from tests.core.node_support import eventually


def create_and_die(url: str, folder: Path, name: str) -> None:
    """Open node "a", and die while it creates a key."""
    hsm = open_node(url, folder)
    session(hsm).create_key("ed25519", name="first")
    die_at(name, lambda: session(hsm).create_key("ed25519", name="second"))


@pytest.mark.parametrize(
    ("failpoint", "code", "exists"),
    [
        ("mutation.after_intent", "recovered-aborted", False),
        ("mutation.after_store", "recovered-committed", True),
    ],
)
def test_a_node_that_dies_in_a_change(
    database: str, tmp_path: Path, failpoint: str, code: str, *, exists: bool
) -> None:
    """
    Another node decides the change and records it, and the dead one agrees later.
    """
    assert was_killed(partial(create_and_die, database, tmp_path, failpoint))
    with node(database, tmp_path, "b") as other:
        eventually(lambda: bool(events(other, lambda event: bool(event.intent_log))))
        (settled,) = events(other, lambda event: bool(event.intent_log))
        assert (Phase.OUTCOME, code) == (settled.phase, settled.code)
        assert "first" == session(other).describe("first").name
        if exists:
            assert "second" == session(other).describe("second").name
        else:
            with pytest.raises(KeyNotFoundError):
                session(other).describe("second")

        with node(database, tmp_path) as again:
            own = events(again, lambda e: e.operation_id == settled.operation_id)
            assert [Phase.INTENT, Phase.OUTCOME] == [event.phase for event in own]
            assert code == own[-1].code
            assert exists == (own[-1].generation == 1)
            assert session(again).sign("first", b"m").signature
    assert {"a", "b"} == verify(database).keys()

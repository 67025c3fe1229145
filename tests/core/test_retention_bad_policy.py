# SPDX-License-Identifier: MIT
"""Ripe material and a policy's file that is no policy: nothing new is done by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.model import KeyState
from hsm_core.retention_policy import parse_retention_policy
from tests.core.refused_policies import REFUSED
from tests.core.retention_support import World, keep_pipeline

__all__ = ["keep_pipeline"]

RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED
GOOD = b"default_days: 30\ntags:\n  long: 300\n"
BAD: dict[str, bytes | None] = {
    **REFUSED,
    "cut in a word": GOOD[:-13],
    "cut in a tag": GOOD[:-6],
    "no file": None,
}


@pytest.fixture(params=list(BAD.values()), ids=list(BAD))
def bad(request: pytest.FixtureRequest) -> bytes | None:
    """Return what the file holds; None for no file."""
    content: bytes | None = request.param
    return content


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an HSM in memory with a good policy."""
    made = World(tmp_path, policy=GOOD)
    yield made
    made.close()


def spoil(world: World, content: bytes | None) -> None:
    """Put something in the place of the policy, and let it stand."""
    if content is None:
        world.policy_path.unlink()
    else:
        world.policy_path.write_bytes(content)
    world.adopt()


def asked_for(world: World) -> list[str]:
    """Return the keys that people were asked about."""
    return [world.people.asked[a.approval_id].key_id for a in world.people.made]


def test_the_last_good_policy_goes_on(world: World, bad: bytes | None) -> None:
    """Its windows count, not none: what is young or long-lived is not asked for."""
    old = world.old_key()
    long = world.old_key(tags=["long"])
    world.pass_time(31, every=15.5)
    young = world.old_key()
    spoil(world, bad)
    world.sweep()
    report = world.session.retention()

    assert report.problem
    assert parse_retention_policy(GOOD).sha256 == report.policy_sha256
    assert not world.session.status().retention.healthy
    assert [old] == [
        world.people.asked[a.approval_id].key_id for a in world.people.made
    ]

    world.people.grant()
    world.pass_time(3)

    assert [DESTROYED, ACTIVE] == world.states(old)
    assert [RETIRED, ACTIVE] == world.states(long) == world.states(young)
    assert 1 == len(world.people.made)
    assert 2 == len(world.attested())


def test_where_there_never_was_a_good_one(tmp_path: Path, bad: bytes | None) -> None:
    """Nobody is asked, nothing is scheduled and nothing purged; all else goes on."""
    world = World(tmp_path, policy=bad)
    key = world.old_key()
    world.pass_time(400, every=100)
    world.people.grant()
    world.sweep()
    report = world.session.retention()

    assert ("", 0) == (report.policy_sha256, report.default_days)
    assert report.problem
    assert [] == world.people.made
    assert [] == world.attested()
    assert [RETIRED, ACTIVE] == world.states(key)
    assert b"x" == world.session.decrypt(key, world.session.encrypt(key, b"x"))
    world.close()


@pytest.mark.parametrize(
    "content", [b"", None, REFUSED["no days"]], ids=["empty", "no file", "no days"]
)
def test_what_is_scheduled_waits_for_a_policy_after_a_restart(
    tmp_path: Path, content: bytes | None
) -> None:
    """A start knows no policy from before: ripe material is kept until there is one."""
    world = World(tmp_path, memory=False)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.close()
    spoil_file(world.policy_path, content)
    world.open()
    world.pass_time(3)

    assert [SCHEDULED, ACTIVE] == world.states(key)
    assert [] == world.attested()

    world.policy_path.write_bytes(GOOD)
    world.adopt()
    world.sweep()

    assert [DESTROYED, ACTIVE] == world.states(key)
    world.close()


def spoil_file(path: Path, content: bytes | None) -> None:
    """Put something in the place of a file, or remove it."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_a_tag_that_no_key_has_changes_nothing(world: World) -> None:
    """However short its window, and however long."""
    keys = [world.old_key(), world.old_key(tags=["other"])]
    world.pass_time(20)
    spoil(world, GOOD + b"  nobody: 1\n  nobody.else: 36500\n")
    world.pass_time(9)

    assert "" == world.session.retention().problem
    assert (
        parse_retention_policy(GOOD).sha256 != world.session.retention().policy_sha256
    )
    assert [] == world.people.made

    world.pass_time(2)

    assert sorted(keys) == sorted(asked_for(world))

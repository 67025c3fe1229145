# SPDX-License-Identifier: MIT
"""Retention policy: its file, its windows, and purges where it is bad or missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.keyring.versions import DAY, PurgeWindows, candidates
from hsm_core._internal.retention.state import RetentionPolicyFile
from hsm_core.errors import ConfigurationError
from hsm_core.model import KeyState
from hsm_core.retention_policy import (
    RetentionOverride,
    RetentionPolicy,
    parse_retention_policy,
)
from hsm_core.testing import FakeClock
from tests.core.key_support import document_of, key_id_of
from tests.core.retention_support import World
from tests.support import REPOSITORY, open_files

_BOMB = b"tags: &a {x: 1}\noverrides: [*a, *a, *a]\n"

REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "a comment alone": b"# later\n",
    "half a line": b"default_days: [",
    "no days": b"default_days: 0",
    "negative days": b"default_days: -1",
    "negative days of a tag": b"tags: {a: -30}",
    "too many days": b"default_days: 36501",
    "days that are none": b"default_days: soon",
    "a number in quotes": b'default_days: "30"',
    "part of a day": b"default_days: 1.5",
    "an empty value": b"default_days: 30\ntags:\n",
    "an unknown field": b"default_day: 30",
    "an unknown field of an override": b"overrides: [{key_id: a, day: 1, days: 2}]",
    "an override without key": b"overrides: [{days: 2}]",
    "an override without days": b"overrides: [{key_id: a}]",
    "version 0": b"overrides: [{key_id: a, version: 0, days: 2}]",
    "a wildcard in a tag": b"tags: {compliance.*: 2555}",
    "a wildcard in a key": b"overrides: [{key_id: release-*, days: 2555}]",
    "upper case in a key": b"overrides: [{key_id: Release, days: 2555}]",
    "a repeated tag": b"tags:\n  a: 1\n  a: 2\n",
    "a repeated override of a version": (
        b"overrides: [{key_id: a, version: 1, days: 1},"
        b" {key_id: a, version: 1, days: 2}]"
    ),
    "huge days": b"default_days: " + b"9" * 400,
    "a repeated override": b"overrides: [{key_id: a, days: 1}, {key_id: a, days: 2}]",
    "a bomb": _BOMB,
    "a constructor": b"default_days: !!python/object/apply:os.getpid []",
    "two documents": b"default_days: 1\n---\ndefault_days: 2\n",
    "a list": b"- 1\n",
    "Latin 1": b"tags: {\xe4: 1}",
    "a long text": b"#" * 70_000,
}
"""By what is wrong with each; none of it is ever taken for a shorter window."""

SAMPLE = REPOSITORY / "examples" / "config" / "retention.yaml"


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_policy_that_is_not_whole_is_refused(text: bytes) -> None:
    """No default takes the place of what is wrong, least of all 0 days."""
    with pytest.raises(ConfigurationError, match="retention policy"):
        parse_retention_policy(text)


def test_line_and_field_are_named() -> None:
    """Whoever has to correct the file is told where."""
    with pytest.raises(ConfigurationError, match=r"line 3: tags: Expected .* as a nam"):
        parse_retention_policy(b"default_days: 1\n\ntags: {compliance.*: 2555}")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_refused(text: bytes) -> None:
    """Nothing else is raised, and no window is shorter than a day."""
    try:
        policy = parse_retention_policy(text)
    except ConfigurationError:
        return
    days = [policy.default_days, *policy.tags.values()]
    assert min(days + [override.days for override in policy.overrides]) >= 1


def test_the_sample_file_works_as_it_stands() -> None:
    """An override by name, of one version; tags shorter and longer than the default."""
    policy = parse_retention_policy(SAMPLE.read_bytes())
    signer = document_of(1, versions=3, name="release-signer")
    ephemeral = document_of(2, versions=2, tags=("test.ephemeral",))
    audited = document_of(3, versions=2, tags=("compliance.sox", "test.ephemeral"))
    other = document_of(4, versions=2)

    def days(document: object) -> list[int]:
        return [
            PurgeWindows(policy, document).of(version).days  # type: ignore[arg-type]
            for version in document.versions  # type: ignore[attr-defined]
        ]

    assert [730, 180, 180] == days(signer)
    assert [30, 30] == days(ephemeral)
    assert [2555, 2555] == days(audited)
    assert [180, 180] == days(other)


def test_json_is_a_policy_too() -> None:
    """The same fields, and the same digest."""
    yaml = parse_retention_policy(b"tags: {b: 2, a: 1}")
    json = parse_retention_policy(b'{"tags": {"a": 1, "b": 2}}')

    assert yaml.sha256 == json.sha256
    assert yaml.sha256 != parse_retention_policy(b"tags: {b: 2, a: 2}").sha256


def test_the_longest_matching_window_wins() -> None:
    """An override can't shorten what a tag lengthens; the default counts alone."""
    policy = RetentionPolicy(
        default_days=100,
        tags={"long": 300, "short": 10},
        overrides=(
            RetentionOverride(key_id=key_id_of(1), days=50),
            RetentionOverride(key_id="named", version=2, days=400),
        ),
    )

    def rules(*tags: str, number: int = 1, name: str = "") -> list[str]:
        document = document_of(number, versions=2, tags=tags, name=name)
        windows = PurgeWindows(policy, document)
        return [windows.of(v).rule for v in document.versions]

    assert ["default"] * 2 == rules(number=2)
    assert ["tag:short"] * 2 == rules("short", number=2)
    assert ["tag:long"] * 2 == rules("short", "long", number=2)
    assert [f"override:{key_id_of(1)}"] * 2 == rules("short")
    assert ["tag:long"] * 2 == rules("long")
    assert ["tag:long", "override:named"] == rules("long", number=2, name="named")


def test_the_window_opens_when_a_version_was_retired() -> None:
    """Not when it was made; waiting for its purge does not move it."""
    policy = RetentionPolicy(default_days=10)
    document = document_of(1, versions=3)
    old = msgspec.structs.replace(
        document.versions[0], created_at=1, retired_at=5 * DAY, state_changed_at=7 * DAY
    )
    waiting = msgspec.structs.replace(
        document.versions[1],
        state=KeyState.PURGE_SCHEDULED,
        came_from=KeyState.REVOKED,
        revoked_at=6 * DAY,
        retired_at=2 * DAY,
        state_changed_at=30 * DAY,
    )
    document = msgspec.structs.replace(
        document, versions=(old, waiting, document.versions[2])
    )
    first, second, last = candidates(policy, document)

    assert (5 * DAY, 15 * DAY) == (first.opened_at, first.due_at)
    assert (6 * DAY, 16 * DAY) == (second.opened_at, second.due_at)
    assert "current" == last.kept


class TestFile:
    """A file is believed when it is whole, and when it has stood for a while."""

    @staticmethod
    def watched(path: Path) -> tuple[RetentionPolicyFile, FakeClock]:
        """Return a watcher and its clock."""
        clock = FakeClock()
        return RetentionPolicyFile(path, clock), clock

    def look(self, file: RetentionPolicyFile, clock: FakeClock) -> None:
        """Look twice, three seconds apart."""
        file.look()
        clock.advance(3)
        file.look()

    def test_a_missing_file_is_no_policy(self, tmp_path: Path) -> None:
        """And said so; when it comes, it is read."""
        path = tmp_path / "retention.yaml"
        file, clock = self.watched(path)
        self.look(file, clock)

        assert file.policy is None
        assert "can't be read" in file.problem

        path.write_bytes(b"default_days: 3")
        self.look(file, clock)

        found: object = (file.policy, file.problem)
        assert (RetentionPolicy(default_days=3), "") == found

    @pytest.mark.parametrize("text", [b"", REFUSED["no days"], None])
    def test_the_last_good_policy_is_kept(
        self, tmp_path: Path, text: bytes | None
    ) -> None:
        """Whatever comes of the file, with an alarm."""
        path = tmp_path / "retention.yaml"
        path.write_bytes(b"default_days: 3")
        file, clock = self.watched(path)
        self.look(file, clock)
        if text is None:
            path.unlink()
        else:
            path.write_bytes(text)
        self.look(file, clock)

        assert RetentionPolicy(default_days=3) == file.policy
        assert file.problem

    def test_half_a_file_is_not_believed(self, tmp_path: Path) -> None:
        """A first half may be valid, and shorter: it must stand for two seconds."""
        whole = b"default_days: 30\ntags:\n  a: 300\n"
        path = tmp_path / "retention.yaml"
        path.write_bytes(whole)
        file, clock = self.watched(path)
        self.look(file, clock)
        path.write_bytes(whole[:17])

        assert file.look()

        clock.advance(1)
        path.write_bytes(whole)
        file.look()
        clock.advance(10)
        file.look()

        assert {"a": 300} == file.policy.tags if file.policy else {}

    def test_one_that_others_may_change(self, tmp_path: Path) -> None:
        """What somebody else could have written is no policy, and says so."""
        path = tmp_path / "retention.yaml"
        path.write_text("default_days: 1")
        file, clock = self.watched(path)
        for mode in (0o620, 0o602):
            path.chmod(mode)
            self.look(file, clock)
            assert file.policy is None
            assert "writable by other users" in file.problem
        path.chmod(0o644)
        if os.geteuid() == 0:
            os.chown(path, 12_345, 0)
            self.look(file, clock)
            assert file.policy is None
            os.chown(path, 0, 0)
        self.look(file, clock)

        assert file.policy is not None
        assert "" == file.problem

    def test_a_folder_is_told_and_not_kept_open(self, tmp_path: Path) -> None:
        """It is looked at again and again, for as long as it is there."""
        path = tmp_path / "retention.yaml"
        path.mkdir()
        file, clock = self.watched(path)
        self.look(file, clock)

        assert "not a regular file" in file.problem
        assert [] == open_files(path)

    def test_a_pipe_does_not_hold_anybody_up(self, tmp_path: Path) -> None:
        """What is no regular file is refused at once."""
        path = tmp_path / "retention.yaml"
        os.mkfifo(path)
        file, clock = self.watched(path)
        self.look(file, clock)

        assert file.policy is None


RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED
GOOD = b"default_days: 30\ntags:\n  long: 300\n"
BAD: dict[str, bytes | None] = {
    **{name: REFUSED[name] for name in ("nothing", "no days", "a bomb")},
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
    return [found.operation.key_id for found in world.asked()]


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
    assert [old] == asked_for(world)

    world.consent()
    world.pass_time(3)

    assert [DESTROYED, ACTIVE] == world.states(old)
    assert [RETIRED, ACTIVE] == world.states(long) == world.states(young)
    assert 1 == len(world.asked())
    assert 2 == len(world.attested())


def test_where_there_never_was_a_good_one(tmp_path: Path, bad: bytes | None) -> None:
    """Nobody is asked, nothing is scheduled and nothing purged; all else goes on."""
    world = World(tmp_path, policy=bad)
    key = world.old_key()
    world.pass_time(400, every=100)
    world.consent()
    world.sweep()
    report = world.session.retention()

    assert ("", 0) == (report.policy_sha256, report.default_days)
    assert report.problem
    assert not world.asked()
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
    world.schedule()
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
    assert not world.asked()

    world.pass_time(2)

    assert sorted(keys) == sorted(asked_for(world))

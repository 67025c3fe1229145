# SPDX-License-Identifier: MIT
"""However many would purge it, material is purged once, and attested once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm_core.factory import LedgerVerification, OpenHSM, verify_ledger
from hsm_core.model import KeyState, Role
from hsm_core.protocols import Clock
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind
from hsm_core.testing import caller
from tests.core.ripe_material import (
    DAY,
    HMAC_KEY,
    MovedClock,
    make_old,
    make_ripe,
    open_at,
    ripen,
    settings_of,
)
from tests.core.s3_server import shared_storage
from tests.support import REPOSITORY

ONE_PROCESS = (KeyStoreKind.FILESYSTEM.value, KeyStoreKind.SQLITE.value)
LEASE_OVER = 40.0
"""The lease of a vault ends after 30 seconds."""


class Sweeping:
    """
    A process that sweeps over a store.

    Args:
        folder: Where all but a vault lies.

        seconds: How far its clocks go ahead.

        place: Where it stops in the middle.
    """

    def __init__(
        self, folder: Path, key_store: str, seconds: float = 0.0, place: str = ""
    ) -> None:
        words = [str(folder), key_store, str(seconds), *([place] if place else [])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.core.retention_child", *words],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self) -> str:
        """Return the next word that it says; none at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def sweeping(
    folder: Path, key_store: str, seconds: float = 0.0, place: str = ""
) -> Iterator[Sweeping]:
    """Have a process that sweeps; it is killed at the end if it still runs."""
    child = Sweeping(folder, key_store, seconds, place)
    try:
        yield child
    finally:
        child.kill()


def verified(folder: Path) -> LedgerVerification:
    """Verify the ledger with its trail."""
    return verify_ledger(folder / "ledger.log", HMAC_KEY, trail=folder / "audit.log")


def states(gateway: OpenHSM, name: str) -> list[KeyState]:
    """Return the states of all versions of a key."""
    session = Session(gateway.act_as(caller(*Role)))
    return [version.state for version in session.versions(name)]


@pytest.mark.parametrize(
    ("key_store", "place"),
    [
        (KeyStoreKind.FILESYSTEM.value, "purge.after_ledger_intent"),
        (KeyStoreKind.SQLITE.value, "purge.after_mutation"),
    ],
)
def test_two_processes_over_files(tmp_path: Path, key_store: str, place: str) -> None:
    """The second is refused; when the first was killed it ends what that had begun."""

    def opened(clock: Clock) -> OpenHSM:
        return open_at(settings_of(tmp_path, key_store), clock)

    make_ripe(opened, ["box"])
    with sweeping(tmp_path, key_store, place=place) as first:
        assert ["open", "at"] == [first.told(), first.told()]
        with sweeping(tmp_path, key_store) as second:
            refused = second.told()
        first.kill()
    with sweeping(tmp_path, key_store) as third:
        assert ["open", "swept"] == [third.told(), third.told()]
        third.go_on()
        third.process.wait(60)

    assert "locked" == refused
    found = verified(tmp_path)
    assert (1, 0, 0) == (found.purges, found.aborted, found.unfinished)
    with opened(MovedClock()) as gateway:
        assert [KeyState.DESTROYED, KeyState.ACTIVE] == states(gateway, "box")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a key store in object storage that any process of this test reaches."""
    storage = shared_storage()
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{storage.new_bucket()}/hsm"


class TestVault:
    """Two hosts can reach a vault; each has files of its own, copied from the other."""

    @pytest.fixture
    def hosts(self, tmp_path: Path, bucket: str) -> tuple[Path, Path]:
        """Give two hosts; material of their key is ripe."""
        first = tmp_path / "first"
        first.mkdir(mode=0o700)
        make_ripe(lambda clock: open_at(settings_of(first, bucket), clock), ["box"])
        return first, tmp_path / "second"

    def test_the_lease_of_the_living_keeps_others_out(
        self, hosts: tuple[Path, Path], bucket: str
    ) -> None:
        """Even one who has copies of all files."""
        first, second = hosts
        with sweeping(first, bucket, place="purge.after_ledger_intent") as one:
            assert ["open", "at"] == [one.told(), one.told()]
            shutil.copytree(first, second)
            with sweeping(second, bucket) as other:
                refused = other.told()
            one.go_on()
            swept = one.told()
            one.go_on()
            one.process.wait(60)

        assert ("locked", "swept") == (refused, swept)
        assert (1, 0) == (verified(first).purges, verified(first).unfinished)

    def test_who_was_overtaken_purges_nothing(
        self, hosts: tuple[Path, Path], bucket: str
    ) -> None:
        """
        What it had begun the other ends, and it can't, though by its clock it may.
        """
        first, second = hosts
        with sweeping(first, bucket, place="store.before_document") as sleeper:
            assert ["open", "at"] == [sleeper.told(), sleeper.told()]
            shutil.copytree(first, second)
            with sweeping(second, bucket, LEASE_OVER) as other:
                assert ["open", "swept"] == [other.told(), other.told()]
                sleeper.go_on()
                sleeper.told()
                other.go_on()
                other.process.wait(60)

        overtaken = verified(first)
        assert 0 == overtaken.purges
        assert 1 == overtaken.aborted + overtaken.unfinished
        assert (1, 0) == (verified(second).purges, verified(second).unfinished)
        opened = open_at(settings_of(second, bucket), MovedClock(LEASE_OVER))
        with opened as gateway:
            assert [KeyState.DESTROYED, KeyState.ACTIVE] == states(gateway, "box")


@contextmanager
def ripe(
    folder: Path, key_store: str, names: list[str]
) -> Iterator[tuple[OpenHSM, MovedClock]]:
    """Open an HSM with keys whose material is ripe; what is in memory is made in it."""
    settings, clock = settings_of(folder, key_store), MovedClock()
    if key_store != KeyStoreKind.MEMORY:
        make_ripe(lambda clock: open_at(settings, clock), names)
        with open_at(settings, clock) as gateway:
            yield gateway, clock
        return
    clock.seconds = -3 * DAY
    with open_at(settings, clock) as gateway:
        make_old(gateway, names)
        clock.seconds += 1.1 * DAY
        ripen(gateway, clock)
        clock.seconds += 1.1 * DAY
        yield gateway, clock


@pytest.mark.parametrize("kind", ["memory", *ONE_PROCESS, "s3"])
def test_many_sweeps_in_one_process(tmp_path: Path, bucket: str, kind: str) -> None:
    """Over every kind of store: threads that sweep all at once purge each once."""
    names = ["a", "b", "c"]
    with ripe(tmp_path, bucket if kind == "s3" else kind, names) as (gateway, clock):
        retention = gateway.retention
        assert retention is not None
        retention.sweep()
        clock.seconds += 3  # until the policy is believed
        threads = [threading.Thread(target=retention.sweep) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = Session(gateway.act_as(caller(*Role))).retention()
        found_states = [states(gateway, name)[0] for name in names]

    assert 3 == report.completed_total
    assert [KeyState.DESTROYED] * 3 == found_states
    found = verified(tmp_path)
    assert (3, 0, 0) == (found.purges, found.aborted, found.unfinished)

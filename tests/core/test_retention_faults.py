# SPDX-License-Identifier: MIT
"""Retention under faults: killed, without ledger, with leaping clocks, twice."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.destruction import PurgeVersion
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.pipeline.authorisation import Admission
from hsm_core._internal.retention.evidence import LedgerVerification, verify_ledger
from hsm_core._internal.retention.purger import Purger
from hsm_core._internal.retention.sweeper import Tally
from hsm_core._internal.stores.filesystem import files
from hsm_core._internal.stores.filesystem.audit_verify import AuditVerifier
from hsm_core._internal.stores.filesystem.opening import open_no_follow
from hsm_core.errors import (
    ApprovalRequiredError,
    AuditUnavailableError,
    HSMError,
    StoreLockedError,
    StoreUnavailableError,
)
from hsm_core.model import KeyId, KeyState, Phase, Role
from hsm_core.operations import Withdraw
from hsm_core.protocols import AuditTicket
from hsm_core.retention_policy import RetentionPolicy
from hsm_core.testing import FakeClock, caller
from tests.core.retention_support import DAY, HMAC_KEY, World

RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an HSM in memory whose old versions are kept for 30 days."""
    made = World(tmp_path)
    yield made
    made.close()


def ripe(world: World, keys: int = 1) -> list[str]:
    """Make keys whose old versions are purged by the next sweep."""
    found = [world.old_key() for _ in range(keys)]
    world.ripen()
    return found


@pytest.mark.parametrize("says_so", [True, False])
def test_a_blob_that_cannot_be_deleted_stops_no_other_purge(
    world: World, *, says_so: bool
) -> None:
    """Its purge is attested once it is gone; what is told to be kept is a finding."""
    bad, good = ripe(world, 2)
    inventory = world.hsm._services.inventory  # noqa: SLF001
    store = inventory.store
    real, real_blob = store.discard_blobs, store.get_blob
    is_stuck = True

    def discard(key_id: KeyId, versions: Sequence[int]) -> None:
        if key_id != bad or not is_stuck:
            real(key_id, versions)
        elif says_so:
            raise StoreUnavailableError

    def get_blob(key_id: KeyId, version: int) -> bytes | None:
        if (key_id, version) == (bad, 1):
            return b"left" if is_stuck else None
        return real_blob(key_id, version)

    with (
        mock.patch.object(store, "discard_blobs", discard),
        mock.patch.object(store, "get_blob", get_blob),
    ):
        world.sweep()
        later = ripe(world)[0]
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(good) == world.states(later)
        assert says_so == (KeyId(bad) in inventory.tampered.problems())
        outcomes = {e.key_id for e in world.attested() if e.phase is Phase.OUTCOME}
        assert {good, later} == outcomes

        is_stuck = False
        world.sweep()

    assert bad in {e.key_id for e in world.attested() if e.phase is Phase.OUTCOME}


class TestKills:
    """A kill at every system call and failpoint of a purge, with real approvals."""

    @staticmethod
    @contextmanager
    def images(world: World, folder: Path, kinds: set[str]) -> Iterator[list[str]]:
        """Keep a copy of all files before each change of one, as a kill leaves it."""
        taken: list[str] = []
        before: list[tuple[str, bytes]] = []
        guard = threading.RLock()

        def take(what: str) -> None:
            with guard:
                files = sorted(p for p in world.folder.rglob("*") if p.is_file())
                now = [(str(path), path.read_bytes()) for path in files]
                kinds.add(what)
                if now != before:
                    before[:] = now
                    taken.append(f"{len(taken):03d}-{what}")
                    shutil.copytree(world.folder, folder / taken[-1])

        with ExitStack() as stack:
            stack.enter_context(install(take))
            for name in ("write", "fsync", "rename", "unlink"):
                real = getattr(os, name)

                def struck(
                    *given: Any, _real: Any = real, _name: str = name, **named: Any
                ) -> Any:
                    take(_name)
                    return _real(*given, **named)

                stack.enter_context(mock.patch.object(os, name, struck))
            yield taken

    def test_a_kill_anywhere_ends_in_one_purge(self, tmp_path: Path) -> None:
        """Whatever it left: nothing is served any more, one purge, one attestation."""
        first, second = tmp_path / "world", tmp_path / "images"
        first.mkdir(mode=0o700)
        world = World(first, memory=False, audit_timeout_seconds=60)
        key = world.old_key()
        world.pass_time(31, every=15.5)
        world.consent()
        world.sweep()
        world.clock.advance(1.5 * DAY)
        now = world.clock.now()
        kinds = set[str]()
        with self.images(world, second, kinds) as images:
            world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        world.close()
        assert {"write", "fsync", "rename", "unlink"} <= kinds
        assert {"purge.after_ledger_intent", "purge.after_mutation"} <= kinds
        for name in images:
            self.check(second / name, key, now)

    @staticmethod
    def check(folder: Path, key: str, now: int) -> None:
        """Start with what a kill has left, and see it through."""
        world = World(folder, memory=False, clock=FakeClock(now), policy=None)
        before = world.states(key)[0]
        begun = world.attested()

        assert before in (SCHEDULED, DESTROYED), folder.name
        assert before is SCHEDULED or begun, folder.name

        world.sweep()
        world.clock.advance(60)
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key), folder.name
        ends = [e for e in world.attested() if e.phase == "outcome"]
        assert ["ok"] == [e.code for e in ends], folder.name
        assert 1 == len(world.attested()) - len(ends), folder.name
        report = world.session.retention()
        assert report.ledger is not None
        assert ("", 0) == (report.ledger.problem, report.failures), folder.name
        world.close()
        found = verified(folder)
        assert (1, 0) == (found.purges, found.unfinished), folder.name
        blobs = [p.name for p in (folder / "keys").rglob("v0000*")]
        assert ["v00000002"] == blobs, folder.name


def verified(folder: Path) -> LedgerVerification:
    """Verify a ledger against its trail, without the HSM."""
    return verify_ledger(
        AuditVerifier(folder / "ledger.log", HMAC_KEY),
        AuditVerifier(folder / "audit.log", HMAC_KEY),
    )


class TestLedgerFaults:
    def test_without_a_ledger_nothing_is_purged(self, world: World) -> None:
        """Full, or not writable; when it can be written again, the purge is done."""
        (key,) = ripe(world)
        world.ledger_faults.fail_trail("full")
        with pytest.raises(AuditUnavailableError):
            world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)
        report = world.session.retention()
        assert report.ledger is not None
        assert not report.ledger.available
        assert not world.session.status().retention.healthy

        world.ledger_faults.heal_trail()
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert 2 == len(world.attested())

    def test_an_outcome_that_could_not_be_written_is_written_later(
        self, world: World
    ) -> None:
        """The purge was done; it is attested once, by the next sweep."""
        (key,) = ripe(world)
        world.ledger_faults.plan("audit.append.outcome", AuditUnavailableError())
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert ["intent"] == [e.phase for e in world.attested()]

        world.ledger_faults.fail_trail("full")
        with pytest.raises(AuditUnavailableError):
            world.sweep()
        world.ledger_faults.heal_trail()
        world.sweep()

        assert ["intent", "outcome"] == [e.phase for e in world.attested()]

    def test_a_trail_that_is_not_told_keeps_the_purge_back(self, world: World) -> None:
        """The ledger's place must be in the trail before the key is touched."""
        (key,) = ripe(world)
        world.faults.plan("audit.append.single", AuditUnavailableError())
        world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert ["intent", "outcome"] == [e.phase for e in world.attested()]

    @pytest.mark.parametrize("made", [False, True])
    def test_a_commit_whose_outcome_is_unknown_is_found_out(
        self, tmp_path: Path, made: bool
    ) -> None:
        """
        Whether it was made or not, there is one purge and one attestation.

        What was not made is made once the approval is given back, as at a start.
        """
        world = World(tmp_path, memory=False)
        (key,) = ripe(world)
        world.faults.plan_unknown_commit(made=made)
        for _ in range(3):
            try:
                world.sweep()
            except StoreUnavailableError:
                time.sleep(0.1)
        deadline = time.monotonic() + 60
        while world.states_or_none(key) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        world.close()
        world.open()
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        outcomes = [e for e in world.attested() if e.phase == "outcome"]
        assert ["ok"] == [e.code for e in outcomes]
        world.close()

    @pytest.fixture
    def refuse(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Return what lets the next purge find that its approval does not count."""
        real = Admission.take_approval

        def plan(before: Callable[[], object] = lambda: None) -> None:
            def take(admission: Admission, context: RequestContext[Any]) -> object:
                if isinstance(context.operation, PurgeVersion):
                    monkeypatch.setattr(Admission, "take_approval", real)
                    before()
                    raise ApprovalRequiredError
                return real(admission, context)

            monkeypatch.setattr(Admission, "take_approval", take)

        return plan

    def test_a_purge_that_is_refused_is_closed_in_the_ledger(
        self, world: World, refuse: Callable[..., None]
    ) -> None:
        """The attempt is attested as such; the consent that vanished ends it."""
        (key,) = ripe(world)
        (asked,) = world.asked("PurgeVersion")
        olga = world.hsm.act_as(caller(Role.OPERATOR, principal="olga"))
        refuse(lambda: olga.execute(Withdraw(approval_id=asked.approval_id)))
        world.sweep()
        world.sweep()

        assert [RETIRED, ACTIVE] == world.states(key)
        codes = [e.code for e in world.attested() if e.phase == "outcome"]
        assert ["approval_required"] == codes

    def test_a_purge_after_a_refusal_has_an_attestation_of_its_own(
        self, world: World, refuse: Callable[..., None]
    ) -> None:
        """The refusal, attested late, is not the outcome of the next attempt."""
        (key,) = ripe(world)
        refuse()
        failure = AuditUnavailableError()
        world.ledger_faults.plan("audit.append.outcome", failure, times=2)
        world.sweep()
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        codes = [e.code for e in world.attested() if e.phase == "outcome"]
        assert ["approval_required", "ok"] == codes

    def test_an_attestation_is_anchored_once_it_is_durable(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that the ledger had not written in time is waited for by the next."""
        (key,) = ripe(world)
        waits: list[bool] = []

        def wait(purger: Purger, ticket: AuditTicket) -> None:
            waits.append(any(map(purger.is_appended, purger.open)))
            if 1 == waits.count(True):
                raise AuditUnavailableError
            ticket.wait()

        monkeypatch.setattr(Purger, "wait", wait)
        world.sweep()
        late = list(waits)
        world.sweep()

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert True is late[-1]
        assert [True] == waits[len(late) :]
        assert ["intent", "outcome"] == [e.phase for e in world.attested()]


class TestClock:
    def test_a_leap_forward_purges_nothing(self, world: World) -> None:
        """What is old only by a leap waits for an approval of its own."""
        keys = [world.old_key() for _ in range(3)]
        world.clock.step(10 * 365 * DAY)
        world.sweep()

        assert [] == world.waiting("PurgeVersion")
        (asked,) = world.waiting("AllowPurges")
        assert "leap" in [field.text for field in asked.operation.fields]
        assert "leap" == world.session.retention().paused

        world.clock.step(-10 * 365 * DAY)
        world.sweep()

        assert "" == world.session.retention().paused
        for key in keys:
            assert [RETIRED, ACTIVE] == world.states(key)

    def test_a_leap_counts_when_people_allow_it(self, world: World) -> None:
        """Then the versions are asked for, each by itself."""
        world.old_key()
        world.clock.step(400 * DAY)
        world.sweep()
        world.consent("AllowPurges")
        world.pass_time(1)
        world.pass_time(1)

        assert 1 == len(world.waiting("PurgeVersion"))

    def test_a_leap_ends_no_grace_period(self, tmp_path: Path) -> None:
        """The grace period is time that really passes."""
        world = World(tmp_path, retention_grace_seconds=5 * DAY)
        key = world.old_key()
        world.schedule()
        world.clock.step(6 * DAY)
        world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(6)

        assert [DESTROYED, ACTIVE] == world.states(key)
        world.close()

    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("seconds", [1, DAY - 1, 2 * DAY, 3650 * DAY])
    @pytest.mark.parametrize("when", ["window", "grace"])
    def test_no_step_of_the_clock_purges_early(
        self, world: World, sign: int, seconds: float, when: str
    ) -> None:
        """Forwards or backwards, in the window or in the grace period."""
        key = world.old_key()
        if when == "grace":
            world.schedule()
        tolerated = DAY if sign > 0 else 0
        began, passed = world.clock.monotonic(), 0.0
        world.clock.step(sign * seconds)
        window = 30 * DAY if when == "window" else 0
        while passed + tolerated < window + DAY - 3600:
            world.sweep()
            world.consent("PurgeVersion")
            assert DESTROYED not in world.states(key)
            world.clock.advance(8 * DAY if when == "window" else 8 * 3600)
            passed = world.clock.monotonic() - began

        assert "error" != world.session.status().state

    def test_more_purges_than_usual_need_a_word(self, tmp_path: Path) -> None:
        """Above the limit none is done, until that was approved."""
        world = World(tmp_path, retention_max_purges=2)
        keys = [world.old_key() for _ in range(5)]
        world.pass_time(31, every=15.5)
        world.sweep()
        world.sweep()
        world.consent()
        world.sweep()
        world.clock.advance(1.5 * DAY)
        world.sweep()
        (asked,) = world.waiting("AllowPurges")

        assert "limit" in [field.text for field in asked.operation.fields]
        assert asked.approval_id == world.session.retention().pause_approval_id
        assert {SCHEDULED} == {world.states(key)[0] for key in keys}

        world.consent()
        world.sweep()
        world.sweep()

        assert {DESTROYED} == {world.states(key)[0] for key in keys}
        world.close()


class TestTwoSchedulers:
    def test_no_other_process_can_have_the_ledger(self, tmp_path: Path) -> None:
        """Nor the keys: a second scheduler over them does not start."""
        world = World(tmp_path, memory=False)
        with pytest.raises(StoreLockedError):
            World(tmp_path, memory=False, policy=None)
        world.close()
        other = World(tmp_path, memory=True, policy=None)
        with pytest.raises(StoreLockedError):
            World(tmp_path, memory=True, policy=None)
        other.close()


def test_a_sweep_can_rest_after_each_version(world: World) -> None:
    """However many there are, a step handles one."""
    for _ in range(3):
        world.old_key(20)
    sweeper = world.retention._sweeper  # noqa: SLF001 (its steps)
    steps = list(sweeper.sweep(RetentionPolicy(default_days=365), Tally()))

    assert len(steps) > 3 * 20


def test_requests_go_on_during_a_sweep_over_1_000_versions(tmp_path: Path) -> None:
    """It is made in many steps, and rests between them while keys are used."""
    # Its own thread, which begins after five seconds, would make a second sweep.
    world = World(tmp_path, is_idle=True)
    session = world.session
    key = world.old_key(1)
    for _ in range(20):
        world.old_key(50)
    world.clock.advance(31 * DAY)
    pauses: list[float] = []
    done = threading.Event()

    def sweep() -> None:
        while (pause := world.retention.step()) < 60:
            pauses.append(pause)
            time.sleep(pause)
        done.set()

    threading.Thread(target=sweep, daemon=True).start()
    uses = 0
    while not done.is_set():
        session.encrypt(key, b"x")
        uses += 1
        time.sleep(0.001)

    assert 100 == len(world.asked())
    assert len(pauses) > 10
    assert min(pauses) > 0
    assert uses > 10
    world.close()


def test_a_purged_blob_that_comes_back_opens_nothing(tmp_path: Path) -> None:
    """A backup brings the file back; the tombstone refuses it, and it is removed."""
    world = World(tmp_path, memory=False)
    key = world.session.create_key("AES-256-GCM").key_id
    old = world.session.encrypt(key, b"old")
    world.session.rotate(key)
    (blob,) = (p for p in (tmp_path / "keys").rglob("v00000001"))
    kept = blob.read_bytes()
    world.schedule()
    world.pass_time(2)

    assert not blob.exists()

    blob.write_bytes(kept)
    blob.chmod(0o600)
    with pytest.raises(HSMError):
        world.session.decrypt(key, old)
    world.close()
    world.open()
    with pytest.raises(HSMError):
        world.session.decrypt(key, old)
    world.close()


def test_a_purged_file_is_overwritten_before_it_is_removed(tmp_path: Path) -> None:
    """Whoever has it open sees other bytes; a second name of it is left alone."""
    world = World(tmp_path, memory=False)
    (key,) = ripe(world)
    (blob,) = (p for p in (tmp_path / "keys").rglob("v00000001"))
    before = blob.read_bytes()
    with blob.open("rb") as file:
        world.sweep()
        after = file.read()

    assert not blob.exists()
    assert len(before) == len(after)
    assert before != after
    assert [DESTROYED, ACTIVE] == world.states(key)
    world.close()


def test_a_purge_waits_for_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that can't be opened now is not removed before it can be overwritten."""
    world = World(tmp_path, memory=False)
    ripe(world)
    (blob,) = (p for p in (tmp_path / "keys").rglob("v00000001"))
    before = blob.read_bytes()

    def fail(path: Path, flags: int, mode: int = 0o600) -> int:
        if flags == os.O_WRONLY:
            raise OSError(errno.EMFILE, "Too many open files")
        return open_no_follow(path, flags, mode)

    with blob.open("rb") as file:
        with monkeypatch.context() as patching:
            patching.setattr(files, "open_no_follow", fail)
            world.sweep()
        assert before == blob.read_bytes()
        world.pass_time(2)
        after = file.read()

    assert not blob.exists()
    assert before != after
    world.close()

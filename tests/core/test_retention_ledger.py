# SPDX-License-Identifier: MIT
"""The ledger: whatever is done to its files is noticed, and nothing is purged then."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.verify import AuditVerifier
from hsm_core._internal.failpoints import install
from hsm_core._internal.purging.offline import LedgerVerification, verify_ledger
from hsm_core.errors import (
    ApprovalRequiredError,
    ConflictError,
    HSMError,
    IntegrityError,
    LedgerTamperedError,
    StoreUnavailableError,
)
from hsm_core.model import KeyState, MessageDetail, Role
from hsm_core.operations import BeginLedger, LedgerBegun, ListAuditEvents
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.core.retention_support import (
    DAY,
    HMAC_KEY,
    People,
    World,
    events_of,
    keep_pipeline,
)

__all__ = ["keep_pipeline"]

ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED


def verified(folder: Path, *, with_trail: bool = True) -> LedgerVerification:
    """Verify a ledger as somebody who has the key."""
    trail = AuditVerifier(folder / "audit.log", HMAC_KEY) if with_trail else None
    return verify_ledger(AuditVerifier(folder / "ledger.log", HMAC_KEY), trail)


def purge_one(world: World) -> str:
    """Make a key and let its old version be purged."""
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
    world.sweep()
    assert [DESTROYED, ACTIVE] == world.states(key)
    return key


def lines_of(folder: Path) -> list[bytes]:
    """Return the records of a ledger."""
    return (folder / "ledger.log").read_bytes().splitlines(keepends=True)


def write(folder: Path, lines: list[bytes]) -> None:
    """Replace them."""
    (folder / "ledger.log").write_bytes(b"".join(lines))


def older_copy(folder: Path) -> None:
    """Put an older copy of the ledger back, with all of its files."""
    for path in (folder / "older").iterdir():
        shutil.copy2(path, folder / path.name)


def gone(folder: Path) -> None:
    """Remove the ledger with all of its files."""
    for path in folder.glob("ledger.log*"):
        path.unlink()
    for path in folder.glob(".ledger.log*"):
        path.unlink()


def edit(folder: Path) -> None:
    """Let the ledger name another person."""
    path = folder / "ledger.log"
    path.write_bytes(path.read_bytes().replace(b"olga", b"otto"))


def swapped(folder: Path) -> None:
    """Put the trail in place of the ledger."""
    shutil.copy2(folder / "audit.log", folder / "ledger.log")


ATTACKS: dict[str, Callable[[Path], None]] = {
    "a record is edited": edit,
    "the last record is cut": lambda f: write(f, lines_of(f)[:-1]),
    "all records are cut": lambda f: write(f, []),
    "a record is left out": lambda f: write(f, lines_of(f)[:1] + lines_of(f)[2:]),
    "the first record is left out": lambda f: write(f, lines_of(f)[1:]),
    "a record is repeated": lambda f: write(f, [*lines_of(f), lines_of(f)[-1]]),
    "two records change places": lambda f: write(
        f, [lines_of(f)[n] for n in (1, 0, 2, 3)]
    ),
    "a line is added": lambda f: write(f, [*lines_of(f), b"{}\n"]),
    "the trail lies in its place": swapped,
    "an older copy is put back": older_copy,
    "it is removed": gone,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the files of an HSM with two purges, and a third that is ripe."""
    world = World(tmp_path, memory=False)
    purge_one(world)
    world.close()
    (tmp_path / "older").mkdir()
    for path in [*tmp_path.glob("ledger.log*"), *tmp_path.glob(".ledger.log*")]:
        shutil.copy2(path, tmp_path / "older" / path.name)
    world.open()
    purge_one(world)
    world.close()
    return tmp_path


def later() -> FakeClock:
    """Return a clock of a time after the ledger was written."""
    clock = FakeClock()
    clock.advance(100 * DAY)
    return clock


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("keeps_state", [True, False])
def test_a_ledger_that_was_changed_keeps_purges_back(
    folder: Path, attack: Callable[[Path], None], keeps_state: bool
) -> None:
    """It is noticed by the HSM, and offline by whoever has trail and key."""
    attack(folder)
    if not keeps_state:
        # Whoever can put the ledger back can remove what was remembered of it too.
        (state,) = (folder / "keys").rglob("retention")
        state.unlink()
    with pytest.raises(HSMError):
        verified(folder)
    world = World(folder, memory=False, clock=later())
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
    world.sweep()
    world.people.grant()
    world.sweep()
    report = world.session.retention()

    assert DESTROYED not in world.states(key)
    assert report.ledger is not None
    assert report.ledger.problem
    assert not world.session.status().retention.healthy
    assert b"x" == world.session.decrypt(key, world.session.encrypt(key, b"x"))
    world.close()


def test_what_was_remembered_can_not_simply_be_lost(folder: Path) -> None:
    """A trail that knows a ledger, and a state that does not: people must say so."""
    (state,) = (folder / "keys").rglob("retention")
    state.unlink()
    world = World(folder, memory=False, clock=later())
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
    world.sweep()

    assert DESTROYED not in world.states(key)
    assert "state" == world.session.retention().paused

    world.sweep()
    world.people.grant(*world.people.waiting("AllowPurges"))
    world.sweep()
    world.sweep()

    assert [DESTROYED, ACTIVE] == world.states(key)
    world.close()


def test_an_intact_ledger_is_what_the_trail_says(folder: Path) -> None:
    """Two purges, four places of it in the trail."""
    found = verified(folder)

    assert (2, 0, 0, 4) == (
        found.purges,
        found.aborted,
        found.unfinished,
        found.anchors,
    )
    assert verified(folder, with_trail=False).anchors is None


def test_a_changed_byte_anywhere_is_noticed(folder: Path) -> None:
    """Every 7th byte of the ledger, changed by one bit."""
    path = folder / "ledger.log"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError):
            verified(folder, with_trail=False)
    path.write_bytes(whole)

    assert 4 == verified(folder).chain.records


def test_a_trail_that_was_changed_keeps_purges_back(tmp_path: Path) -> None:
    """The chain is verified before the first purge of a sweep."""
    world = World(tmp_path, memory=False)
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
    trail = tmp_path / "audit.log"
    whole = trail.read_bytes()
    trail.write_bytes(whole.replace(b"CreateKey", b"CreatekEy", 1))
    world.sweep()

    assert DESTROYED not in world.states(key)
    assert "trail" == world.session.retention().paused

    trail.write_bytes(whole)
    people: People = world.people
    assert not people.waiting()
    world.close()


BEGIN = BeginLedger(reason="the disk failed")


def ask(world: World) -> None:
    """Let people agree to a new ledger."""
    asked = world.people.request(caller(*Role), BEGIN)
    assert asked is not None
    world.people.grant(asked)


def begin(world: World) -> LedgerBegun:
    """Begin a new ledger, with consent."""
    ask(world)
    return world.session.begin_ledger(BEGIN.reason)


def sweep_till_ripe(world: World) -> str:
    """Make a key whose old version would be purged by now, and sweep."""
    key = world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
    world.sweep()
    return key


class TestLostLedger:
    """What people can do when a ledger is gone for good."""

    @pytest.mark.parametrize("keeps_state", [True, False])
    def test_a_new_one_takes_its_place(self, folder: Path, keeps_state: bool) -> None:
        """Purges go on, and every verification says that there was another before."""
        former = verified(folder).chain
        gone(folder)
        if not keeps_state:
            (state,) = (folder / "keys").rglob("retention")
            state.unlink()
        world = World(folder, memory=False, clock=later())
        key = sweep_till_ripe(world)
        with pytest.raises(ApprovalRequiredError):
            world.session.begin_ledger(BEGIN.reason)
        begun = begin(world)
        for _ in range(3):
            world.sweep()
            world.people.grant()

        assert (former.log_id, former.head_seq, former.head_hash) == (
            begun.former_log_id,
            begun.former_head_seq,
            begun.former_head_hash,
        )
        assert [DESTROYED, ACTIVE] == world.states(key)
        assert world.session.status().retention.healthy
        world.close()
        found = verified(folder)
        now = (found.former, found.purges, found.chain.log_id)
        assert (1, 1, begun.log_id) == now
        world.open()
        assert world.session.status().retention.healthy
        world.close()

    def test_it_says_who_began_it_and_why(self, folder: Path) -> None:
        """In the ledger and in the trail."""
        gone(folder)
        world = World(folder, memory=False, clock=later())
        begin(world)
        assert world.ledger_log is not None
        (first, *_) = events_of(world.ledger_log)
        found = world.hsm.act_as(caller(*Role)).execute(
            ListAuditEvents(kind="system.ledger", limit=1)
        )
        world.close()

        assert "system.ledger-begun" == first.kind
        for event in (first, found.items[0].event):
            assert MessageDetail(text=BEGIN.reason) == event.detail
            assert event.caller is not None
            assert caller(*Role).principal == event.caller.principal
            assert event.parameters["former_log_id"]

    @pytest.mark.parametrize("place", ["ledger.after_begun", "ledger.after_named"])
    def test_a_kill_leaves_it_to_be_done_again(self, folder: Path, place: str) -> None:
        """Nothing is purged until it is done wholly."""
        gone(folder)
        world = World(folder, memory=False, clock=later())

        def strike(name: str) -> None:
            if name == place:
                raise KeyboardInterrupt

        ask(world)
        with install(strike), pytest.raises(KeyboardInterrupt):
            world.session.begin_ledger(BEGIN.reason)
        world.close()
        world.open()
        was_healthy = world.session.status().retention.healthy
        begin(world)
        world.close()

        assert not was_healthy
        assert verified(folder).former

    def test_the_lost_one_is_not_taken_back(self, folder: Path) -> None:
        """Once it was replaced, an old copy of it is as bad as any other ledger."""
        gone(folder)
        world = World(folder, memory=False, clock=later())
        begin(world)
        world.close()
        gone(folder)
        older_copy(folder)
        with pytest.raises(LedgerTamperedError):
            verified(folder)
        world.open()

        assert not world.session.status().retention.healthy
        with pytest.raises(ConflictError, match="holds purges already"):
            world.session.begin_ledger(BEGIN.reason)
        world.close()

    def test_two_can_be_lost_one_after_the_other(self, folder: Path) -> None:
        """The second is known by the record that it was begun with."""
        gone(folder)
        world = World(folder, memory=False, clock=later())
        second = begin(world)
        world.close()
        gone(folder)
        world.open()
        third = begin(world)
        purge_one(world)
        world.close()

        assert second.log_id == third.former_log_id
        assert (2, 1) == (verified(folder).former, verified(folder).purges)

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            (lambda _: None, "Nothing is known to be wrong"),
            (older_copy, "ends before record"),
            (edit, "Move its files away"),
        ],
        ids=["none", "an older copy", "an edited record"],
    )
    def test_only_a_new_one_takes_the_place(
        self, folder: Path, harm: Callable[[Path], None], said: str
    ) -> None:
        """What holds purges is put right, or moved away, by people."""
        harm(folder)
        world = World(folder, memory=False, clock=later())
        with pytest.raises(ConflictError, match=said):
            world.session.begin_ledger(BEGIN.reason)
        world.close()

    def test_a_store_that_fails_leaves_it_undone(self, folder: Path) -> None:
        """Nothing is purged then, and it can be done again."""
        gone(folder)
        world = World(folder, memory=False, clock=later())
        ask(world)
        world.faults.plan("store.write_meta", StoreUnavailableError())
        with pytest.raises(StoreUnavailableError):
            world.session.begin_ledger(BEGIN.reason)

        assert not world.session.status().retention.healthy

        world.faults.clear()
        begin(world)

        assert world.session.status().retention.healthy
        world.close()


def test_without_retention_there_is_no_ledger_to_begin() -> None:
    """Which is said, and nobody is asked."""
    with memory_hsm() as gateway, pytest.raises(ConflictError, match="no retention"):
        gateway.act_as(caller(*Role)).execute(BEGIN)

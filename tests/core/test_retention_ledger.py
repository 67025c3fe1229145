# SPDX-License-Identifier: MIT
"""The ledger: whatever is done to its files is noticed, and nothing is purged then."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.pipeline.authorisation import Admission
from hsm_core.errors import (
    ApprovalRequiredError,
    ConflictError,
    HSMError,
    HSMLockedError,
    IntegrityError,
    LedgerTamperedError,
    StoreUnavailableError,
)
from hsm_core.factory import LedgerVerification, verify_ledger
from hsm_core.model import KeyState, MessageDetail, Role
from hsm_core.operations import BeginLedger, LedgerBegun, ListAuditEvents, RecoverStore
from hsm_core.settings import AuditStoreKind
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.core import record_attacks
from tests.core.audit_support import read_lines, write_lines
from tests.core.record_attacks import RecordAttack
from tests.core.retention_support import DAY, HMAC_KEY, World, events_of

ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED


TRAILS = {
    "filesystem": {},
    "sqlite": {"audit_store": AuditStoreKind.SQLITE},
}
"""Where the trail lies that says how far the ledger reaches."""


def open_world(folder: Path, trail: str, clock: FakeClock | None = None) -> World:
    """Open what lies in a folder."""
    settings = TRAILS[trail] and TRAILS[trail] | {
        "audit_sqlite_path": folder / "audit.sqlite"
    }
    return World(folder, memory=False, clock=clock, **settings)


def verified(folder: Path, *, with_trail: bool = True) -> LedgerVerification:
    """Verify a ledger as somebody who has the key."""
    database = folder / "audit.sqlite"
    trail = database if database.exists() else folder / "audit.log"
    ledger = folder / "ledger.log"
    return verify_ledger(ledger, HMAC_KEY, trail=trail if with_trail else None)


def purge_one(world: World, key: str = "") -> str:
    """Let the old version of a key be purged; of a new one if none is given."""
    key = key or world.old_key()
    world.ripen()
    world.sweep()
    assert [DESTROYED, ACTIVE] == world.states(key)
    return key


def lines_of(folder: Path) -> list[bytes]:
    """Return the records of a ledger."""
    return read_lines(folder / "ledger.log")


def older_copy(folder: Path) -> int:
    """Put an older copy of the ledger back, with all of its files (7)."""
    for path in (folder / "older").iterdir():
        shutil.copy2(path, folder / path.name)
    return len(lines_of(folder))


def gone(folder: Path) -> int:
    """Remove the ledger with all of its files (8)."""
    for path in folder.glob("ledger.log*"):
        path.unlink()
    for path in folder.glob(".ledger.log*"):
        path.unlink()
    return 0


def put_another(folder: Path) -> int:
    """Put the whole ledger of another HSM of the same key in its place (10)."""
    gone(folder)
    for pattern in ("ledger.log*", ".ledger.log*"):
        for path in (folder / "other").glob(pattern):
            shutil.copy2(path, folder / path.name)
    return 0


def add_a_line(folder: Path) -> int:
    """Add what is no record."""
    with (folder / "ledger.log").open("ab") as file:
        file.write(b"{}\n")
    return len(lines_of(folder)) - 1


def of_the_kit(made: RecordAttack) -> Callable[[Path], int]:
    """Return what makes an attack that is made on any log."""

    def attack(folder: Path) -> int:
        path, other = folder / "ledger.log", folder / "other" / "ledger.log"
        lines = read_lines(path)
        seq = made(lines, 2, read_lines(other))
        write_lines(path, lines)
        return seq

    attack.__name__ = made.__name__
    return attack


edit = of_the_kit(record_attacks.edit)

ATTACKS: list[Callable[[Path], int]] = [
    *map(of_the_kit, (*record_attacks.IN_THE_MIDDLE, *record_attacks.ENDINGS)),
    add_a_line,
    older_copy,
    put_another,
    gone,
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of HSMs with two purges; of the first there is a copy."""
    with pytest.MonkeyPatch.context() as patches:
        for name in ("check_approvals", "take_approval"):
            patches.setattr(Admission, name, getattr(Admission, name))
        return {
            trail: with_two_purges(tmp_path_factory.mktemp(trail), trail)
            for trail in TRAILS
        }


def with_two_purges(folder: Path, trail: str) -> Path:
    """Make two purges, and copies of the ledger after the first and of another one."""
    folder.chmod(0o700)
    world = open_world(folder, trail)
    purge_one(world)
    world.close()
    for name in ("older", "other"):
        (folder / name).mkdir(mode=0o700)
    for path in [*folder.glob("ledger.log*"), *folder.glob(".ledger.log*")]:
        shutil.copy2(path, folder / "older" / path.name)
    world = open_world(folder, trail, world.clock)
    purge_one(world)
    world.close()
    other = open_world(folder / "other", "filesystem")
    purge_one(other)
    purge_one(other)
    other.close()
    return folder


@pytest.fixture(params=TRAILS)
def trail(request: pytest.FixtureRequest) -> str:
    """Return where the trail lies."""
    return str(request.param)


@pytest.fixture
def folder(originals: dict[str, Path], trail: str, tmp_path: Path) -> Path:
    """Return a copy of such files."""
    return shutil.copytree(originals[trail], tmp_path / "hsm")


def later() -> FakeClock:
    """Return a clock of a time after the ledger was written."""
    clock = FakeClock()
    clock.advance(100 * DAY)
    return clock


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_ledger_that_was_changed_keeps_purges_back(
    folder: Path, trail: str, attack: Callable[[Path], int]
) -> None:
    """RE-05: it is noticed by the HSM, and offline by whoever has trail and key."""
    seq = attack(folder)
    with pytest.raises(HSMError) as caught:
        verified(folder)
    if attack is not gone:
        assert isinstance(caught.value, LedgerTamperedError)
        assert seq == caught.value.facts["seq"]
    check_kept_back(open_world(folder, trail, later()), seq)


@pytest.mark.parametrize("attack", [ATTACKS[0], older_copy, gone])
@pytest.mark.parametrize("trail", ["filesystem"], indirect=True)
def test_a_ledger_that_was_changed_with_what_was_remembered(
    folder: Path, trail: str, attack: Callable[[Path], int]
) -> None:
    """Whoever can put the ledger back can remove what was remembered of it too."""
    seq = attack(folder)
    (state,) = (folder / "keys").rglob("retention")
    state.unlink()

    # Without the state, the trail is read from its beginning.
    check_kept_back(open_world(folder, trail, later()), seq, newest=seq)


@pytest.mark.parametrize("trail", ["filesystem"], indirect=True)
def test_an_older_ledger_is_noticed_though_nothing_is_due(
    folder: Path, trail: str
) -> None:
    """The first sweep compares it with the trail, whatever was remembered."""
    older_copy(folder)
    (state,) = (folder / "keys").rglob("retention")
    state.unlink()
    world = open_world(folder, trail)
    world.sweep()
    report = world.session.retention()

    assert report.ledger is not None
    assert "ends before record" in report.ledger.problem
    assert not world.session.status().retention.healthy
    world.close()


def check_kept_back(world: World, seq: int, *, newest: int = 4) -> None:
    """
    Let something become due: nothing is purged, and the reason names a record.

    Args:
        world: Just opened.

        seq: The first bad record.

        newest: The newest one that is remembered.
    """
    key = world.old_key()
    world.ripen()
    world.sweep()
    world.consent()
    world.sweep()
    report = world.session.retention()

    assert DESTROYED not in world.states(key)
    assert report.ledger is not None
    assert report.ledger.problem in {
        f"The retention ledger is damaged at record {seq}.",
        f"The retention ledger ends before record {newest}, which the audit log names.",
        "The retention ledger is not the one that the audit log names.",
    }
    assert not world.session.status().retention.healthy
    assert b"x" == world.session.decrypt(key, world.session.encrypt(key, b"x"))
    world.close()


def test_what_was_remembered_can_not_simply_be_lost(folder: Path, trail: str) -> None:
    """A trail that knows a ledger, and a state that does not: people must say so."""
    (state,) = (folder / "keys").rglob("retention")
    state.unlink()
    world = open_world(folder, trail, later())
    key = world.old_key()
    world.ripen()
    world.sweep()

    assert DESTROYED not in world.states(key)
    assert "state" == world.session.retention().paused

    world.sweep()
    world.consent("AllowPurges")
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

    assert 5 == verified(folder).chain.records


class TestPutBack:
    """Keys, trail and approvals as before a purge, beside the newer ledger."""

    @pytest.fixture(params=["the key is there", "the key was not made yet"])
    def key(self, request: pytest.FixtureRequest, tmp_path: Path, trail: str) -> str:
        """Make a purge, and put all but the ledger back; return the key's id."""
        folder, before = tmp_path / "hsm", tmp_path / "before"
        folder.mkdir(mode=0o700)
        world = open_world(folder, trail)
        key = world.old_key() if request.param == "the key is there" else ""
        world.session.create_key("AES-256-GCM", name="other")
        world.close()
        shutil.copytree(folder, before)
        world.open()
        key = purge_one(world, key)
        world.close()
        for path in folder.iterdir():
            if not path.name.startswith(("ledger.log", ".ledger.log")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in before.glob("ledger.log*"):
            path.unlink()
        shutil.copytree(before, folder, dirs_exist_ok=True)
        return key

    def test_the_hsm_is_locked(self, key: str, tmp_path: Path, trail: str) -> None:
        """The ledger knows more than the trail, until somebody accepts the keys."""
        folder = tmp_path / "hsm"
        with pytest.raises(LedgerTamperedError, match="audit log is older") as caught:
            verified(folder)
        assert key == caught.value.facts["key_id"]
        world = open_world(folder, trail, later())
        for _ in range(2):
            with pytest.raises(HSMLockedError, match="older than the") as locked:
                world.session.describe("other")
            assert ("trail_older", key) == (
                locked.value.facts["reason"],
                locked.value.facts["key_id"],
            )
            world.close()
            world.open()
        world.hsm.act_as(caller(*Role)).execute(RecoverStore(reason="Monday"))
        self.check_accepted(world, key)
        world.close()
        world.open()
        self.check_accepted(world, key)
        world.close()
        assert 1 == verified(folder).anchors

    def check_accepted(self, world: World, key: str) -> None:
        """What was purged is destroyed, and the rest serves."""
        assert "operational" == world.session.status().state
        assert not world.session.status().tampered_keys
        assert KeyState.ACTIVE is world.session.describe("other").state
        if key in {found.key_id for found in world.session.keys()}:
            assert [DESTROYED, ACTIVE] == world.states(key)

    def test_accepted_by_a_start(self, key: str, tmp_path: Path, trail: str) -> None:
        """`accept_changed_store` does the same without a caller."""
        settings = {"accept_changed_store": True} | (
            TRAILS[trail]
            and TRAILS[trail] | {"audit_sqlite_path": tmp_path / "hsm" / "audit.sqlite"}
        )
        world = World(tmp_path / "hsm", memory=False, clock=later(), **settings)
        self.check_accepted(world, key)
        world.close()
        assert 1 == verified(tmp_path / "hsm").anchors


def test_a_trail_that_was_changed_keeps_purges_back(tmp_path: Path) -> None:
    """The chain is verified before the first purge of a sweep."""
    world = World(tmp_path, memory=False)
    key = world.old_key()
    world.ripen()
    trail = tmp_path / "audit.log"
    whole = trail.read_bytes()
    trail.write_bytes(whole.replace(b"CreateKey", b"CreatekEy", 1))
    world.sweep()

    assert DESTROYED not in world.states(key)
    assert "trail" == world.session.retention().paused

    trail.write_bytes(whole)
    assert not world.waiting()
    world.close()


BEGIN = BeginLedger(reason="the disk failed")


def begin(world: World) -> LedgerBegun:
    """Begin a new ledger, with consent, which may be there already."""
    with suppress(ApprovalRequiredError):
        return world.session.begin_ledger(BEGIN.reason)
    world.consent("BeginLedger")
    return world.session.begin_ledger(BEGIN.reason)


def sweep_till_ripe(world: World) -> str:
    """Make a key whose old version would be purged by now, and sweep."""
    key = world.old_key()
    world.ripen()
    world.sweep()
    return key


class TestLostLedger:
    """What people can do when a ledger is gone for good."""

    @pytest.fixture
    def trail(self) -> str:
        """Return where the trail lies."""
        return "filesystem"

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
            world.consent()

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
        (_, first, *_) = events_of(world.ledger_log)
        found = world.hsm.act_as(caller(*Role)).execute(
            ListAuditEvents(kind=("system.ledger",), limit=1)
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

        with install(strike), pytest.raises(KeyboardInterrupt):
            begin(world)
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
        with pytest.raises(ConflictError, match="already holds purges"):
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
            (lambda _: None, "has no known problem"),
            (older_copy, "ends before record"),
            (edit, "Move its files away"),
        ],
        ids=["none", "an older copy", "an edited record"],
    )
    def test_only_a_new_one_takes_the_place(
        self, folder: Path, harm: Callable[[Path], object], said: str
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
        world.faults.plan("store.write_meta", StoreUnavailableError())
        with pytest.raises(StoreUnavailableError):
            begin(world)

        assert not world.session.status().retention.healthy

        world.faults.clear()
        begin(world)

        assert world.session.status().retention.healthy
        world.close()


def test_without_retention_there_is_no_ledger_to_begin() -> None:
    """Which is said, and nobody is asked."""
    with memory_hsm() as gateway, pytest.raises(ConflictError, match="no retention"):
        gateway.act_as(caller(*Role)).execute(BEGIN)

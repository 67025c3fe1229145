# SPDX-License-Identifier: MIT
"""The ledger: whatever is done to its files is noticed, and nothing is purged then."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.verify import AuditVerifier
from hsm_core._internal.purging.offline import LedgerVerification, verify_ledger
from hsm_core.errors import HSMError, IntegrityError
from hsm_core.model import KeyState
from hsm_core.testing import FakeClock
from tests.core.retention_support import DAY, HMAC_KEY, People, World, keep_pipeline

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

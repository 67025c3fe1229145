# SPDX-License-Identifier: MIT
"""A whole HSM over a vault whose answers get lost, late or held back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core.errors import (
    KeyNotFoundError,
    NameTakenError,
    OperationAbortedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.factory import open_verifier
from hsm_core.model import KeyState, Role
from hsm_core.operations import RecoverKey, VerifyAudit, VerifyStore
from hsm_core.protocols import VaultObject
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import FakeClock, MemoryVault, caller
from tests.core.remote_support import no_pauses
from tests.self_tests import open_tested

EVERYBODY = caller(Role.ADMINISTRATOR, Role.OPERATOR, Role.AUDITOR)
HMAC_KEY = bytes(range(32))


class World:
    """A vault, a clock and a trail that outlive the HSMs over them."""

    def __init__(self, folder: Path) -> None:
        self.vault = MemoryVault()
        self.clock = FakeClock()
        self.trail = folder / "audit.log"

    def open(self) -> OpenHSM:
        """Open an HSM."""
        settings = Settings(audit_log=self.trail)
        return open_tested(
            settings, hmac_key=HMAC_KEY, vault=self.vault, clock=self.clock
        )

    def open_next(self) -> OpenHSM:
        """Open an HSM after the lease of a process that died has ended."""
        self.clock.advance(31)
        return self.open()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world in which tries follow each other at once."""
    with no_pauses():
        yield World(tmp_path)


def session_of(gateway: OpenHSM) -> Session:
    """Return a session of somebody who may do everything."""
    return Session(gateway.act_as(EVERYBODY))


def check(gateway: OpenHSM) -> None:
    """Check that trail and store agree, and that no intent is open."""
    hsm = gateway.act_as(EVERYBODY)
    hsm.execute(VerifyAudit())
    verification = hsm.execute(VerifyStore())
    assert () == tuple(verification.findings)


def lose(vault: MemoryVault, *, after: int = 0) -> None:
    """Do every put of a key, and answer none after some, nor any look at one."""
    vault.lose_answers("put", name="keys/", after=after, times=10**6)
    vault.refuse("get", name="keys/", times=10**6)


def hold(vault: MemoryVault, *, after: int = 0) -> None:
    """Hold every put of a key back, after some."""
    vault.hold("put", name="keys/", after=after, times=10**6)


def fill(session: Session) -> None:
    """Make the key that the tests change."""
    session.create_key("Ed25519", name="signer", idempotency_key="first")


def revoke(session: Session) -> None:
    """Change it, with the put of its document alone."""
    session.revoke("signer", reason="test", idempotency_key="second")


def test_lost_answers(world: World) -> None:
    """
    A change whose answer is lost is found to be made; a repetition gives the answer.
    """
    with world.open() as gateway:
        session = session_of(gateway)
        fill(session)
        lose(world.vault)
        with pytest.raises(OutcomeUnknownError):
            revoke(session)
        with pytest.raises(StoreUnavailableError):
            session.describe("signer")
        world.vault.clear()

        revoke(session)

        assert KeyState.REVOKED is session.describe("signer").state
        check(gateway)
    open_verifier(world.trail, HMAC_KEY).verify()


def test_late_put(world: World) -> None:
    """
    A change that was given up stays undone, whatever arrives later.
    """
    with world.open() as gateway:
        session = session_of(gateway)
        fill(session)
        before = session.describe("signer")
        hold(world.vault)
        with pytest.raises(OutcomeUnknownError):
            revoke(session)
        world.vault.clear()

        with pytest.raises(OperationAbortedError):
            revoke(session)

        assert 0 == world.vault.deliver()
        assert before == session.describe("signer")
        session.revoke("signer", reason="test")
        check(gateway)


@pytest.mark.parametrize("begin", [fill, revoke])
@pytest.mark.parametrize("fate", ["lost", "held"])
def test_next_process(
    world: World, begin: Callable[[Session], object], fate: str
) -> None:
    """
    The next process settles what the one before has left open, before anything late.
    """
    gateway = world.open()
    session = session_of(gateway)
    if begin is revoke:
        fill(session)
    fail = lose if fate == "lost" else hold
    fail(world.vault, after=1 if begin is fill else 0)  # the blob of a new key
    with pytest.raises(OutcomeUnknownError):
        begin(session)
    gateway.close()
    world.vault.clear()

    with world.open_next() as gateway:
        session = session_of(gateway)
        assert 0 == world.vault.deliver()
        if fate == "lost":
            begin(session)
        else:
            with pytest.raises(OperationAbortedError):
                begin(session)
            if begin is fill:
                with pytest.raises(KeyNotFoundError):
                    session.describe("signer")
        check(gateway)

    with world.open() as gateway:
        check(gateway)


def test_list_that_lags_behind(world: World) -> None:
    """
    A key that the start's list lacks, and the trail knows, is there all the same.
    """
    world.vault.freeze_lists()
    with world.open() as gateway:
        fill(session_of(gateway))

    with world.open() as gateway:
        session = session_of(gateway)
        assert "signer" == session.describe("signer").name
        assert ["signer"] == [key.name for key in session.keys()]
        check(gateway)


def test_lost_lease(world: World) -> None:
    """
    An HSM that lost its lease serves nothing, and goes on when it has it again.
    """
    with world.open() as gateway:
        session = session_of(gateway)
        fill(session)
        world.vault.refuse("get", name="leases/", times=10**6)
        world.clock.advance(40)
        with pytest.raises(StoreUnavailableError):
            session.sign("signer", b"hello")
        world.vault.clear()

        session.rotate("signer")

        assert 2 == session.describe("signer").version
        check(gateway)


def test_a_deleted_document_keeps_its_name(world: World) -> None:
    """
    No other key gets the name of one whose document is gone, until it is forgotten.
    """
    with world.open() as gateway:
        fill(session_of(gateway))
        session_of(gateway).create_key("Ed25519", name="other")
        key_id = session_of(gateway).describe("signer").key_id
    world.vault.delete(f"keys/{key_id}/document")

    with world.open() as gateway:
        session = session_of(gateway)
        with pytest.raises(NameTakenError):
            session.create_key("Ed25519", name="signer")
        with pytest.raises(NameTakenError):
            session.update("other", name="signer")
        gateway.act_as(EVERYBODY).execute(RecoverKey(key_id=key_id, reason="deleted"))
        session.create_key("Ed25519", name="signer")
        check(gateway)


def test_a_document_deleted_in_use_keeps_its_name(world: World) -> None:
    """
    The same while the HSM runs.
    """
    with world.open() as gateway:
        session = session_of(gateway)
        fill(session)
        key_id = session.describe("signer").key_id
        world.vault.delete(f"keys/{key_id}/document")
        gateway.act_as(EVERYBODY).execute(VerifyStore())

        with pytest.raises(NameTakenError):
            session.create_key("Ed25519", name="signer")


_BACKGROUND = ("hsm-core-care", "hsm-core-lease", "hsm-core-vault")


class CountingVault(MemoryVault):
    """A vault that counts what is read, and how much of it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.counting = threading.Lock()
        self.reads = self.running = self.most = 0

    def get(self, name: str, /) -> VaultObject | None:
        """Count what requests read, and let others begin meanwhile."""
        if threading.current_thread().name.startswith(_BACKGROUND):
            return super().get(name)
        with self.counting:
            self.reads += 1
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.002)
        found = super().get(name)
        with self.counting:
            self.running -= 1
        return found

    def begin(self) -> None:
        """Count anew."""
        self.reads = self.most = 0


def test_listings_cost_few_requests(world: World) -> None:
    """
    Documents in memory are not read again for a listing; others are, side by side.
    """
    world.vault = vault = CountingVault()
    with world.open() as gateway:
        session = session_of(gateway)
        fill(session)
        for number in range(20):
            session.create_key("aes", name=f"key-{number}")
            session.rotate("signer")
        vault.begin()
        assert 21 == len(list(session.keys()))
        assert 0 == vault.reads
        assert 21 == len(session.versions("signer"))
        assert 1 + 2 * 21 >= vault.reads
        assert 1 < vault.most
        vault.begin()
        session.describe("signer")
        assert 2 + 21 >= vault.reads
        assert 1 < vault.most
    with world.open() as gateway:
        session = session_of(gateway)
        vault.begin()
        assert 21 == len(list(session.keys()))
        assert 21 == vault.reads
        assert 1 < vault.most
        list(session.keys(search="key"))
        assert 21 == vault.reads


@pytest.mark.parametrize("stored", [b"", b"junk", b'{"format":1}', b"\xff"])
def test_a_damaged_lease(world: World, stored: bytes) -> None:
    """
    The start says which object is damaged and what to do, and that helps.
    """
    with world.open() as gateway:
        fill(session_of(gateway))
    world.vault.put("leases/writer", stored)

    with pytest.raises(StoreUnavailableError, match="delete the object leases/writer"):
        world.open()

    world.vault.delete("leases/writer")
    with world.open() as gateway:
        check(gateway)

# SPDX-License-Identifier: MIT
"""A store that did not tell what became of a change: found out, recorded, healed."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.pipeline.mutations import Mutations
from hsm_core.factory import OpenHSM
from hsm_core.model import KeyInfo, KeyState
from hsm_core.protocols import bucket_of
from hsm_core.session import Session
from hsm_core.testing import Faults, memory_hsm
from tests.core.changed_stores import FilesystemData, SqliteData, problems, session_on
from tests.core.filesystem_support import failing_sync_of_directories, patched, struck

Change = Callable[[Session, str], KeyInfo]

CHANGES: dict[str, Change] = {
    "CreateKey": lambda s, t: s.create_key("aes", name="new", idempotency_key=t),
    "RotateKey": lambda s, t: s.rotate("old", idempotency_key=t),
    "RevokeKey": lambda s, t: s.revoke("old", idempotency_key=t),
    "DestroyKey": lambda s, t: s.destroy("old", idempotency_key=t),
}


def outcomes(gateway: OpenHSM) -> list[str]:
    """Return the codes of all outcomes, oldest first; each intent has one."""
    events = [e.event for e in session_on(gateway).audit_events(limit=100)][::-1]
    intents = [event.operation_id for event in events if event.phase == "intent"]
    found = [event for event in events if event.phase == "outcome"]
    assert sorted(intents) == sorted(event.operation_id for event in found)
    return [event.code for event in found]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, for a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("made", [True, False], ids=["made", "not-made"])
def test_an_unknown_outcome_after_an_intent_in_doubt(
    monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """The outcome of the first try, whose intent came late, is not the second one's."""
    faults, whole = Faults(), Mutations._wait  # noqa: SLF001 (a log that is late)

    def late(self: Mutations, *_: object) -> None:
        monkeypatch.setattr(Mutations, "_wait", whole)
        raise errors.AuditUnavailableError

    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        session.create_key("aes", name="old")
        monkeypatch.setattr(Mutations, "_wait", late)
        with pytest.raises(errors.AuditUnavailableError):
            session.rotate("old", idempotency_key="once")
        faults.plan_unknown_commit(made=made)
        with pytest.raises(errors.OutcomeUnknownError):
            session.rotate("old", idempotency_key="once")
        session.create_key("aes", name="new")

        settled = "recovered-committed" if made else "recovered-aborted"
        assert ["ok", "audit_unavailable", settled, "ok"] == outcomes(gateway)
        assert 1 + made == session.describe("old").version


@pytest.mark.parametrize("made", [True, False], ids=["made", "not-made"])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_of_unknown_outcome(kind: str, made: bool) -> None:
    """It is settled as what became of it; repeated, it is done once."""
    faults, change = Faults(), CHANGES[kind]
    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        session.create_key("aes", name="old")
        faults.plan_unknown_commit(made=made)
        with pytest.raises(errors.OutcomeUnknownError):
            change(session, "once")

        if made:
            change(session, "once")
        else:
            with pytest.raises(errors.OperationAbortedError):
                change(session, "once")
            change(session, "again")

        wanted = "recovered-committed" if made else "recovered-aborted"
        assert ["ok", wanted, *([] if made else ["ok"])] == outcomes(gateway)
        assert {} == problems(gateway)
        session.create_key("aes")
        assert gateway._services.inventory.set_digest == newest_digest(gateway)  # noqa: SLF001


def newest_digest(gateway: OpenHSM) -> str:
    """Return the newest set digest of the trail."""
    events = session_on(gateway).audit_events(limit=20)
    return next(e.event.set_digest for e in events if e.event.set_digest)


def test_it_heals_by_itself() -> None:
    """Nobody must send another request for it."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        session.create_key("aes", name="old")
        faults.plan_unknown_commit(made=True)
        with pytest.raises(errors.OutcomeUnknownError):
            session.rotate("old")

        wait_for(lambda: gateway._services.inventory.store.available)  # noqa: SLF001
        wait_for(lambda: "recovered-committed" in outcomes_so_far(gateway))

        assert 2 == session.describe("old").version


def outcomes_so_far(gateway: OpenHSM) -> list[str]:
    """Return the codes of all outcomes."""
    events = session_on(gateway).audit_events(limit=100)
    return [e.event.code for e in events if e.event.phase == "outcome"]


def test_while_it_can_not_be_opened_again() -> None:
    """Everything answers store_unavailable; status tells it; then all goes on."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        key = session.create_key("ed25519", name="old").key_id
        faults.plan("store.reopen", errors.StoreUnavailableError(), times=10**6)
        faults.plan_unknown_commit(made=False)
        with pytest.raises(errors.OutcomeUnknownError):
            session.rotate(key)

        for refused in (
            lambda: session.sign(key, b"m"),
            lambda: session.describe(key),
            lambda: session.rotate(key),
            lambda: session.create_key("aes"),
        ):
            with pytest.raises(errors.StoreUnavailableError):
                refused()
        status = session.status()
        assert ("error", False) == (status.state, status.store.available)

        faults.plan("store.reopen", errors.StoreUnavailableError(), times=0)
        wait_for(lambda: session.status().state == "operational")
        session.sign(key, b"m")
        session.rotate(key)
        assert ["ok", "recovered-aborted", "ok"] == outcomes(gateway)


def test_while_its_outcome_can_not_be_recorded() -> None:
    """What was found out is counted once, however often recording it fails."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        session.create_key("aes", name="old")
        faults.plan_unknown_commit(made=True)
        faults.plan("audit.append.outcome", errors.AuditUnavailableError(), times=2)
        with pytest.raises(errors.OutcomeUnknownError):
            session.rotate("old")
        for _ in range(2):
            with pytest.raises(errors.AuditUnavailableError):
                session.create_key("aes")

        session.create_key("aes")

        assert ["ok", "recovered-committed", "ok"] == outcomes(gateway)
        assert {} == problems(gateway)


def test_an_outcome_that_is_owed_is_no_tampering() -> None:
    """A part of the store that is in doubt is compared with a trail that knows all."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        key = session.create_key("aes", name="old").key_id
        faults.plan("audit.append.outcome", errors.AuditUnavailableError())
        with pytest.raises(errors.OutcomeUnknownError):
            session.rotate("old")
        inventory = gateway._services.inventory  # noqa: SLF001 (to raise the doubt)
        inventory.census.doubt()
        inventory.doubtful.add(bucket_of(key))

        assert {} == problems(gateway)

        session.encrypt("old", b"m")
        assert ["ok", "ok"] == outcomes(gateway)


def test_a_lost_answer_of_a_store_that_stays_open() -> None:
    """A commit that raised something foreign is settled before the next change."""
    faults = Faults()
    with memory_hsm(faults=faults) as gateway:
        session = session_on(gateway)
        session.create_key("aes", name="old")
        faults.plan("store.commit", RuntimeError("the line went dead"))
        with pytest.raises(errors.OutcomeUnknownError):
            session.rotate("old", idempotency_key="once")

        session.rotate("old")

        assert ["ok", "recovered-aborted", "ok"] == outcomes(gateway)
        assert 2 == session.describe("old").version


def test_on_disk(tmp_path: Path) -> None:
    """A file store whose directory could not be synced goes on by itself."""
    data = FilesystemData(tmp_path / "data")
    data.folder.mkdir(mode=0o700)
    with data.open() as gateway:
        session = session_on(gateway)
        key = session.create_key("ed25519", name="old").key_id
        with (
            patched(failing_sync_of_directories()),
            pytest.raises(errors.OutcomeUnknownError),
        ):
            session.revoke("old", idempotency_key="once")
        wait_for(lambda: session.status().store.available)
        session.revoke("old", idempotency_key="once")
        assert KeyState.REVOKED is session.describe(key).state
        assert ["ok", "recovered-committed"] == outcomes(gateway)
        assert {} == problems(gateway)
    with data.open() as gateway:
        assert {} == problems(gateway)
        assert 2 == session_on(gateway).describe(key).generation


def test_out_of_descriptors_is_no_missing_key(tmp_path: Path) -> None:
    """A store that can't read is unavailable, and never "not found" or "tampered"."""
    data = FilesystemData(tmp_path / "data")
    data.folder.mkdir(mode=0o700)
    with data.open() as gateway:
        key = session_on(gateway).create_key("aes", name="old").key_id
    with data.open() as gateway:
        session = session_on(gateway)
        for number in (errno.EMFILE, errno.EIO):
            fake = struck(number, 1, sticky=True)
            # It needs no descriptor, and the trail looks after its lock by it.
            fake.names -= {"lstat"}
            with patched(fake):
                for refused in (
                    lambda: session.encrypt(key, b"m"),
                    lambda: session.describe("old"),
                    lambda: list(session.keys()),
                ):
                    with pytest.raises(errors.StoreUnavailableError):
                        refused()
        assert 0 == session.status().tampered_keys
        session.encrypt(key, b"m")
        assert {} == problems(gateway)


def test_a_database_that_hangs(tmp_path: Path) -> None:
    """Nobody who asks for something waits for a write that does not come to its end."""
    data = SqliteData(tmp_path / "data")
    data.folder.mkdir(mode=0o700)
    is_hanging, may_go_on = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        if name == "sqlite.before_commit":
            is_hanging.set()
            may_go_on.wait(30)

    with data.open() as gateway:
        session = session_on(gateway)
        key = session.create_key("ed25519", name="old").key_id
        with install(hang), ThreadPoolExecutor(1) as pool:
            rotation = pool.submit(session.rotate, key)
            assert is_hanging.wait(60)
            try:
                status = session.status()
                for _ in range(10):
                    with pytest.raises(errors.StoreUnavailableError):
                        session.describe("old")
            finally:
                may_go_on.set()
            assert 2 == rotation.result(10).version

        assert ("error", 0) == (status.state, status.keys)
        assert "operational" == session.status().state
        session.sign("old", b"m")
        assert {} == problems(gateway)

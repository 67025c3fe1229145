# SPDX-License-Identifier: MIT
"""Backups of databases in use."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from hsm_core._internal.background.backups import Backups
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core.errors import (
    AccessDeniedError,
    AuditUnavailableError,
    HSMError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from hsm_core.model import Role
from hsm_core.operations import BackUpStores, CreateKey, ListKeys, Status, VerifyStore
from hsm_core.protocols import AuditDrafts, AuditHealth, AuditTicket
from hsm_core.settings import AuditStoreKind, KeyStoreKind, Settings
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.self_tests import open_tested

AUDIT = b"\2" * 32


def settings_in(folder: Path, backups: Path | None) -> Settings:
    """Return the settings of an HSM whose databases lie in a folder."""
    return Settings(
        key_store=KeyStoreKind.SQLITE,
        sqlite_path=folder / "keys.sqlite",
        audit_store=AuditStoreKind.SQLITE,
        audit_sqlite_path=folder / "audit.sqlite",
        backup_dir=backups,
    )


def test_copies_agree_while_keys_are_made(tmp_path: Path) -> None:
    """Every copy that was made under load opens, unlocked, with what it holds."""
    settings = settings_in(tmp_path / "data", tmp_path / "copies")
    stop = threading.Event()
    made = []
    with open_tested(settings) as gateway:
        hsm = gateway.act_as(caller())

        def work() -> None:
            while not stop.is_set():
                hsm.execute(CreateKey(algorithm="Ed25519"))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            made += [hsm.execute(BackUpStores()) for _ in range(3)]
        finally:
            stop.set()
            thread.join()

    counts = []
    for backup in made:
        copy = settings_in(tmp_path / "copies" / backup.folder, None)
        with open_tested(copy) as gateway:
            hsm = gateway.act_as(caller())
            status = hsm.execute(Status())
            assert ("operational", "") == (status.state, status.store.locked)
            assert not hsm.execute(VerifyStore()).findings
            counts.append(hsm.execute(ListKeys()).total)
    assert sorted(counts) == counts
    assert backup.head_seq > made[0].head_seq


def test_changes_wait_for_the_end_alone(tmp_path: Path) -> None:
    """
    No key is changed while copying ends, which the trail is the last to do.

    The record of the backup is on disk before the end is copied.
    """
    steps: list[str] = []

    class Trail(MemoryAuditLog):
        def append(
            self, drafts: AuditDrafts, /, *, durable: bool = False, **more: bool
        ) -> AuditTicket:
            """Note whether the caller waits for the disk."""
            steps.append("record to disk" if durable else "record")
            return super().append(drafts, durable=durable, **more)

    def copier(to: Path, before_end: Callable[[], None]) -> None:
        steps.append(f"most of {to.name}")
        before_end()
        to.touch()
        steps.append(f"all of {to.name}")

    @contextmanager
    def resting() -> Iterator[None]:
        steps.append("rest")
        yield
        steps.append("go on")

    clock, copies = FakeClock(), tmp_path / "copies"
    with closing(Trail(AUDIT, clock=clock, entropy=SystemEntropy())) as trail:
        backups = Backups(
            copies, {"keys": copier, "trail": copier}, trail, clock, resting()
        )
        made = backups.make()

    assert [
        "most of trail",
        "most of keys",
        "rest",
        "record to disk",
        "all of keys",
        "all of trail",
        "go on",
    ] == steps
    assert 1 == made.head_seq


def test_a_name_that_only_a_complete_backup_has(tmp_path: Path) -> None:
    """What a kill leaves half done has another name; after an error nothing is left."""
    copies, seen = tmp_path / "copies", list[str]()

    def copier(to: Path, before_end: Callable[[], None]) -> None:
        before_end()
        to.touch()
        seen.extend(found.name for found in copies.iterdir())
        if len(seen) == 1:
            raise StoreUnavailableError

    clock = FakeClock()
    with closing(MemoryAuditLog(AUDIT, clock=clock, entropy=SystemEntropy())) as trail:
        backups = Backups(copies, {"keys": copier}, trail, clock, nullcontext())
        with pytest.raises(StoreUnavailableError):
            backups.make()
        left = list(copies.iterdir())
        made = backups.make()

    assert [f"{made.folder}.unfinished"] * 2 == seen
    assert [] == left
    assert [made.folder] == [found.name for found in copies.iterdir()]


@pytest.mark.parametrize("filled", ["before", "meanwhile"])
def test_no_backup_that_the_full_disk_refuses(tmp_path: Path, filled: str) -> None:
    """
    Where the audit log has its reserve only, no copy is left that nobody was told of.
    """
    states = ["reserve"] if filled == "before" else ["ok", "reserve"]

    class Trail(MemoryAuditLog):
        @property
        def health(self) -> AuditHealth:
            """Tell of a disk that is full from some time on."""
            return AuditHealth(state=states.pop(0) if states else "reserve")

    def copier(to: Path, before_end: Callable[[], None]) -> None:
        before_end()
        to.touch()

    clock, copies = FakeClock(), tmp_path / "copies"
    copies.mkdir(0o700)
    with closing(Trail(AUDIT, clock=clock, entropy=SystemEntropy())) as trail:
        backups = Backups(copies, {"keys": copier}, trail, clock, nullcontext())
        with pytest.raises(AuditUnavailableError, match="No backup is made"):
            backups.make()

    assert [] == list(copies.iterdir())


def test_one_folder_for_each(tmp_path: Path) -> None:
    """A backup that would have the folder of another fails, and the other stays."""
    settings, clock = settings_in(tmp_path / "data", tmp_path / "copies"), FakeClock()
    with open_tested(settings, clock=clock) as gateway:
        hsm = gateway.act_as(caller())
        made = hsm.execute(BackUpStores())
        with pytest.raises(HSMError):
            hsm.execute(BackUpStores())

    files = [tmp_path / "copies" / made.folder / file.name for file in made.files]
    assert 2 == len(files)
    assert all(file.stat().st_size for file in files)


def test_no_directory(tmp_path: Path) -> None:
    """Who has not said where copies may lie gets none."""
    settings = settings_in(tmp_path / "data", None)
    with open_tested(settings) as gateway:
        with pytest.raises(UnsupportedOperationError, match="No backup directory"):
            gateway.act_as(caller()).execute(BackUpStores())


def test_no_database(tmp_path: Path) -> None:
    """A store in memory can't be copied."""
    with memory_hsm() as gateway, pytest.raises(UnsupportedOperationError):
        gateway.act_as(caller()).execute(BackUpStores())


def test_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    """Where a copy can't be written, no part of it stays, and the HSM goes on."""
    blocked = tmp_path / "file"
    blocked.touch()
    settings = settings_in(tmp_path / "data", blocked / "below")
    with open_tested(settings) as gateway:
        hsm = gateway.act_as(caller())
        with pytest.raises(HSMError):
            hsm.execute(BackUpStores())
        hsm.execute(CreateKey(algorithm="Ed25519"))


def test_only_administrators(tmp_path: Path) -> None:
    """A copy holds everything there is, sealed."""
    settings = settings_in(tmp_path / "d", tmp_path / "c")
    with open_tested(settings) as gateway:
        for role in (Role.OPERATOR, Role.AUDITOR, Role.SERVICE):
            with pytest.raises(AccessDeniedError):
                gateway.act_as(caller(role)).execute(BackUpStores())
    assert not (tmp_path / "c").exists()

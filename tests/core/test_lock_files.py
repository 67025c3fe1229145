# SPDX-License-Identifier: MIT
"""Lock files that somebody deletes: no second process gets in, the first goes on."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from hsm_core import factory
from hsm_core._internal.stores.approvals import ApprovalIndex
from hsm_core._internal.stores.filesystem.stores import (
    FileApprovalStore,
    FilesystemKeyStore,
)
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore
from hsm_core.errors import StoreLockedError, StoreUnavailableError, UnavailableError
from hsm_core.model import Caller, Role
from hsm_core.protocols import ApprovalStore
from hsm_core.session import Session
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, KeyStoreKind, Settings
from tests.contract.store_rows import ROWS, StoreRow
from tests.core import approval_support, key_support
from tests.self_tests import open_tested

_FLOCK = fcntl.flock
HMAC_KEY = b"\x02" * 32
ADA = Caller(principal="ada", roles=frozenset({Role.OPERATOR}))
ON_DISK = [row for row in ROWS if row.name in {"filesystem", "sqlite"}]
APPROVALS: dict[str, Callable[[Path], ApprovalStore]] = {
    "file": lambda folder: FileApprovalStore(folder / "approvals"),
    "sqlite": lambda folder: SqliteApprovalStore(folder / "approvals.sqlite"),
}


def _settings(folder: Path, *, sqlite: bool) -> Settings:
    """Return settings of an HSM with everything on disk, in files or in SQLite."""
    folder.mkdir(mode=0o700, exist_ok=True)
    policy = folder / "retention.yaml"
    policy.write_text("default_days: 30\n")
    return Settings(
        key_store=KeyStoreKind.SQLITE if sqlite else KeyStoreKind.FILESYSTEM,
        key_dir=folder / "keys",
        sqlite_path=folder / "keys.sqlite",
        audit_store=AuditStoreKind.SQLITE if sqlite else AuditStoreKind.FILE,
        audit_log=folder / "audit.log",
        audit_sqlite_path=folder / "audit.sqlite",
        approval_store=ApprovalStoreKind.SQLITE if sqlite else ApprovalStoreKind.FILE,
        approval_dir=folder / "approvals",
        approval_sqlite_path=folder / "approvals.sqlite",
        retention_config=policy,
        retention_ledger=folder / "ledger.log",
    )


def _open(settings: Settings) -> factory.OpenHSM:
    return open_tested(settings)


def _locks(folder: Path) -> list[Path]:
    return [*folder.rglob("lock"), *folder.rglob("*.lock")]


@pytest.mark.parametrize(
    ("sqlite", "shared"),
    [
        (False, "key_dir"),
        (False, "audit_log"),
        (False, "approval_dir"),
        (False, "retention_ledger"),
        (True, "sqlite_path"),
        (True, "audit_sqlite_path"),
        (True, "approval_sqlite_path"),
    ],
)
def test_a_second_hsm_is_refused_though_the_lock_files_are_deleted(
    tmp_path: Path, shared: str, *, sqlite: bool
) -> None:
    """It never opens the one store that both name; the first HSM serves on."""
    first = _settings(tmp_path / "first", sqlite=sqlite)
    second = _settings(tmp_path / "second", sqlite=sqlite)
    second = msgspec.structs.replace(second, **{shared: getattr(first, shared)})
    with _open(first) as hsm:
        keys = Session(hsm.act_as(ADA))
        keys.create_key("EC-P256", name="before")
        for lock in _locks(tmp_path / "first"):
            lock.unlink()

        with pytest.raises(StoreLockedError):
            _open(second)
        _until_created(keys)
        assert _locks(tmp_path / "first")
    trail = first.audit_sqlite_path if sqlite else first.audit_log
    assert trail is not None
    assert factory.open_verifier(trail, HMAC_KEY).verify().clean


def _until_created(keys: Session) -> None:
    """Create a key; the attempt that notices the loss of a lock may fail."""
    for attempt in range(200):
        try:
            keys.create_key("EC-P256", name=f"after-{attempt}")
        except UnavailableError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("no key could be created any more")


@contextmanager
def _taken(lock: Path) -> Iterator[None]:
    """Put another lock file in place, and hold it as another process would."""
    lock.unlink()
    with lock.open("x") as file:
        lock.chmod(0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("row", ON_DISK, ids=str)
@pytest.mark.parametrize("what", ["commit", "meta", "uses", "abort"])
def test_a_key_store_writes_nothing_without_its_lock(
    tmp_path: Path, row: StoreRow, what: str
) -> None:
    """Each write looks first, and the store goes on once the lock is free again."""
    opened = row.open(tmp_path)
    store = opened.keys
    writes: dict[str, Callable[[], None]] = {
        "commit": lambda: store.commit(
            key_support.change_of(key_support.document_of(1), "e" * 32)
        ),
        "meta": lambda: store.write_meta("ring", b"value"),
        "uses": lambda: opened.uses.put(key_support.key_id_of(1), b"value"),
        "abort": lambda: store.abort("f" * 32),
    }
    (lock,) = _locks(tmp_path)
    with _taken(lock):
        with pytest.raises(StoreUnavailableError):
            writes[what]()
        assert not store.available
        with pytest.raises(StoreLockedError):
            store.reopen()
    store.reopen()

    writes[what]()

    store.close()


@pytest.mark.parametrize("kind", APPROVALS)
def test_an_approval_store_writes_nothing_without_its_lock(
    tmp_path: Path, kind: str
) -> None:
    """Consent that another process counts must not be counted here too."""
    store = APPROVALS[kind](tmp_path)
    change = approval_support.change_of(approval_support.approval_of(1))
    (lock,) = _locks(tmp_path)
    with _taken(lock):
        with pytest.raises(StoreUnavailableError):
            store.commit(change)
        with pytest.raises(StoreLockedError):
            store.reopen()
    store.reopen()

    store.commit(change)

    assert [change.entry.approval_id] == list(store.approval_ids())
    store.close()


@pytest.fixture
def no_directory_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse locks on directories, as network file systems may."""

    def flock(file: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, "no lock on a directory")
        _FLOCK(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("no_directory_locks")
def test_a_key_store_sees_what_was_done_without_its_lock(tmp_path: Path) -> None:
    """Opened again, it knows the keys and the abort marks of another process."""
    created = key_support.change_of(key_support.document_of(1), "e" * 32)
    store = FilesystemKeyStore(tmp_path / "keys")
    (tmp_path / "keys/lock").unlink()
    other = FilesystemKeyStore(tmp_path / "keys")
    other.commit(created)
    other.abort("f" * 32)
    other.close()
    with pytest.raises(StoreUnavailableError):
        store.write_meta("ring", b"value")

    store.reopen()

    assert created.entry == store.entry(created.entry.key_id)
    assert store.find_operation("f" * 32) is not None
    store.close()


@pytest.mark.usefixtures("no_directory_locks")
def test_an_approval_store_sees_what_was_done_without_its_lock(tmp_path: Path) -> None:
    """Consent that another process has given or used up is never given again."""
    first = approval_support.change_of(approval_support.approval_of(1))
    second = approval_support.change_of(approval_support.approval_of(2))
    store = FileApprovalStore(tmp_path / "approvals")
    store.commit(first)
    (tmp_path / "approvals/lock").unlink()
    other = FileApprovalStore(tmp_path / "approvals")
    other.remove([first.entry.approval_id])
    other.commit(second)
    other.close()
    with pytest.raises(StoreUnavailableError):
        store.remove([first.entry.approval_id])

    with mock.patch.object(ApprovalIndex, "replace", side_effect=KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            store.reopen()
        assert not store.available
    store.reopen()

    assert [second.entry.approval_id] == list(store.approval_ids())
    store.close()


def test_a_moved_directory_is_not_locked_anew(tmp_path: Path) -> None:
    """Another directory under the name is another store, whatever lies in it."""
    row = next(row for row in ON_DISK if row.name == "filesystem")
    store = row.open(tmp_path).keys
    (tmp_path / "store").rename(tmp_path / "aside")
    (tmp_path / "store").mkdir(0o700)
    with pytest.raises(StoreUnavailableError):
        store.write_meta("ring", b"value")
    with pytest.raises(StoreUnavailableError, match="directory"):
        store.reopen()
    assert not _locks(tmp_path / "store")
    (tmp_path / "store").rmdir()
    (tmp_path / "aside").rename(tmp_path / "store")

    store.reopen()
    store.write_meta("ring", b"value")

    assert b"value" == store.read_meta("ring")
    store.close()


@pytest.mark.parametrize("sqlite", [False, True], ids=["files", "sqlite"])
def test_a_locked_store_is_refused_before_the_self_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sqlite: bool
) -> None:
    """A second server says at once that another one has the store."""
    settings = _settings(tmp_path / "first", sqlite=sqlite)
    with _open(settings):
        monkeypatch.setattr(factory, "own_self_test", pytest.fail)

        with pytest.raises(StoreLockedError) as caught:
            factory.open_hsm(settings, master_key=b"\x01" * 32, hmac_key=HMAC_KEY)

    assert Path(str(caught.value.facts["path"])) in _locks(tmp_path / "first")

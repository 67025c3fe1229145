# SPDX-License-Identifier: MIT
"""
The key stores, with their use counters, that the contract suites run over.

A new implementation is one more row of `ROWS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core._internal.stores.guard import guarded
from hsm_core._internal.stores.memory.records import MemoryKeyStore, MemoryUseCounters
from hsm_core._internal.stores.postgresql.records import ClusterKeyStore
from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core._internal.stores.remote.records import RemoteKeyStore
from hsm_core._internal.stores.s3 import S3Vault
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.protocols import OpenedStore, RemoteKeyVault
from hsm_core.testing import FakeClock
from tests.core.cluster_support import database_of


@dataclass(frozen=True)
class StoreRow:
    """
    One implementation.

    Attributes:
        name: Shown in the id of each test.
        open: Opens the store of a folder of its own; a second call, after the first
            store was closed, opens the same store again.
        durable: Whether the same store can be opened again.
    """

    name: str
    open: Callable[[Path], OpenedStore]
    durable: bool = True

    def __str__(self) -> str:
        return self.name


def _memory(folder: Path) -> OpenedStore:
    return OpenedStore(MemoryKeyStore(), MemoryUseCounters())


def _filesystem(folder: Path) -> OpenedStore:
    store = FilesystemKeyStore(folder / "store")
    return OpenedStore(store, store.uses)


def _sqlite(folder: Path) -> OpenedStore:
    store = SqliteKeyStore(folder / "store" / "keys.sqlite")
    return OpenedStore(store, store.uses)


def _postgresql(folder: Path) -> OpenedStore:
    store = ClusterKeyStore(database_of(folder))
    return OpenedStore(store, store.uses)


def _guarded(folder: Path) -> OpenedStore:
    inner = _filesystem(folder)
    return OpenedStore(guarded(inner.keys), guarded(inner.uses))


_vaults: dict[Path, MemoryVault] = {}
_objects: dict[Path, S3Vault] = {}


def _remote(folder: Path) -> OpenedStore:
    return _over(_vaults.setdefault(folder, MemoryVault()))


def _s3(folder: Path) -> OpenedStore:
    from tests.core.s3_server import shared_storage

    if folder not in _objects:
        _objects[folder] = shared_storage().new_vault()
    return _over(_objects[folder])


def _over(vault: RemoteKeyVault) -> OpenedStore:
    store = RemoteKeyStore(
        vault, clock=FakeClock(), entropy=SystemEntropy(), holder="contract"
    )
    return OpenedStore(store, store.uses)


ROWS = [
    StoreRow("memory", _memory, durable=False),
    StoreRow("filesystem", _filesystem),
    StoreRow("sqlite", _sqlite),
    StoreRow("postgresql", _postgresql),
    StoreRow("guarded", _guarded),
    StoreRow("remote", _remote),
    StoreRow("s3", _s3),
]

DURABLE = [row for row in ROWS if row.durable]

INDEXES = [row for row in ROWS if row.name != "s3"]
"""Rows with an index of their own: wherever the vault is, it is the same index."""

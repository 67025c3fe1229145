# SPDX-License-Identifier: MIT
"""Stores with many keys, and starts of an HSM over them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.keyring.documents import KeyDocument, document_digest, index_of
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.use_counters import UseValue, encode_value
from hsm_core._internal.stores.filesystem.layout import DOCUMENT_NAME, Layout
from hsm_core._internal.stores.filesystem.records import FileRecords
from hsm_core._internal.stores.filesystem.stores import (
    FilesystemKeyStore,
    SavedKeyIndex,
)
from hsm_core._internal.stores.records import USES
from hsm_core._internal.stores.sqlite import key_index
from hsm_core._internal.stores.sqlite.key_rows import VERSION_BITS
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.algorithms import Algorithm
from hsm_core.factory import open_hsm
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry, KnownKey
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller

_AT_ONCE: Final = 10_000
_BLOB: Final = bytes(200)

_START: Final = """
import json, os, pathlib, sys, time
from hsm_core.factory import open_hsm
from hsm_core.algorithms import Algorithm
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller

def resident():
    words = pathlib.Path("/proc/self/statm").read_text().split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE")

kind, directory, end = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
settings = Settings(
    key_store=KeyStoreKind(kind),
    key_dir=directory / "keys",
    sqlite_path=directory / "keys.sqlite",
    audit_log=directory / "audit.log",
)
before, began, used = resident(), time.perf_counter(), time.process_time()
hsm = open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32))
took, used = time.perf_counter() - began, time.process_time() - used
print(json.dumps([took, used, resident() - before]), flush=True)
if end == "kill":
    Session(hsm.act_as(caller())).create_key(Algorithm.EC_P256)
    os.kill(os.getpid(), 9)
hsm.close()
"""


class Start(NamedTuple):
    """Seconds, seconds of processor, and bytes that are resident after it."""

    seconds: float
    used: float
    resident: float


def make(kind: KeyStoreKind, directory: Path, count: int) -> Path:
    """Make an HSM with many keys, and close it."""
    directory.mkdir(mode=0o700)
    settings = Settings(
        key_store=kind,
        key_dir=directory / "keys",
        sqlite_path=directory / "keys.sqlite",
        audit_log=directory / "audit.log",
    )
    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as opened:
        _fill(opened, kind, count)
    return directory


def start(kind: KeyStoreKind, directory: Path, end: str) -> Start:
    """Start an HSM in a process of its own, and stop or kill it."""
    done = subprocess.run(
        [sys.executable, "-c", _START, kind.value, str(directory), end],
        stdout=subprocess.PIPE,
        check=end != "kill",
    )
    return Start(*json.loads(done.stdout))


def _fill(opened: OpenHSM, kind: KeyStoreKind, count: int) -> None:
    """Put many keys into a store as if they had been made one by one."""
    services = opened._services  # noqa: SLF001
    inventory = services.inventory
    session = Session(opened.act_as(caller()))
    patterns = [
        inventory.document(session.create_key(algorithm).key_id)
        for algorithm in (Algorithm.AES_256_GCM, Algorithm.EC_P256)
    ]
    guarded = inventory.store
    store = guarded._inner  # type: ignore[attr-defined] # noqa: SLF001
    if kind is KeyStoreKind.SQLITE:
        assert isinstance(store, SqliteKeyStore)
        _fill_database(inventory, store, patterns, count)
    else:
        assert isinstance(store, FilesystemKeyStore)
        _fill_directory(inventory, store, patterns, count)
    store.write_account(inventory.census.account())


def _documents(patterns: list[KeyDocument], count: int) -> Iterator[KeyDocument]:
    digest = hashlib.sha256(_BLOB).hexdigest()
    for number in range(count):
        pattern = patterns[number % len(patterns)]
        seed = hashlib.md5(number.to_bytes(8, "big")).hexdigest()  # noqa: S324
        key_id = f"{seed[:8]}-{seed[8:12]}-4{seed[13:16]}-8{seed[17:20]}-{seed[20:]}"
        version = msgspec.structs.replace(
            pattern.versions[0], material_id=key_id, blob_sha256=digest
        )
        operation = msgspec.structs.replace(pattern.operations[0], id=seed)
        yield msgspec.structs.replace(
            pattern,
            key_id=KeyId(key_id),
            name=f"key-{number}",
            created_at=pattern.created_at + number,
            versions=(version,),
            operations=(operation,),
        )


def _counted(
    inventory: KeyRepository, document: KeyDocument
) -> tuple[bytes, IndexEntry]:
    stored = inventory.encode(document)
    entry = index_of(document, document_digest(stored))
    known = KnownKey(document.key_id, document.generation, entry.digest)
    inventory.census.replace(None, known)
    return stored, entry


def _first_value(inventory: KeyRepository, document: KeyDocument) -> bytes:
    material_id = document.versions[0].material_id
    return encode_value(material_id, UseValue(), inventory.ring.counter_mac)


def _is_counted(document: KeyDocument) -> bool:
    return document.algorithm == Algorithm.AES_256_GCM


def _fill_database(
    inventory: KeyRepository,
    store: SqliteKeyStore,
    patterns: list[KeyDocument],
    count: int,
) -> None:
    documents = _documents(patterns, count)
    for _ in range(0, count, _AT_ONCE):
        with store.database.transaction(durable=False) as connection:
            for document, _ in zip(documents, range(_AT_ONCE), strict=False):
                stored, entry = _counted(inventory, document)
                number = key_index.put(connection, entry)
                connection.execute(
                    "INSERT INTO documents (n, document) VALUES (?, ?)",
                    (number, stored),
                )
                connection.execute(
                    "INSERT INTO blobs (id, blob) VALUES (?, ?)",
                    (number << VERSION_BITS | 1, _BLOB),
                )
                if _is_counted(document):
                    connection.execute(
                        "INSERT INTO uses (material_id, value) VALUES (?, ?)",
                        (document.key_id, _first_value(inventory, document)),
                    )


def _fill_directory(
    inventory: KeyRepository,
    store: FilesystemKeyStore,
    patterns: list[KeyDocument],
    count: int,
) -> None:
    index, records = store._index, store._records  # noqa: SLF001
    assert isinstance(index, SavedKeyIndex)
    assert isinstance(records, FileRecords)
    layout = records._layout  # noqa: SLF001
    assert isinstance(layout, Layout)
    entries = list(index.entries())
    for document in _documents(patterns, count):
        stored, entry = _counted(inventory, document)
        folder = layout.folder(document.key_id)
        folder.mkdir(mode=0o700)
        _write(folder / DOCUMENT_NAME, stored)
        _write(folder / "v00000001", _BLOB)
        if _is_counted(document):
            first = _first_value(inventory, document)
            _write(layout.path(USES) / document.versions[0].material_id, first)
        entries.append(entry)
    store.reindex(entries)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)

# SPDX-License-Identifier: MIT
"""Stores with many keys, and starts of an HSM over them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    document_digest,
    encode_document,
    index_of,
)
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.use_counters import UseValue, encode_value
from hsm_core._internal.stores.index_rows import COLUMNS, values_of
from hsm_core._internal.stores.sqlite import places
from hsm_core._internal.stores.sqlite.key_rows import VERSION_BITS
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.algorithms import Algorithm
from hsm_core.factory import open_hsm
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry
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

directory, end = pathlib.Path(sys.argv[1]), sys.argv[2]
settings = Settings(
    key_store=KeyStoreKind.SQLITE,
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


def make(directory: Path, count: int) -> Path:
    """Make an HSM with many keys in SQLite, and close it."""
    directory.mkdir(mode=0o700)
    settings = Settings(
        key_store=KeyStoreKind.SQLITE,
        key_dir=directory / "keys",
        sqlite_path=directory / "keys.sqlite",
        audit_log=directory / "audit.log",
    )
    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as opened:
        _fill(opened, count)
    return directory


def start(directory: Path, end: str) -> Start:
    """Start an HSM in a process of its own, and stop or kill it."""
    done = subprocess.run(
        [sys.executable, "-c", _START, str(directory), end],
        stdout=subprocess.PIPE,
        check=end != "kill",
    )
    return Start(*json.loads(done.stdout))


def _fill(opened: OpenHSM, count: int) -> None:
    """Put many keys into a store as if they had been made one by one."""
    inventory = opened._services.inventory  # noqa: SLF001
    session = Session(opened.act_as(caller()))
    patterns = [
        inventory.document(session.create_key(algorithm).key_id)
        for algorithm in (Algorithm.AES_256_GCM, Algorithm.EC_P256)
    ]
    store = inventory.store._inner  # type: ignore[attr-defined] # noqa: SLF001
    assert isinstance(store, SqliteKeyStore)
    made = _documents(patterns, count)
    while some := list(islice(made, _AT_ONCE)):
        with store.database.transaction(durable=False) as connection:
            _put(connection, inventory.ring, some)
    inventory.census.adopt(inventory.census.sums(store.digests()), verified=True)
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


def _put(
    connection: sqlite3.Connection, ring: KeyRing, made: list[KeyDocument]
) -> None:
    """Insert keys table by table, which takes a tenth of the time."""
    (first,) = connection.execute("SELECT max(n) + 1 FROM keys").fetchone()
    stored = [encode_document(document, ring.document_mac) for document in made]
    entries = [
        index_of(document, document_digest(form))
        for document, form in zip(made, stored, strict=True)
    ]

    def insert(table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
        holes = ", ".join("?" * (columns.count(",") + 1))
        statement = f"INSERT INTO {table} ({columns}) VALUES ({holes})"  # noqa: S608
        connection.executemany(statement, rows)

    rows = [
        (n, *values_of(entry), entry.name) for n, entry in enumerate(entries, first)
    ]
    insert("keys", f"n, {COLUMNS}, claim", rows)
    insert("documents", "n, document", enumerate(stored, first))
    blobs = ((n << VERSION_BITS | 1, _BLOB) for n, _ in enumerate(stored, first))
    insert("blobs", "id, blob", blobs)
    operations = ((entry.operations[0], n) for n, entry in enumerate(entries, first))
    insert("operations", "operation_id, n", operations)
    uses = [
        (document.key_id, encode_value(document.key_id, UseValue(), ring.counter_mac))
        for document in made
        if document.algorithm == Algorithm.AES_256_GCM
    ]
    insert("uses", "material_id, value", uses)
    insert("places", "facet, created_at, key_id", _places(connection, entries))


def _places(
    connection: sqlite3.Connection, entries: list[IndexEntry]
) -> list[tuple[int, int, bytes]]:
    """Return the rows of all places of keys, and count them in their facets."""
    rows: dict[tuple[str, str, str], list[tuple[int, bytes]]] = {}
    for entry in entries:
        for facet, position in places._places_of(entry):  # noqa: SLF001
            rows.setdefault(facet, []).append(position)
    found: list[tuple[int, int, bytes]] = []
    for facet, positions in rows.items():
        number: int = connection.execute(
            "INSERT INTO facets (tag, algorithm, state, number) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (tag, algorithm, state) DO UPDATE "
            "SET number = number + excluded.number RETURNING id",
            (*facet, len(positions)),
        ).fetchone()[0]
        found += [(number, *position) for position in positions]
    return found

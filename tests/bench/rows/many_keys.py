# SPDX-License-Identifier: MIT
"""An HSM with 100,000 keys beside one with ten: P11, P16."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

from hsm_core._internal.stores.sqlite.keys import SqliteKeyStore
from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyFilter, KeyState
from hsm_core.protocols import IndexQuery
from hsm_core.session import Session
from hsm_core.settings import AuditSync, KeyStoreKind, Settings
from tests.bench.bench_start import _make, _start
from tests.bench.figures import Absent, Finding, at_most
from tests.bench.harness import Loop, interleave, repeated
from tests.bench.peers import raw
from tests.bench.rig import Rig

__all__ = ["flatness", "listings"]

_MANY = 100_000
_FEW = 10
_STARTS = 3
_KIND = KeyStoreKind.SQLITE


def listings(rig: Rig) -> list[Finding]:
    """Return what pages, single keys and starts cost among 100,000 keys in SQLite."""
    many = _keys(rig, _MANY)
    rest = Absent(what="filtered page over REST (≤ 150 µs)", why="no row yet")
    return [*_store(many / "keys.sqlite"), rest, *_starts(_keys(rig, 1), many)]


def flatness(rig: Rig) -> list[Finding]:
    """Return how much slower an operation is among 100,000 keys than among ten."""
    few, many = (_session(rig, _keys(rig, count)) for count in (_FEW, _MANY))
    found: list[Finding] = []
    for name, operation in (
        ("EC-P256 sign", _sign),
        ("AES-256-GCM 1 KiB", _encrypt),
        ("describe a key", _describe),
    ):
        took = interleave({"few": operation(few), "many": operation(many)})
        found.append(
            at_most(
                1.1,
                f"{name}, 100,000 keys ÷ 10 keys",
                took["many"] / took["few"],
                note="the goal speaks of 1,000,000 keys",
            )
        )
    why = "no row with a 10-million-record trail yet"
    return [*found, Absent(what="the same, long trail ÷ empty trail", why=why)]


def _keys(rig: Rig, count: int) -> Path:
    """Return the folder of an HSM with so many keys; both rows use the same."""
    return rig.once(f"{count}-keys", lambda path: _make(_KIND, path, count))


def _store(path: Path) -> list[Finding]:
    store = SqliteKeyStore(path)
    wanted = KeyFilter(algorithm=Algorithm.EC_P256, state=KeyState.ACTIVE)
    filtered = IndexQuery(filter=wanted, limit=50)
    deep = IndexQuery(filter=KeyFilter(), limit=50, offset=_MANY * 9 // 10)
    some = store.find(IndexQuery(filter=KeyFilter(), limit=1000)).keys
    turns = itertools.cycle([key_id for _, key_id in some])
    took = interleave(
        {
            "page": repeated(lambda: store.find(filtered)),
            "deep": repeated(lambda: store.find(deep)),
            "get": repeated(lambda: store.get(next(turns))),
        }
    )
    store.close()
    return [
        at_most(40, "filtered page of 50, in the store", 1e6 * took["page"], "µs"),
        at_most(1, "page at offset 90,000", 1e3 * took["deep"], "ms"),
        at_most(6, "get of a key", 1e6 * took["get"], "µs"),
    ]


def _starts(one: Path, many: Path) -> list[Finding]:
    pairs = [
        (_start(_KIND, one, "stop"), _start(_KIND, many, "stop"))
        for _ in range(_STARTS)
    ]
    seconds = statistics.median(of_many.seconds for _, of_many in pairs)
    room = statistics.median(of_many.resident for _, of_many in pairs)
    return [
        at_most(2, "start after a clean stop", seconds, "s", "wall time"),
        at_most(300, "memory that a start takes", room / 1e6, "MB"),
    ]


def _session(rig: Rig, folder: Path) -> Session:
    return rig.open(
        Settings(
            key_store=_KIND,
            key_dir=folder / "keys",
            sqlite_path=folder / "keys.sqlite",
            audit_log=folder / "audit.log",
            audit_sync=AuditSync.BOUNDED,
        )
    )


def _sign(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.EC_P256).key_id
    return repeated(lambda: session.sign(key_id, raw.MESSAGE))


def _encrypt(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.AES_256_GCM).key_id
    return repeated(lambda: session.encrypt(key_id, bytes(1024)))


def _describe(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.EC_P256).key_id
    return repeated(lambda: session.describe(key_id))

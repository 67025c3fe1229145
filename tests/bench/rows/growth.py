# SPDX-License-Identifier: MIT
"""An operation's cost as keys and records grow: P16."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from hsm_core.algorithms import Algorithm
from hsm_core.factory import OpenHSM
from hsm_core.session import Session
from hsm_core.settings import AuditSync, Settings
from tests.bench.figures import Finding, at_most
from tests.bench.harness import Loop, interleave, repeated
from tests.bench.peers import raw
from tests.bench.rig import Rig, session_of
from tests.bench.rows.many_keys import KIND, keys_in
from tests.bench.rows.trail import AT_ONCE, append_many

_FEW: Final = 10
_KEYS: Final = int(os.environ.get("FERROHSM_BENCH_KEYS", "1000000"))
_RECORDS: Final = int(os.environ.get("FERROHSM_BENCH_RECORDS", "1000000"))
_GOAL_KEYS: Final = 1_000_000
_GOAL_RECORDS: Final = 10_000_000


def flatness(rig: Rig) -> list[Finding]:
    """Return how much slower an operation is among many keys, and after many others."""
    return [*_by_keys(rig), *_by_records(rig)]


def _by_keys(rig: Rig) -> list[Finding]:
    few, many = (session_of(_among(rig, count)) for count in (_FEW, _KEYS))
    note = "" if _KEYS >= _GOAL_KEYS else f"the goal speaks of {_GOAL_KEYS:,} keys"
    return _compared(few, many, f"{_KEYS:,} keys ÷ {_FEW} keys", note)


def _by_records(rig: Rig) -> list[Finding]:
    short, long = (rig.opened(rig.settings_in(f"{name}-trail")) for name in "sl")
    append_many(long._services.audit, _RECORDS // AT_ONCE)  # noqa: SLF001 - as callers do
    is_enough = _RECORDS >= _GOAL_RECORDS
    note = "" if is_enough else f"the goal speaks of {_GOAL_RECORDS:,} records"
    what = f"{_RECORDS:,} records ÷ empty trail"
    return _compared(session_of(short), session_of(long), what, note)


def _among(rig: Rig, count: int) -> OpenHSM:
    folder = keys_in(rig, count)
    return rig.opened(
        Settings(
            key_store=KIND,
            key_dir=folder / "keys",
            sqlite_path=folder / "keys.sqlite",
            audit_log=folder / "audit.log",
            audit_sync=AuditSync.BOUNDED,
        )
    )


def _compared(small: Session, large: Session, what: str, note: str) -> list[Finding]:
    found: list[Finding] = []
    for name, operation in _OPERATIONS.items():
        # Not of all threads: one compares the keys with the audit log meanwhile.
        took = interleave(
            {"small": operation(small), "large": operation(large)},
            clock=time.thread_time,
        )
        ratio = took["large"] / took["small"]
        found.append(at_most(1.1, f"{name}, {what}", ratio, note=note))
    return found


def _sign(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.EC_P256).key_id
    return repeated(lambda: session.sign(key_id, raw.MESSAGE))


def _encrypt(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.AES_256_GCM).key_id
    return repeated(lambda: session.encrypt(key_id, bytes(1024)))


def _describe(session: Session) -> Loop:
    key_id = session.create_key(Algorithm.EC_P256).key_id
    return repeated(lambda: session.describe(key_id))


def _list(session: Session) -> Loop:
    kind = Algorithm.EC_P256
    return repeated(lambda: next(session.keys(algorithm=kind, per_page=5)))


_OPERATIONS: Final[dict[str, Callable[[Session], Loop]]] = {
    "EC-P256 sign": _sign,
    "AES-256-GCM 1 KiB": _encrypt,
    "describe a key": _describe,
    "page of five keys": _list,
}

# SPDX-License-Identifier: MIT
"""Operations that wait for the disk, beside what one sync takes here: P8, P9."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hsm_core.algorithms import Algorithm
from hsm_core.settings import AuditSync
from tests.bench.figures import Absent, Finding, at_least, at_most
from tests.bench.harness import interleave, repeated
from tests.bench.peers import raw
from tests.bench.rig import OWN, SOFTHSM, Rig, Rivals

_IN_FLIGHT = 16
_EACH = 200
_ROUNDS = 5
_OWN_SECONDS = 0.15e-3


def strict(rig: Rig) -> list[Finding]:
    """Return what a signature costs that waits until its record is durable."""
    session = rig.open(rig.settings_in("strict", AuditSync.STRICT))
    key_id = session.create_key(Algorithm.EC_P256).key_id
    bare = raw.signing(raw.new_key(Algorithm.EC_P256))
    sync = _sync_in(rig.place("strict-sync"))
    ratios, waits, syncs = [], list[float](), list[float]()
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            bare(1000)
            alone = (time.perf_counter() - began) / 1000
            syncs += [_seconds(sync) for _ in range(50)]
            began = time.perf_counter()
            parts = pool.map(
                lambda _: [
                    _seconds(lambda: session.sign(key_id, raw.MESSAGE))
                    for _ in range(_EACH)
                ],
                range(_IN_FLIGHT),
            )
            waits += [wait for part in parts for wait in part]
            each = (time.perf_counter() - began) / (_EACH * _IN_FLIGHT)
            ratios.append(alone / each)
    one = statistics.median(syncs)
    slowest = statistics.quantiles(waits, n=100)[98]
    return [
        at_least(
            0.6,
            f"EC-P256 sign, strict, {_IN_FLIGHT} in flight, of raw",
            statistics.median(ratios),
            note="wall time, raw in one thread",
        ),
        at_most(
            8,
            "its 99th percentile, in syncs",
            slowest / one,
            note=f"{1e3 * slowest:.2f} ms; fdatasync {1e3 * one:.2f} ms",
        ),
    ]


def new_keys(rig: Rig) -> list[Finding]:
    """Return how long it takes until a new P-256 key is durable; wall time."""
    session = rig.open(rig.settings_in("new-keys", AuditSync.STRICT))
    sync = _sync_in(rig.place("new-keys-sync"))
    rivals = Rivals(repeated(lambda: session.create_key(Algorithm.EC_P256)))
    rivals["fdatasync"] = repeated(sync)
    rivals.invite(SOFTHSM, lambda: rig.softhsm().new_keys(Algorithm.EC_P256))
    took = interleave(rivals, clock=time.perf_counter, turn_seconds=0.05)
    one = took["fdatasync"]
    found: list[Finding] = [
        at_most(
            5,
            "durable EC-P256 key, less 0.15 ms, in syncs",
            (took[OWN] - _OWN_SECONDS) / one,
            note=f"{1e3 * took[OWN]:.2f} ms; fdatasync {1e3 * one:.2f} ms",
        )
    ]
    what = "durable EC-P256 key, SoftHSM2 ÷ own"
    if SOFTHSM in rivals.missing:
        return [*found, Absent(what=what, why=rivals.missing[SOFTHSM])]
    return [
        *found,
        at_least(
            12,
            what,
            took[SOFTHSM] / took[OWN],
            note=f"{1e3 * took[SOFTHSM]:.2f} ms, and it never syncs",
        ),
    ]


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _sync_in(folder: Path) -> Callable[[], None]:
    """Return what appends a page to a file and syncs it."""
    file = (folder / "raw").open("wb", buffering=0)

    def sync() -> None:
        file.write(bytes(4096))
        os.fdatasync(file.fileno())

    return sync

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

_STRICT = {16: 6000, 64: 8000}
"""Goal of signatures a second, by how many are in flight."""
_EACH = 3000
_ROUNDS = 5
_OWN_SECONDS = 0.6e-3


def strict(rig: Rig) -> list[Finding]:
    """Return how many signatures a second wait for their records; wall time."""
    session = rig.open(rig.settings_in("strict", AuditSync.STRICT))
    key_id = session.create_key(Algorithm.EC_P256).key_id
    sync = _sync_in(rig.place("strict-sync"))

    def sign(times: int) -> list[float]:
        return [
            _seconds(lambda: session.sign(key_id, raw.MESSAGE)) for _ in range(times)
        ]

    found: list[Finding] = []
    for in_flight, goal in _STRICT.items():
        rates, waits, syncs = list[float](), list[float](), list[float]()
        with ThreadPoolExecutor(in_flight) as pool:
            for _ in range(_ROUNDS):
                syncs += [_seconds(sync) for _ in range(50)]
                began = time.perf_counter()
                turns = [
                    pool.submit(sign, _EACH // in_flight) for _ in range(in_flight)
                ]
                waited = [wait for turn in turns for wait in turn.result()]
                rates.append(len(waited) / (time.perf_counter() - began))
                waits += waited
        what = f"EC-P256 sign, strict, {in_flight} in flight"
        rate = statistics.median(rates)
        found.append(at_least(goal, what, rate, "a second", "wall time, threads"))
        if in_flight == min(_STRICT):
            found.append(_slowest(what, waits, statistics.median(syncs)))
    return found


def _slowest(what: str, waits: list[float], sync: float) -> Finding:
    """Return the 99th percentile: 8 syncs of the disk, or 5 ms if that is more."""
    slowest = statistics.quantiles(waits, n=100)[98]
    note = f"{slowest / sync:.1f} syncs; fdatasync {1e3 * sync:.2f} ms"
    goal = round(max(5.0, 8e3 * sync), 1)
    return at_most(goal, f"{what}, 99th percentile", 1e3 * slowest, "ms", note)


def new_keys(rig: Rig) -> list[Finding]:
    """Return how long it takes until a new P-256 key is durable; wall time."""
    session = rig.open(rig.settings_in("new-keys", AuditSync.STRICT))
    sync = _sync_in(rig.place("new-keys-sync"))
    rivals = Rivals(repeated(lambda: session.create_key(Algorithm.EC_P256)))
    rivals["fdatasync"] = repeated(sync)
    rivals.invite(SOFTHSM, lambda: rig.softhsm.new_keys(Algorithm.EC_P256))
    took = interleave(rivals, clock=time.perf_counter, turn_seconds=0.05)
    one = took["fdatasync"]
    found: list[Finding] = [
        at_most(
            3,
            "durable EC-P256 key, less 0.6 ms, in syncs",
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

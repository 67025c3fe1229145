# SPDX-License-Identifier: MIT
"""How long quick requests take while a slow signature is computed: P14."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

from hsm_core.algorithms import Algorithm
from tests.bench.figures import Absent, Finding, at_most
from tests.bench.rig import PATIENT, Rig
from tests.e2e.https import Client
from tests.e2e.site import Site

_ROUNDS: Final = 5
_EACH: Final = 300
_KEYS: Final = "/api/v1/keys"
_SLOW: Final = Algorithm.SLH_DSA_SHA2_128S
_BODY: Final = {"message": base64.b64encode(bytes(32)).decode()}
_WHAT: Final = "99th percentile of EC-P256 over HTTPS, during 128s signatures ÷ alone"


def beside_slow(rig: Rig) -> Finding:
    """Return how much longer the slowest of a hundred quick requests takes; by wall."""
    site = Site(rig.place("quick"))
    words = ("--audit-sync", "bounded", "--log-level", "warning", *PATIENT)
    with site.start(*words) as server:
        quick, slow = (
            site.client(server.port, name, "operator") for name in ("ada", "bob")
        )
        with quick, slow:
            found = _measured(quick, slow)
        server.stop()
    return found


def _measured(quick: Client, slow: Client) -> Finding:
    for name, algorithm in (("quick", Algorithm.EC_P256), ("slow", _SLOW)):
        body = {"algorithm": algorithm, "name": name}
        answer = quick.request("POST", _KEYS, body)
        if answer.status != 201:
            return Absent(what=_WHAT, why=f"no key of {algorithm}: {answer.code}")
    alone, beside = list[float](), list[float]()
    signatures = 0
    for _ in range(_ROUNDS):
        alone += _latencies(quick)
        with _busy(slow) as done:
            beside += _latencies(quick)
        signatures += len(done)
    before, during = (statistics.quantiles(seen, n=100)[98] for seen in (alone, beside))
    note = (
        f"wall time; alone {1e3 * before:.2f} ms, during {signatures} signatures "
        f"{1e3 * during:.2f} ms; medians {1e3 * statistics.median(alone):.2f} and "
        f"{1e3 * statistics.median(beside):.2f} ms"
    )
    return at_most(2, _WHAT, during / before, note=note)


@contextmanager
def _busy(client: Client) -> Iterator[list[float]]:
    """Have one slow signature after another computed; give the seconds of each."""
    took: list[float] = []
    stop = Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            while not stop.is_set():
                began = time.perf_counter()
                _sign(client, "slow")
                took.append(time.perf_counter() - began)
        except RuntimeError as error:
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def _latencies(client: Client) -> list[float]:
    seen: list[float] = []
    for _ in range(_EACH):
        began = time.perf_counter()
        _sign(client, "quick")
        seen.append(time.perf_counter() - began)
    return seen


def _sign(client: Client, key: str) -> None:
    answer = client.request("POST", f"{_KEYS}/{key}/sign", _BODY)
    if answer.status != 200:
        raise RuntimeError(f"A signature was answered {answer.status} {answer.code}.")

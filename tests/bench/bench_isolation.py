# SPDX-License-Identifier: MIT
"""What a P-256 signature over HTTPS costs each process, beside the bare signature."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bench.processes import sign_over_https

_WAYS = {
    "inline": ("--isolation", "inline"),
    "1 worker": ("--workers", "1"),
    "2 workers": ("--workers", "2"),
    "1 worker, uvloop": ("--workers", "1", "--event-loop", "uvloop"),
}
_ROUNDS = 3
_REQUESTS = 4000


def _bare_seconds() -> float:
    """Return what one signature of the library costs, in this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    began = time.process_time()
    for _ in range(2000):
        key.sign(bytes(32), ec.ECDSA(hashes.SHA256()))
    return (time.process_time() - began) / 2000


def test_signature_over_https(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rounds of all ways take turns, so that the machine's moods hit them all."""
    costs: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in _WAYS}
    rates: dict[str, list[float]] = defaultdict(list)
    bare: list[float] = []
    for turn in range(_ROUNDS):
        for number, (way, flags) in enumerate(_WAYS.items()):
            bare.append(_bare_seconds())
            load = sign_over_https(tmp_path / f"{turn}-{number}", flags, _REQUESTS)
            rates[way].append(load.rate)
            for name, seconds in load.used.items():
                costs[way][name].append(seconds)
    raw = statistics.median(bare)
    with capsys.disabled():
        sys.stdout.write(f"\nbare P-256 signature: {raw * 1e6:.1f} µs of a processor\n")
        for way, by_process in costs.items():
            told = ", ".join(
                f"{name} {statistics.median(values) * 1e6:.0f} µs "
                f"({statistics.median(values) / raw:.1f} signatures)"
                for name, values in by_process.items()
            )
            rate = statistics.median(rates[way])
            sys.stdout.write(f"{way}: {told}; {rate:.0f} requests/s\n")

    assert all(rates.values())

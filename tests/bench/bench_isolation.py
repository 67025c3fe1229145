# SPDX-License-Identifier: MIT
"""What a P-256 signature over HTTPS costs each process, beside the bare signature."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.family import PROGRAMS, children, members
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

_CLIENT = Path(__file__).with_name("isolation_client.py")
_WAYS = {
    "inline": ("--isolation", "inline"),
    "1 worker": ("--workers", "1"),
    "2 workers": ("--workers", "2"),
    "1 worker, uvloop": ("--workers", "1", "--event-loop", "uvloop"),
}
_ROUNDS = 3
_REQUESTS = 4000
_CONNECTIONS = 16


def _cpu_seconds(pid: int) -> float:
    """Return how long a process's threads were on a processor."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _processes(server: ServerProcess) -> dict[int, str]:
    others = children(server.pid)
    found = {server.pid: "supervisor" if others else "server"}
    for kind in PROGRAMS:
        found |= dict.fromkeys(members(server.pid, kind), kind)
    return found


def _bare_seconds() -> float:
    """Return what one signature of the library costs, in this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    began = time.process_time()
    for _ in range(2000):
        key.sign(bytes(32), ec.ECDSA(hashes.SHA256()))
    return (time.process_time() - began) / 2000


@contextmanager
def _client(site: Site, port: int) -> Iterator[subprocess.Popen[str]]:
    token = site.folder / "token"
    token.write_text(site.token("ada", "operator"))
    identity = (site.client_pair.certificate, site.client_pair.key)
    words = [str(port), str(site.authority.bundle), *map(str, identity), str(token)]
    with subprocess.Popen(
        [sys.executable, _CLIENT, *words, "signer", str(_CONNECTIONS), str(_REQUESTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        yield client


def _measure(folder: Path, flags: tuple[str, ...]) -> tuple[dict[str, float], float]:
    """Return processor time per request by process, and requests per second."""
    site = Site(folder)
    with site.start(*flags, "--log-level", "warning") as server:
        with site.client(server.port, "ada", "operator") as client:
            body = {"algorithm": "EC-P256", "name": "signer"}
            assert 201 == client.request("POST", "/api/v1/keys", body).status
        with _client(site, server.port) as busy:
            assert busy.stdin is not None
            assert busy.stdout is not None
            assert "ready\n" == busy.stdout.readline()
            processes = _processes(server)
            before = {pid: _cpu_seconds(pid) for pid in processes}
            busy.stdin.write("\n")
            busy.stdin.flush()
            done = json.loads(busy.stdout.readline())
            used: dict[str, float] = defaultdict(float)
            for pid, name in processes.items():
                used[name] += (_cpu_seconds(pid) - before[pid]) / done["requests"]
        assert 0 == server.stop()
    return used, done["requests"] / done["seconds"]


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
            used, rate = _measure(tmp_path / f"{turn}-{number}", flags)
            rates[way].append(rate)
            for name, seconds in used.items():
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

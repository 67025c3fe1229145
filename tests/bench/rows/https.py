# SPDX-License-Identifier: MIT
"""Requests over HTTPS: processor time of the servers, ours and OpenBao: P12."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from tests.bench.figures import Absent, Finding, at_least, at_most
from tests.bench.harness import Clock, Loop, interleave, repeated
from tests.bench.peers.native import AbsentError
from tests.bench.peers.openbao import OpenBao
from tests.bench.processes import BusyClient, cpu_seconds, job, kinds_of
from tests.bench.rig import PATIENT, Rig, told
from tests.e2e.https import Client
from tests.e2e.site import Site

_KEYS: Final = "/api/v1/keys"
_FLAGS: Final = ("--audit-sync", "bounded", "--log-level", "warning", *PATIENT)
_TURNS: Final = 5
_REQUESTS: Final = 600
_CONNECTIONS: Final = (1, 16)
_APART: Final = "FerroHSM"
_INLINE: Final = "FerroHSM in one process"
_OPENBAO: Final = "OpenBao"


def requests(rig: Rig) -> list[Finding]:
    """Return the cost of signatures beside OpenBao, of batches, and of each process."""
    return [*_beside_openbao(rig), *_batches(rig), *_shares(rig)]


@dataclass(frozen=True)
class _Server:
    """A running server, and how its clients ask it for a P-256 signature."""

    site: Site
    port: int
    token: str
    pids: tuple[int, ...]
    path: str
    field: str

    def client(self, connections: int) -> BusyClient:
        """Return a client with so many connections, which has signed already."""
        return BusyClient(
            job(
                self.site,
                port=self.port,
                token=self.token,
                path=self.path,
                body={self.field: _text(32)},
                connections=connections,
            )
        )


@contextmanager
def _own(rig: Rig, name: str, *flags: str) -> Iterator[_Server]:
    """Start a server of ours with a key."""
    site = Site(rig.place(name))
    with site.start(*flags, *_FLAGS) as server:
        with site.client(server.port, "ada", "operator") as client:
            key = {"algorithm": "EC-P256", "name": "signer"}
            _post(client, _KEYS, key, status=201)
        yield _Server(
            site,
            server.port,
            site.token("ada", "operator"),
            tuple(kinds_of(server.pid)),
            f"{_KEYS}/signer/sign",
            "message",
        )
        server.stop()


@contextmanager
def _openbao(rig: Rig) -> Iterator[_Server]:
    """Start OpenBao, or raise `AbsentError`."""
    site = Site(rig.place("openbao"))
    with OpenBao(site) as bao:
        path = "/v1/transit/sign/signer/sha2-256"
        yield _Server(site, bao.port, bao.token, (bao.pid,), path, "input")


def _beside_openbao(rig: Rig) -> list[Finding]:
    why = ""
    with ExitStack() as stack:
        servers = {
            _APART: stack.enter_context(_own(rig, "apart")),
            _INLINE: stack.enter_context(_own(rig, "inline", "--isolation", "inline")),
        }
        try:
            servers[_OPENBAO] = stack.enter_context(_openbao(rig))
        except AbsentError as error:
            why = str(error)
        found: list[Finding] = []
        for connections in _CONNECTIONS:
            found += _compared(_load(servers, connections), connections, why)
    return found


def _compared(
    used: Mapping[str, float], connections: int, why: str
) -> Iterator[Finding]:
    what = f"EC-P256 sign, {connections} connection{'s' * (connections > 1)}"
    apart, inline = 1e6 * used[_APART], 1e6 * used[_INLINE]
    if connections == 1:
        yield at_most(110, f"{what}, in one process", inline, "µs", told(used))
    else:
        yield at_most(400, what, apart, "µs", told(used))
        yield at_most(300, f"{what}, in one process", inline, "µs")
    if why:
        yield Absent(what=f"{what}, OpenBao ÷ own", why=why)
    else:
        yield at_least(1, f"{what}, OpenBao ÷ own", used[_OPENBAO] / used[_APART])


def _load(servers: Mapping[str, _Server], connections: int) -> dict[str, float]:
    """Return seconds of processor per request; servers take turns under one client."""
    used: dict[str, list[float]] = {name: [] for name in servers}
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(server.client(connections))
            for name, server in servers.items()
        }
        for _ in range(_TURNS):
            for name, server in servers.items():
                before = cpu_seconds(*server.pids)
                clients[name].work(_REQUESTS)
                used[name].append((cpu_seconds(*server.pids) - before) / _REQUESTS)
    return {name: statistics.median(seconds) for name, seconds in used.items()}


def _batches(rig: Rig) -> list[Finding]:
    site = Site(rig.place("https"))
    with site.start("--isolation", "inline", *_FLAGS) as server:
        with site.client(server.port, "ada", "operator") as client:
            took = _measured(client, lambda: cpu_seconds(server.pid))
        server.stop()
    sign, signs = took["sign"], took["sign 100"] / 100
    encrypt, encrypts = took["encrypt"], took["encrypt 1000"] / 1000
    where = "one process, one connection"
    return [
        at_most(26, "EC-P256 sign in a batch of 100", 1e6 * signs, "µs", where),
        at_least(5, "EC-P256 sign, alone ÷ in a batch", sign / signs),
        at_least(
            35,
            "AES-256-GCM 256 B, alone ÷ in a batch of 1,000",
            encrypt / encrypts,
            note=told({"alone": encrypt, "in a batch": encrypts}),
        ),
    ]


def _measured(client: Client, clock: Clock) -> dict[str, float]:
    for name, algorithm in (("signer", "EC-P256"), ("sealer", "AES-256-GCM")):
        _post(client, _KEYS, {"algorithm": algorithm, "name": name}, status=201)
    message = {"message": _text(32)}
    plaintext = {"plaintext": _text(256)}
    sign, encrypt = f"{_KEYS}/signer/sign", f"{_KEYS}/sealer/encrypt"
    bodies: dict[str, tuple[str, Mapping[str, object]]] = {
        "sign": (sign, message),
        "sign 100": (f"{sign}/batch", {"items": [message] * 100}),
        "encrypt": (encrypt, plaintext),
        "encrypt 1000": (f"{encrypt}/batch", {"items": [plaintext] * 1000}),
    }
    return interleave(
        {name: _posting(client, *request) for name, request in bodies.items()},
        clock=clock,
        turn_seconds=0.05,
    )


def _shares(rig: Rig) -> list[Finding]:
    """Return what the processes use that keys and connections are in, apart."""
    used: dict[int, dict[str, float]] = {}
    rates: dict[int, float] = {}
    for workers in (1, 2):
        with _own(rig, f"workers-{workers}", "--workers", str(workers)) as server:
            used[workers], rates[workers] = _by_kind(server)
    one, two = used[1]["front end"], used[2]["front end"]
    where = f"{_CONNECTIONS[-1]} connections, one worker"
    return [
        at_most(35, "EC-P256 sign, vault's share", 1e6 * used[1]["vault"], "µs", where),
        at_most(
            1.1,
            "EC-P256 sign, front ends' share, two workers ÷ one",
            two / one,
            note=f"one {1e6 * one:.0f} µs, {rates[1]:.0f} requests/s; "
            f"two {1e6 * two:.0f} µs, {rates[2]:.0f} requests/s",
        ),
    ]


def _by_kind(server: _Server) -> tuple[dict[str, float], float]:
    """Return seconds per request by the kind of process, and requests per second."""
    kinds = kinds_of(server.pids[0])
    seen: dict[str, list[float]] = {kind: [] for kind in kinds.values()}
    rates = []
    with server.client(_CONNECTIONS[-1]) as client:
        for _ in range(_TURNS):
            before = {pid: cpu_seconds(pid) for pid in kinds}
            rates.append(_REQUESTS / client.work(_REQUESTS))
            turn = dict.fromkeys(seen, 0.0)
            for pid, kind in kinds.items():
                turn[kind] += (cpu_seconds(pid) - before[pid]) / _REQUESTS
            for kind, seconds in turn.items():
                seen[kind].append(seconds)
    used = {kind: statistics.median(seconds) for kind, seconds in seen.items()}
    return used, statistics.median(rates)


def _posting(client: Client, path: str, body: Mapping[str, object]) -> Loop:
    return repeated(lambda: _post(client, path, body))


def _post(
    client: Client, path: str, body: Mapping[str, object], status: int = 200
) -> None:
    answer = client.request("POST", path, body)
    if answer.status != status:
        raise RuntimeError(f"{path} answered {answer.status} {answer.code}.")


def _text(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()

# SPDX-License-Identifier: MIT
"""What requests over HTTPS cost the server's process: P12."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Mapping

from tests.bench.figures import Finding, at_least, at_most
from tests.bench.harness import Clock, Loop, interleave, repeated
from tests.bench.processes import Load, cpu_seconds, sign_over_https
from tests.bench.rig import PATIENT, Rig, told
from tests.e2e.https import Client
from tests.e2e.site import Site

_KEYS = "/api/v1/keys"
_TURNS = 3
_REQUESTS = 3000


def requests(rig: Rig) -> list[Finding]:
    """Return what signatures and encryptions cost, alone and in batches."""
    site = Site(rig.place("https"))
    inline = ("--isolation", "inline", "--audit-sync", "bounded", *PATIENT)
    with site.start(*inline, "--log-level", "warning") as server:
        with site.client(server.port, "ada", "operator") as client:
            took = _measured(client, lambda: cpu_seconds(server.pid))
        server.stop()
    sign, signs = took["sign"], took["sign 100"] / 100
    encrypt, encrypts = took["encrypt"], took["encrypt 1000"] / 1000
    one_connection = "one process, one connection, synced within 20 ms"
    return [
        at_most(110, "EC-P256 sign", 1e6 * sign, "µs", one_connection),
        at_most(26, "EC-P256 sign in a batch of 100", 1e6 * signs, "µs"),
        at_least(5, "EC-P256 sign, alone ÷ in a batch", sign / signs),
        at_least(
            35,
            "AES-256-GCM 256 B, alone ÷ in a batch of 1,000",
            encrypt / encrypts,
            note=told({"alone": encrypt, "in a batch": encrypts}),
        ),
        *_apart(rig),
    ]


def _apart(rig: Rig) -> list[Finding]:
    """Return what the processes use that keys and connections are in, apart."""
    loads: dict[int, list[Load]] = {1: [], 2: []}
    for turn in range(_TURNS):
        for workers, seen in loads.items():
            folder = rig.place(f"workers-{turn}-{workers}")
            flags = ("--workers", str(workers), "--audit-sync", "bounded", *PATIENT)
            seen.append(sign_over_https(folder, flags, _REQUESTS))
    vault = statistics.median(load.used["vault"] for load in loads[1])
    one, two = (
        statistics.median(load.used["front end"] for load in seen)
        for seen in loads.values()
    )
    rates = [statistics.median(load.rate for load in seen) for seen in loads.values()]
    return [
        at_most(
            35,
            "EC-P256 sign, vault's share",
            1e6 * vault,
            "µs",
            "16 connections, one worker",
        ),
        at_most(
            1.1,
            "EC-P256 sign, front ends' share, two workers ÷ one",
            two / one,
            note=f"one {1e6 * one:.0f} µs, {rates[0]:.0f} requests/s; "
            f"two {1e6 * two:.0f} µs, {rates[1]:.0f} requests/s",
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

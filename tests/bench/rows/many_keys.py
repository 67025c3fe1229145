# SPDX-License-Identifier: MIT
"""Pages, single keys and starts of an HSM with 100,000 keys: P11."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyFilter, KeyState
from hsm_core.protocols import IndexQuery
from hsm_core.settings import KeyStoreKind
from tests.bench.figures import Finding, at_most
from tests.bench.filled_stores import make, start
from tests.bench.harness import interleave, repeated
from tests.bench.processes import cpu_seconds
from tests.bench.rig import PATIENT, Rig, told
from tests.e2e.https import Client
from tests.e2e.site import Site

_MANY = 100_000
_STARTS = 3
KIND = KeyStoreKind.SQLITE
"""Where many keys are kept."""

_STATUS = "/api/v1/status"
_PATIENCE_SECONDS = 300
_PAGE = "/api/v1/keys?algorithm=EC-P256&state=active&per_page=50"


def listings(rig: Rig) -> list[Finding]:
    """Return what pages, single keys and starts cost among 100,000 keys in SQLite."""
    many = keys_in(rig, _MANY)
    return [
        *_store(many / "keys.sqlite"),
        _over_rest(rig, many),
        *_starts(keys_in(rig, 1), many),
    ]


def keys_in(rig: Rig, count: int) -> Path:
    """Return the folder of an HSM with so many keys; rows share it."""
    return rig.once(f"{count}-keys", lambda path: make(path, count))


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


def _over_rest(rig: Rig, folder: Path) -> Finding:
    """Measure the server's process; no page is kept as a whole."""
    site = Site(rig.place("listings"))
    for name in ("master-key", "hmac-key"):
        site.write_secret(name, bytes(32))  # what the keys were made with
    words = (
        *("--isolation", "inline", "--list-cache-ttl-secs", "0"),
        *("--key-store", KIND.value, "--sqlite-path", str(folder / "keys.sqlite")),
        *("--key-dir", str(folder / "keys"), "--audit-log", str(folder / "audit.log")),
        *("--audit-sync", "bounded", "--log-level", "warning", *PATIENT),
    )
    with site.start(*words) as server:
        with site.client(server.port, "ada", "operator") as client:
            answer = client.request("GET", _PAGE)
            if answer.status != 200 or len(answer.json["items"]) != 50:
                raise RuntimeError(f"A page was answered {answer.status}.")
            _wait_until_compared(client)
            took = interleave(
                {
                    "page": repeated(lambda: client.request("GET", _PAGE)),
                    "status": repeated(lambda: client.request("GET", _STATUS)),
                },
                clock=lambda: cpu_seconds(server.pid),
                turn_seconds=0.05,
            )
        server.stop()
    what = "filtered page of 50, over REST, less a status request"
    return at_most(150, what, 1e6 * (took["page"] - took["status"]), "µs", told(took))


def _wait_until_compared(client: Client) -> None:
    """Wait until the server has compared its keys with the audit log, after a start."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not client.request("GET", _STATUS).json["store"].get("compared_at"):
        if time.monotonic() > until:
            raise RuntimeError("The server did not compare its keys in time.")
        time.sleep(1)


def _starts(one: Path, many: Path) -> list[Finding]:
    pairs = [(start(one, "stop"), start(many, "stop")) for _ in range(_STARTS)]
    seconds = statistics.median(of_many.seconds for _, of_many in pairs)
    room = statistics.median(of_many.resident for _, of_many in pairs)
    return [
        at_most(2, "start after a clean stop", seconds, "s", "wall time"),
        at_most(300, "memory that a start takes", room / 1e6, "MB"),
    ]

# SPDX-License-Identifier: MIT
"""Random requests to a running server, valid by its OpenAPI document or not."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hsm_core.operations import OPERATIONS, Effect
from tests.e2e.https import Client, client_context
from tests.e2e.processes import ServerProcess, program
from tests.e2e.site import Site
from tests.faults.growth import Sample, look, measure
from tests.faults.trail import read_events
from tests.fuzzing.malformed import Bodies, send_malformed
from tests.fuzzing.server_seeds import PLANTED, ROLE_SETS, plant, plant_approvals
from tests.support import REPOSITORY

_EVERY_SECONDS: Final = 2.0
_MIB: Final = 1024 * 1024
_GROWTH_BYTES: Final = 20 * _MIB
_WARMING: Final = 0.25
"""Share of its memory that a process may grow by while malformed requests are sent."""


class Watch:
    """
    A thread that looks at a server's processes now and then.

    Args:
        server: Process id of the supervisor.

    Attributes:
        samples: What it has seen so far, in the order of time.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.samples.extend(look(self._server))
            if self._end.wait(_EVERY_SECONDS):
                return


def judge(samples: Sequence[Sample]) -> list[tuple[bool, str]]:
    """
    Say for each process what it took at first, by quarters of the time, and last.

    What a process grows by while everything is done for the first time is in its first
    quarter; from there to the last one it may grow by 20 MiB.
    """
    growths = {growth.of: growth for growth in measure(samples)}
    found = []
    by_process = sorted(samples, key=_process)
    for (kind, pid), group in groupby(by_process, key=_process):
        own = [sample.rss for sample in group]
        growth = growths.get(f"{kind} {pid}")
        quarters = growth.rss if growth else [own[0], own[-1]]
        middle = " ".join(f"{value / _MIB:.1f}" for value in quarters)
        text = (
            f"{kind} {pid}: {own[0] / _MIB:.1f} MiB at first, {middle} by quarters, "
            f"{max(own) / _MIB:.1f} at most, {own[-1] / _MIB:.1f} at last"
        )
        found.append((quarters[-1] - quarters[0] <= _GROWTH_BYTES, text))
    return found


def _process(sample: Sample) -> tuple[str, int]:
    return sample.kind, sample.pid


_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""All but those that know nothing of state: a valid request may be a conflict."""

_LONGEST_SECONDS: Final = 30.0
_UNLIMITED: Final = (
    *("--audit-timeout-secs", "30"),
    *("--rate-limit-per-second", "0", "--address-limit-per-second", "0"),
    *("--lockout-after", "0"),
)
"""Rates are another test's concern; here they would only keep requests away."""

_SHORT: Final = ("--max-payload-bytes", "16384", "--max-aad-bytes", "1024")
"""
Of a text as long as by default, schemathesis makes patterns that take seconds each.
"""

_NEEDS_MORE: Final = frozenset(
    {"BeginLedger", "DecryptPKCS1", "ListNodes", "RetireNode"}
)
"""Succeed only where a ledger was lost, a policy names them, or in a cluster."""

_LEAST_REACHED: Final = 5
_LONG: Final = frozenset({"SelfTest"})
"""Does all algorithms once; how long that takes is the algorithms' affair."""

_UNEXPECTED: Final = re.compile(
    r"^ferrohsm_unexpected_exceptions_total ([0-9.]+)$", re.MULTILINE
)


class Findings:
    """What was found out, told line by line."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def expect(self, holds: bool, text: str, /, *facts: object) -> None:
        """Count one expectation and say how it ended."""
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            text = f"FAILED: {text}: {', '.join(map(str, facts))}"
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class Answers:
    """
    What schemathesis was answered.

    Attributes:
        status: Its exit status.
        counts: How often each status was answered, by operation.
        phases: How many requests each phase has sent.
        slowest: Seconds until the answer that took longest, by operation.
        reached: How often what a link led to was done, by operation.
    """

    status: int
    counts: Counter[str]
    phases: dict[str, int]
    slowest: dict[str, float]
    reached: dict[str, int]


def fuzz(site: Site, server: ServerProcess, *, max_examples: int, seed: int) -> Answers:
    """
    Let schemathesis loose on a server that is empty yet.

    Args:
        site: Of the server.

        server: Where the requests go.

        max_examples: Generated requests per operation, in each phase that generates.

        seed: Of what is generated.
    """
    tokens = [site.token(f"fuzzer-{roles[0]}", *roles) for roles in ROLE_SETS]
    # Two names behind one certificate are one person, who may not consent.
    apart = client_context(
        site.authority.bundle, site.authority.issue("gardener", server=False)
    )
    gardener = site.token("gardener", *ROLE_SETS[0])
    with (
        Client(server.port, apart, gardener, 60.0) as client,
        site.client(server.port, f"fuzzer-{ROLE_SETS[0][0]}", *ROLE_SETS[0]) as own,
    ):
        seeds = plant(client)
        plant_approvals(seeds, client, own)
    state, counts = site.folder / "state.json", site.folder / "counts.json"
    state.write_text(json.dumps({"tokens": tokens, "seeds": seeds, "seed": seed}))
    status = _run(
        site,
        server.port,
        {"FUZZ_STATE": str(state), "FUZZ_COUNTS": str(counts)},
        *("--max-examples", str(max_examples), "--seed", str(seed)),
    )
    found = json.loads(counts.read_text())
    return Answers(status, Counter(found.pop("answers")), **found)


_REFUSALS: Final = (400, 401, 403, 404, 405, 409, 412, 413, 415, 417, 422, 429)
_CONFIG: Final = f"""
[checks.negative_data_rejection]
expected-statuses = {[str(status) for status in _REFUSALS]}

[phases.stateful]
max-steps = 20
inference.algorithms = []
"""
"""
What is a refusal; by itself schemathesis knows none of 412, 413 and 417.

It follows the links that the document states. Those that it would infer besides are
many hundreds, lead from any field to any other of the same name, and keep it from them.
"""


def _run(site: Site, port: int, variables: dict[str, str], *arguments: str) -> int:
    url = f"https://localhost:{port}"
    pair = site.client_pair
    (site.folder / "schemathesis.toml").write_text(_CONFIG)
    done = subprocess.run(
        [
            *program("schemathesis"),
            *("run", f"{url}/api/v1/openapi.json", "--url", url),
            *("--tls-verify", str(site.authority.bundle)),
            *("--request-cert", str(pair.certificate)),
            *("--request-cert-key", str(pair.key)),
            *("--checks", ",".join(_CHECKS)),
            *("--phases", "examples,coverage,fuzzing,stateful"),
            *("--generation-database", "none", "--request-timeout", "300"),
            *("--continue-on-failure", "--no-color", "--warnings", "off"),
            *("--suppress-health-check", "all"),
            *arguments,
        ],
        cwd=site.folder,
        env=os.environ
        | variables
        | {
            "SCHEMATHESIS_HOOKS": "tests.fuzzing.server_hooks",
            "PYTHONPATH": str(REPOSITORY),
        },
        check=False,
    )
    return done.returncode


def mangle(
    site: Site,
    server: ServerProcess,
    findings: Findings,
    watch: Watch,
    *,
    count: int,
    seed: int,
) -> None:
    """Send malformed requests, and judge what came of them."""
    bodies = _bodies(site, server.port)
    before = len(watch.samples)
    tally = send_malformed(
        *(server.port, site.context, bodies), numbers=range(count), seed=seed
    )
    told = " ".join(f"{name}:{n}" for name, n in sorted(tally.answers.items()))
    findings.expect(not tally.faults, f"{count} malformed: {told}", *tally.faults[:20])
    findings.expect(
        tally.slowest <= _LONGEST_SECONDS, f"the slowest took {tally.slowest:.1f} s"
    )
    # Within its first minute a front end goes on to take what it then keeps.
    samples = watch.samples[before:]
    for growth in measure(samples[len(samples) // 3 :]):
        findings.expect(growth.is_within(_WARMING), f"memory does not grow: {growth}")
    recorded = {
        event.get("request_id", "")
        for event in read_events(site.audit_log)
        if event["code"] == "ok" and event["phase"] != "intent"
    }
    findings.expect(
        tally.done <= recorded,
        f"{len(tally.done)} that succeeded have their records",
        *sorted(tally.done - recorded)[:5],
    )


def _bodies(site: Site, port: int) -> Bodies:
    """Make keys, and return good requests about them."""
    message = "YSBtZXNzYWdl"
    with site.client(port, "mangler", *ROLE_SETS[0]) as client:
        for algorithm in ("Ed25519", "AES-256-GCM", "HMAC-SHA-256"):
            body = {"algorithm": algorithm, "name": f"mangled-{algorithm.lower()}"}
            assert client.request("POST", "/api/v1/keys", body).status == 201
    signer, cipher, mac = (
        f"/api/v1/keys/mangled-{name}"
        for name in ("ed25519", "aes-256-gcm", "hmac-sha-256")
    )
    return Bodies(
        site.token("mangler", *ROLE_SETS[0]),
        (
            ("POST", f"{signer}/sign", {"message": message}),
            ("POST", f"{cipher}/encrypt", {"plaintext": message, "aad": ""}),
            ("POST", f"{mac}/mac", {"message": message}),
            ("POST", f"{signer}/sign/batch", {"items": [{"message": message}]}),
            ("POST", "/api/v1/random", {"length": 16}),
            ("PATCH", signer, {"description": "text", "tags": ["a", "b"]}),
            ("PUT", f"{cipher}/rotation", {"max_age_days": 30}),
            ("POST", "/api/v1/keys", {"algorithm": "none", "tags": ["a"]}),
            ("GET", "/api/v1/keys?limit=1", None),
            ("GET", signer, None),
            ("GET", "/api/v1/audit/events?limit=1", None),
            ("GET", "/healthz", None),
        ),
    )


def examine(
    site: Site,
    server: ServerProcess,
    findings: Findings,
    answers: Answers,
    *,
    least: int,
) -> None:
    """Judge the answers, the server, and its trail."""
    counts = answers.counts
    total = counts.total()
    findings.expect(
        answers.status == 0,
        "schemathesis found no answer that is not as the document says",
        f"exit status {answers.status}",
    )
    phases = ", ".join(f"{number} {name}" for name, number in answers.phases.items())
    findings.expect(total >= least, f"{total} requests were sent: {phases}", least)
    slowest = sorted(answers.slowest.items(), key=lambda item: item[1])[-5:]
    findings.expect(
        all(n in _LONG or seconds <= _LONGEST_SECONDS for n, seconds in slowest),
        "slowest: " + ", ".join(f"{n} {seconds:.1f} s" for n, seconds in slowest),
    )
    findings.expect(
        len(answers.reached) >= _LEAST_REACHED,
        f"links led to {len(answers.reached)} operations that were done, "
        f"{sum(answers.reached.values())} times",
        answers.reached,
    )
    broken = {name: n for name, n in counts.items() if name.split()[1] >= "500"}
    findings.expect(not broken, "no answer was a 5xx", broken)
    successes: Counter[str] = Counter()
    for name, number in counts.items():
        operation, answered = name.split()
        if answered.startswith("2") and answered != "202":
            successes[operation] += number
    wanted = {cls.__name__ for cls in OPERATIONS} - _NEEDS_MORE
    for operation in (*sorted(wanted), "Healthz", "Metrics"):
        findings.expect(
            successes[operation] > 0,
            f"{operation}: {successes[operation]} successes",
            "none",
        )
    with site.client(server.port, "nobody") as client:
        metrics = client.request("GET", "/metrics").body.decode()
    found = _UNEXPECTED.search(metrics)
    findings.expect(
        found is not None and float(found[1]) == 0, "no unexpected exception", metrics
    )
    ended = server.stop()
    findings.expect(
        ended == 0, "the server ended in order", ended, server.output[-999:]
    )
    _examine_trail(site, findings, successes)


def _examine_trail(site: Site, findings: Findings, successes: Counter[str]) -> None:
    site.verify_log()
    recorded: Counter[str] = Counter()
    events = list(read_events(site.audit_log))
    for event in events:
        if (
            _is_of_fuzzer(event)
            and event["phase"] != "intent"
            and event["code"] == "ok"
        ):
            recorded[event["kind"]] += 1
    findings.expect(True, f"{len(events)} records of the trail verify")
    for operation in OPERATIONS:
        if operation.effect is Effect.READ:
            continue
        name = operation.__name__
        findings.expect(
            recorded[name] - PLANTED.get(name, 0) == successes[name],
            f"{name}: each success has its record",
            recorded[name],
            successes[name],
        )


def _is_of_fuzzer(event: dict[str, Any]) -> bool:
    return str(event.get("caller", {}).get("principal", "")).startswith("fuzzer-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz as the command line says, and print the sum."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0]
    )
    parser.add_argument(
        "--max-examples",
        type=int,
        default=100,
        help="generated requests per operation and phase",
    )
    parser.add_argument(
        "--malformed", type=int, default=5000, help="malformed requests in all"
    )
    parser.add_argument(
        "--least", type=int, default=2000, help="requests that there must be"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args(arguments)
    findings = Findings()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ferrohsm-fuzz-") as folder:
        site = Site(Path(folder) / "site")
        # Keys in a database, so that there is something to back up.
        database = ("--key-store", "sqlite", "--sqlite-path", str(site.database))
        copies = ("--backup-dir", str(site.data / "copies"))
        with site.start(
            *("--log-level", "warning"), *database, *copies, *_UNLIMITED, *_SHORT
        ) as server:
            with Watch(server.pid) as watch:
                answers = fuzz(
                    site, server, max_examples=chosen.max_examples, seed=chosen.seed
                )
                mangle(
                    *(site, server, findings, watch),
                    count=chosen.malformed,
                    seed=chosen.seed,
                )
            for is_flat, line in judge(watch.samples):
                findings.expect(is_flat, line)
            examine(site, server, findings, answers, least=chosen.least)
    elapsed = time.monotonic() - began
    sys.stdout.write(
        f"seed {chosen.seed}: {answers.counts.total()} requests and {chosen.malformed} "
        f"malformed ones in {elapsed:.0f} s\n"
        f"{findings.passed} passed, {findings.failed} failed\n"
    )
    return 1 if findings.failed else 0


if __name__ == "__main__":
    sys.exit(main())

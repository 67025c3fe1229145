# SPDX-License-Identifier: MIT
"""
Trials of a server whose trail can't be kept: nothing leaves it, nothing is changed.

While the trail fails, each request is answered within two seconds, either with 503 and
a stable code, or with a success that has its record in the end. When the cause is gone
the server goes on by itself within five seconds.
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.e2e.https import Answer, Client
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site
from tests.faults.expectation import check
from tests.faults.kill_loop import Tally
from tests.faults.sinks import SINKS, small_disk
from tests.faults.trail import events_of_server

ANSWER_SECONDS: Final = 2.0
RESUME_SECONDS: Final = 5.0
_SLACK: Final = 1.0
"""For a machine that does other things too."""

_REFUSALS: Final = frozenset(
    {"audit_unavailable", "outcome_unknown", "store_unavailable", "storage_full"}
)
_MEGABYTES: Final = 24


class SinkSite:
    """
    A server whose trail lies on a small disk of its own.

    Args:
        folder: An empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.disk = folder / "disk"
        self.disk.mkdir(mode=0o700)
        self.live = self.disk / "audit.log"
        self.made: list[str] = []
        self.uncertain = 0
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[ServerProcess, Client]]:
        """Serve over the small disk, with one key; verify the trail at the end."""
        with (
            small_disk(self.disk, _MEGABYTES),
            self.site.start("--audit-log", str(self.live)) as server,
            self.site.client(server.port, "ada", "operator", "administrator") as ada,
        ):
            body = {"algorithm": "AES-256-GCM", "name": "used"}
            check(
                ada.request("POST", "/api/v1/keys", body).status == 201,
                "the first key was not made",
            )
            yield server, ada
            check(0 == server.stop(), "the end is not in order", server.output[-2000:])
            self.site.verify_log(path=self.live)

    def ask(self, client: Client) -> list[tuple[Answer, float]]:
        """Ask for a change, a use and a secret; return answers and their seconds."""
        name = f"made-{next(self._numbers)}"
        answers = []
        for path, body in (
            ("/api/v1/keys", {"algorithm": "EC-P256", "name": name}),
            ("/api/v1/keys/used/encrypt", {"plaintext": "c2VjcmV0"}),
            ("/api/v1/random", {"length": 16}),
        ):
            started = time.monotonic()
            answer = client.request("POST", path, body)
            answers.append((answer, time.monotonic() - started))
        made = answers[0][0]
        if made.status == 201:
            self.made.append(name)
        elif made.code == "outcome_unknown":
            self.uncertain += 1
        return answers


def trial(place: SinkSite, server: ServerProcess, client: Client, name: str) -> None:
    """
    Break the trail in one way, ask, mend it, and wait until the server goes on.

    Raises:
        Violation: A rule of the module's description was broken.
    """
    with SINKS[name](server.pid, place.live):
        for _ in range(2):
            for answer, seconds in place.ask(client):
                _check_answer(name, answer, seconds)
        status = client.request("GET", "/api/v1/status")
        check(200 == status.status, "the status is not told", status)
    mended = time.monotonic()
    while not all(answer.status < 300 for answer, _ in place.ask(client)):
        check(
            time.monotonic() - mended < RESUME_SECONDS + _SLACK,
            "the server does not go on",
            name,
            client.request("GET", "/api/v1/status").json["audit"],
        )
        time.sleep(0.1)


def _check_answer(name: str, answer: Answer, seconds: float) -> None:
    check(seconds <= ANSWER_SECONDS + _SLACK, "an answer took too long", name, seconds)
    if answer.status < 300:
        return  # Healed meanwhile, or not reached yet; its record is looked for later.
    check(503 == answer.status, "another answer than 503", name, answer)
    check(answer.code in _REFUSALS, "another code", name, answer)


def examine(place: SinkSite, server: ServerProcess, client: Client) -> None:
    """
    Compare keys and records with what was acknowledged, over all trials.

    Raises:
        Violation: Something is lost, or there without its record.
    """
    listed: list[dict[str, Any]] = []
    cursor = ""
    while True:
        url = f"/api/v1/keys?per_page=500&cursor={cursor}"
        page = client.request("GET", url).json
        listed += page["items"]
        cursor = page.get("next_cursor", "")
        if not cursor:
            break
    names = {item["name"] for item in listed} - {"used"}
    lost = set(place.made) - names
    check(not lost, "an acknowledged key is lost", lost)
    more = len(names) - len(place.made)
    check(more <= place.uncertain, "a key is there that nobody was told of", more)
    with place.site.client(server.port, "auditor", "auditor") as auditor:
        events = events_of_server(auditor)
    recorded = {
        event["key_id"]
        for event in events
        if event["kind"] == "CreateKey" and event["phase"] == "outcome"
    }
    unrecorded = {item["key_id"] for item in listed} - recorded
    check(not unrecorded, "a key has no record", unrecorded)


def run(folder: Path, *, trials: int) -> Tally:
    """Try all sinks in turn, *trials* times in all, and compare in the end."""
    tally, place = Tally(), SinkSite(folder)
    with place.serving() as (server, client):
        for number, name in zip(range(trials), itertools.cycle(SINKS), strict=False):
            if not tally.run(name, partial(trial, place, server, client, name)):
                return tally
            if (number + 1) % len(SINKS) == 0:
                tally.say(f"{number + 1} trials; {len(place.made)} keys made")
        tally.run("comparison", partial(examine, place, server, client))
    return tally


def main() -> int:
    """Run trials as the command line says, and print the sum."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ferrohsm-sinks-") as folder:
        tally = run(Path(folder) / "site", trials=arguments.trials)
    sys.stdout.write(f"{tally.passed} passed, {tally.failed} failed\n")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())

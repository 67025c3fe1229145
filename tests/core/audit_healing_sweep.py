"""
Kills a writer at every changing call of a healing; run by a test as a process.

Each round forks a child that writes a trail in bounded mode, lets it fail, and dies at
the n-th call after that; a second child may die while it opens what the first one left;
a third one checks that nothing acknowledged is lost. Prints how many rounds there were.

Arguments: scratch folder, and how the outage begins (a key of `BEGINNINGS`).
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from unittest import mock

from hsm_core._internal.audit import writer as outage
from hsm_core._internal.lib.failpoints import install
from hsm_core.settings import AuditSync
from tests.core.audit_faults import BEGINNINGS, Faults, Writer, until
from tests.core.audit_support import events, fill, open_log, opened, verified
from tests.core.audit_sweep import in_child

SEGMENT_BYTES = 4096


class _Round:
    """One death while a trail heals, and what comes after it."""

    def __init__(self, path: Path, beginning: str, number: int) -> None:
        self._path = path
        self._beginning = beginning
        self._number = number
        self._reader, self._writer = os.pipe()

    def run(self, *, within: bool) -> bool:
        """Return whether the writer died; False means that it had no more calls."""
        ended = in_child(lambda: self._write(within=within))
        os.close(self._writer)
        acknowledged = os.read(self._reader, 100_000).decode().split()
        os.close(self._reader)
        if ended not in (0, -signal.SIGKILL):
            raise SystemExit(f"round {self._number}: the writer failed")
        aside = self._path.with_name("audit.log.1")
        if aside.exists() and not self._path.exists():
            aside.rename(self._path)
        if self._number % 3 == 0:
            in_child(self._reopen)
        if in_child(lambda: self._check(acknowledged)) != 0:
            raise SystemExit(f"round {self._number}: the check failed")
        return ended != 0

    def _write(self, *, within: bool) -> None:
        write = os.write
        log = open_log(self._path, sync=AuditSync.BOUNDED, segment_bytes=SEGMENT_BYTES)
        writer = Writer(log)

        def append(*, durable: bool) -> None:
            if writer.append(durable=durable):
                write(self._writer, f"{writer.acknowledged[-1]} ".encode())

        def handler(reached: str) -> None:
            if reached == "audit.outage":
                faults.die(self._number, within=within)

        # So that a round is short.
        haste = mock.patch.object(outage, "_FIRST_PAUSE", 0.001)
        with haste, Faults().installed() as faults, install(handler):
            for durable in (True, True, False, False):
                append(durable=durable)
            BEGINNINGS[self._beginning](self._path, faults)
            append(durable=False)
            append(durable=True)
            until(lambda: log.health.state == "ok")
            append(durable=True)
            # What follows is like what any writer does; other tests kill that.
            faults.spare()
            log.close()

    def _reopen(self) -> None:
        choice = random.Random(self._number)
        with Faults().installed() as faults:
            faults.die(choice.randint(1, 20), within=choice.random() < 0.5)
            open_log(self._path, segment_bytes=SEGMENT_BYTES).close()

    def _check(self, acknowledged: list[str]) -> None:
        with opened(self._path, segment_bytes=SEGMENT_BYTES) as log:
            found = [e.request_id for e in events(log) if e.kind == "Sign"]
            fill(log, 3)
        lost = set(acknowledged) - set(found)
        if lost or len(found) != len(set(found)):
            raise AssertionError(lost, found)
        if not verified(self._path).clean:
            raise AssertionError("not clean")


def main(arguments: list[str]) -> None:
    """Sweep until a writer survives."""
    folder, beginning = Path(arguments[0]), arguments[1]
    survived = 0
    for number in itertools.count(1):
        place = folder / f"round-{number}"
        for within in (False, True):
            died = _Round(place / "audit.log", beginning, number).run(within=within)
            shutil.rmtree(place)
            survived = 0 if died else survived + 1
        if survived >= 2:
            sys.stdout.write(f"{number - 1}\n")
            return


if __name__ == "__main__":
    main(sys.argv[1:])

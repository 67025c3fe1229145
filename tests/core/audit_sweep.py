"""
Kills a writer at every call that changes a file; run by a test as a process.

Each round forks a child that writes a trail and dies at its n-th call, before it or in
the middle of it; a second child may die while it opens what the first one left; a third
one checks that nothing acknowledged is lost. Prints how many rounds there were.

Arguments: scratch folder, scenario (``new``: there is no trail yet; ``closed``: there
is one, closed in order; ``torn``: there is one with a torn tail), and ``before`` or
``within``.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hsm_core.settings import AuditSync
from tests.core.audit_support import (
    copy_of,
    draft,
    events,
    fill,
    open_log,
    opened,
    verified,
)

CHANGING = [
    "fdatasync",
    "fsync",
    "ftruncate",
    "mkdir",
    "open",
    "pwrite",
    "rename",
    "unlink",
    "write",
]
RECORDS = 30
TORN = b'{"event":{"format":1,"log_id":"'


def arm(number: int, *, within: bool) -> None:
    """Let this process die at its n-th changing call."""
    count = itertools.count(1)
    lock = threading.Lock()

    def armed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(first: Any, *rest: Any, **named: Any) -> Any:
            with lock:
                dies = next(count) == number
            if dies and within and name in ("write", "pwrite"):
                data = rest[0]
                call(first, data[: len(data) // 2], *rest[1:])
            elif dies and within:
                call(first, *rest, **named)
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(first, *rest, **named)

        return replacement

    for name in CHANGING:
        setattr(os, name, armed(name, getattr(os, name)))


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a child and return how that ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Round:
    """One death, and what comes after it."""

    def __init__(self, folder: Path, number: int, *, within: bool) -> None:
        self._path = folder / "audit.log"
        self._number = number
        self._within = within
        self._sync = AuditSync.STRICT if number % 2 else AuditSync.BOUNDED
        self._reader, self._writer = os.pipe()

    def run(self) -> bool:
        """Return whether the writer died; False means that it had no more calls."""
        ended = in_child(self._write)
        os.close(self._writer)
        acknowledged = len(os.read(self._reader, 1_000))
        os.close(self._reader)
        if ended not in (0, -signal.SIGKILL):
            raise SystemExit(f"round {self._number}: the writer failed")
        if self._number % 3 == 0:
            in_child(self._reopen)
        if in_child(lambda: self._check(acknowledged)) != 0:
            raise SystemExit(f"round {self._number}: the check failed")
        return ended != 0

    def _write(self) -> None:
        write = os.write
        arm(self._number, within=self._within)
        log = open_log(self._path, sync=self._sync, segment_bytes=4096)
        for _ in range(RECORDS):
            log.append([draft(log.head().seq + 1)]).wait()
            write(self._writer, b".")
        log.close()

    def _reopen(self) -> None:
        choice = random.Random(self._number)
        arm(choice.randint(1, 20), within=choice.random() < 0.5)
        open_log(self._path, segment_bytes=4096).close()

    def _check(self, acknowledged: int) -> None:
        with opened(self._path, segment_bytes=4096) as log:
            uses = [event for event in events(log) if event.kind == "Sign"]
            kinds = {event.kind for event in events(log)}
            fill(log, 3)
        numbered = [event for event in uses if event.parameters["message_bytes"]]
        for event in numbered:
            if event.request_id != f"request-{event.seq}":
                raise AssertionError(event.seq)
        if len(uses) < acknowledged or not kinds <= {"Sign", "system.repair"}:
            raise AssertionError(len(uses), acknowledged, kinds)
        if not verified(self._path).clean:
            raise AssertionError("not clean")


def _prepare(folder: Path) -> None:
    """Make the trails that the scenarios begin with."""
    log = open_log(folder / "closed" / "audit.log")
    path = copy_of(folder / "closed" / "audit.log", folder / "torn")
    fill(log, 2)
    log.close()
    path.write_bytes(TORN)


def main(arguments: list[str]) -> None:
    """Sweep until a writer survives."""
    scratch, scenario, mode = arguments
    folder = Path(scratch)
    if in_child(lambda: _prepare(folder)) != 0:
        raise SystemExit("the trails could not be made")
    survived = 0
    for number in itertools.count(1):
        place = folder / f"round-{number}"
        if scenario != "new":
            shutil.copytree(folder / scenario, place)
        died = Round(place, number, within=mode == "within").run()
        shutil.rmtree(place)
        # The two modes take turns, and one of them makes fewer calls.
        survived = 0 if died else survived + 1
        if survived == 2:
            sys.stdout.write(f"{number - survived}\n")
            return


if __name__ == "__main__":
    main(sys.argv[1:])

"""
Kills those who work on an audit log, and checks what is left; run as a process.

Each round forks a child that works on a log and dies: at its n-th call that changes a
file, at a named point, or at any moment. Now and then a second child dies while it
opens what the first one left. A third one checks that nothing acknowledged is lost.
Prints how many rounds there were.

Arguments: scratch folder, and a key of `SCENARIOS` with its arguments. A sweep over
calls takes every third, others each time, and kills before and within them in turns;
with ``FERROHSM_FAULTS=1``, both at each.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from unittest import mock

from hsm_core._internal.audit import outage
from hsm_core._internal.audit.baseline import KnownKeys
from hsm_core._internal.audit.log import DurableAuditLog
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.lib.failpoints import install
from hsm_core.model import PruneDetail
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeClock
from tests.core.audit_faults import BEGINNINGS, Faults, Writer, until
from tests.core.audit_prune_support import (
    age,
    ago,
    open_aged,
    prune,
    roots_of,
    segments_of,
)
from tests.core.audit_support import (
    copy_of,
    draft,
    events,
    fill,
    open_any,
    open_log,
    opened,
    torn_log,
    verified,
)
from tests.core.forked import in_child

SEGMENT_BYTES: Final = 4096
TORN: Final = b'{"event":{"format":1,"log_id":"'
DAYS, KEPT = 16, 6
LATER: Final = 1_750_000_000_000_000 + 100 * 24 * 3600 * 1_000_000

WRITING: Final = {
    ".log": (
        *("audit.before_write", "audit.after_write", "audit.before_sync"),
        *("audit.after_sync", "audit.after_mark", "audit.rotate.before_rename"),
        *("audit.rotate.after_rename", "audit.rotate.after_directory_sync"),
        "audit.rotate.after_create",
    ),
    ".sqlite": (
        *("audit.before_write", "audit.after_write", "audit.prune.after_stage"),
        *("audit.prune.after_record", "audit.prune.after_chunk"),
    ),
}
SYNCING: Final = ("audit.before_sync", "audit.after_sync")
ENDING: Final = ("audit.open.after_mark", "audit.before_clean_mark")
REPAIRING: Final = (
    *("audit.repair.after_fragment", "audit.repair.after_truncate"),
    *("audit.repair.after_sync", "audit.repair.after_record"),
    *("audit.open.after_mark", "audit.after_write", "audit.after_sync"),
)


def dying_at(name: str, hits: int = 1) -> Callable[[str], None]:
    """Return what kills this process when a point is reached for the n-th time."""
    left = itertools.count(hits - 1, -1)

    def handler(reached: str) -> None:
        if reached == name and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return handler


def write_on(
    log: DurableAuditLog,
    count: int,
    *,
    seed: int,
    durable: float = 0.2,
    prunes: bool = False,
) -> Iterator[int]:
    """Append groups of records numbered by seq; yield the last one acknowledged."""
    choice = random.Random(seed)
    # The record that begins a log comes before the first of them.
    seq = max(log.head().seq, 0)
    end = seq + count
    while seq < end:
        drafts = [draft(seq + 1 + n) for n in range(choice.randint(1, 4))]
        log.append(drafts, durable=choice.random() < durable).wait()
        seq += len(drafts)
        yield seq
        if prunes and choice.random() < 0.1:
            log.prune(seq - 5, "test")
            seq = log.head().seq


def check_nothing_lost(path: Path, acknowledged: int) -> None:
    """Check a killed log offline, reopen it, and check it once more."""
    if path.with_name(f"{path.name}.head").exists():
        assert verified(path).head_seq >= acknowledged
    log = open_any(path, segment_bytes=SEGMENT_BYTES)
    found = events(log)
    assert log.head().seq >= acknowledged
    assert [e.seq for e in found] == list(range(log.first_seq, log.head().seq + 1))
    assert {f"request-{e.seq}" for e in found if e.kind == "Sign"} == {
        e.request_id for e in found if e.kind == "Sign"
    }
    log.close()
    assert verified(path).clean


class Sweep(ABC):
    """
    Work that is killed at each of its calls.

    Args:
        folder: Scratch.

    Attributes:
        said: What the work of this round acknowledged, if it says so.
    """

    live = "audit.log"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self._out = -1
        self._say = os.write

    @abstractmethod
    def prepare(self) -> None:
        """Make what each round begins with, in the folder ``origin``, if anything."""

    @abstractmethod
    def work(self, path: Path, faults: Faults, number: int, *, within: bool) -> None:
        """Work on a log, and die at the n-th call from some moment on."""

    @abstractmethod
    def reopen(self, path: Path) -> None:
        """Open a log and close it."""

    @abstractmethod
    def check(self, path: Path) -> None:
        """Check that a log is as it should be, and goes on."""

    def say(self, text: str) -> None:
        """Acknowledge something; what was said outlives a kill."""
        self._say(self._out, f"{text} ".encode())

    def run(self) -> int:
        """Kill at calls until there is none more; return how many there were."""
        if in_child(self.prepare) != 0:
            raise SystemExit("the logs could not be made")
        is_long = os.environ.get("FERROHSM_FAULTS") == "1"
        survived = 0
        first, step = (1, 1) if is_long else (random.randint(1, 3), 3)
        for number in itertools.count(first, step):
            for within in (False, True) if is_long else (number % 4 < 2,):
                survived = 0 if self._round(number, within=within) else survived + 1
            if survived >= 4:
                return number
        raise AssertionError

    def _round(self, number: int, *, within: bool) -> bool:
        place = self.folder / f"round-{number}"
        if (self.folder / "origin").exists():
            shutil.copytree(self.folder / "origin", place)
        path = place / self.live
        reader, self._out = os.pipe()
        ended = in_child(lambda: self._work(path, number, within=within))
        os.close(self._out)
        self.said = os.read(reader, 100_000).decode().split()
        os.close(reader)
        if ended not in (0, -signal.SIGKILL):
            raise SystemExit(f"round {number}: the work failed")
        if number % 5 == 0:
            in_child(lambda: self._reopen(path, number))
        if in_child(lambda: self.check(path)) != 0:
            raise SystemExit(f"round {number}: the check failed")
        shutil.rmtree(place)
        return ended != 0

    def _work(self, path: Path, number: int, *, within: bool) -> None:
        with Faults().installed() as faults:
            self.work(path, faults, number, within=within)

    def _reopen(self, path: Path, number: int) -> None:
        choice = random.Random(number)
        with Faults().installed() as faults:
            faults.die(choice.randint(1, 20), within=choice.random() < 0.5)
            self.reopen(path)


class Writing(Sweep):
    """Writing a log: ``new``, ``closed`` in order, or with a ``torn`` tail."""

    def __init__(self, folder: Path, state: str) -> None:
        super().__init__(folder)
        self._state = state
        self._records = 20 if state == "new" else 10

    def prepare(self) -> None:
        """Make a log in that state."""
        if self._state == "new":
            return
        log = open_log(self.folder / "closed" / "audit.log")
        path = copy_of(self.folder / "closed" / "audit.log", self.folder / "torn")
        fill(log, 2)
        log.close()
        path.write_bytes(TORN)
        (self.folder / self._state).rename(self.folder / "origin")

    def work(self, path: Path, faults: Faults, number: int, *, within: bool) -> None:
        """Open, write over the ends of segments, and close."""
        faults.die(number, within=within)
        sync = AuditSync.STRICT if number % 2 else AuditSync.BOUNDED
        log = open_log(path, sync=sync, segment_bytes=SEGMENT_BYTES)
        for _ in range(self._records):
            log.append([draft(max(log.head().seq, 0) + 1)]).wait()
            self.say("written")
        log.close()

    def reopen(self, path: Path) -> None:
        """Open it with the same segments."""
        open_log(path, segment_bytes=SEGMENT_BYTES).close()

    def check(self, path: Path) -> None:
        """Every acknowledged record is there, under its number."""
        with opened(path, segment_bytes=SEGMENT_BYTES) as log:
            found = events(log)
            fill(log, 3)
        uses = [event for event in found if event.kind == "Sign"]
        for event in uses:
            if event.parameters["message_bytes"]:
                assert event.request_id == f"request-{event.seq}"
        assert len(uses) >= len(self.said)
        assert {event.kind for event in found} <= {
            "Sign",
            "system.log-begun",
            "system.repair",
        }
        assert verified(path).clean


class Healing(Sweep):
    """Healing after an outage that begins as a key of `BEGINNINGS` says."""

    def __init__(self, folder: Path, beginning: str) -> None:
        super().__init__(folder)
        self._begin = BEGINNINGS[beginning]

    def prepare(self) -> None:
        """Make nothing: each round begins with no log."""

    def work(self, path: Path, faults: Faults, number: int, *, within: bool) -> None:
        """Write in bounded mode, let it fail, and die while it heals."""
        log = open_log(path, sync=AuditSync.BOUNDED, segment_bytes=SEGMENT_BYTES)
        writer = Writer(log)

        def append(*, durable: bool) -> None:
            if writer.append(durable=durable):
                self.say(writer.acknowledged[-1])

        def handler(reached: str) -> None:
            if reached == "audit.outage":
                faults.die(number, within=within)

        # So that a round is short.
        haste = mock.patch.object(outage, "_FIRST_PAUSE", 0.001)
        with haste, install(handler):
            for durable in (True, True, False, False):
                append(durable=durable)
            self._begin(path, faults)
            append(durable=False)
            append(durable=True)
            until(lambda: log.health.state == "ok")
            append(durable=True)
            # What follows is like what any writer does; other tests kill that.
            faults.spare()
            log.close()

    def reopen(self, path: Path) -> None:
        """Open it, under its own name again."""
        _put_back(path)
        open_log(path, segment_bytes=SEGMENT_BYTES).close()

    def check(self, path: Path) -> None:
        """Every acknowledged record is there once."""
        _put_back(path)
        with opened(path, segment_bytes=SEGMENT_BYTES) as log:
            found = [e.request_id for e in events(log) if e.kind == "Sign"]
            fill(log, 3)
        assert set(self.said) <= set(found)
        assert len(found) == len(set(found))
        assert verified(path).clean


def _put_back(path: Path) -> None:
    aside = path.with_name("audit.log.1")
    if aside.exists() and not path.exists():
        aside.rename(path)


class Pruning(Sweep):
    """The ``first`` prune of a log, or one ``again``."""

    def __init__(self, folder: Path, scenario: str) -> None:
        super().__init__(folder)
        self._again = scenario == "again"

    def prepare(self) -> None:
        """Make a log, and keep all its lines beside it."""
        clock = FakeClock(LATER - DAYS * 24 * 3600 * 1_000_000)
        path = self.folder / "origin" / "audit.log"
        log = open_aged(path, clock)
        age(log, clock, DAYS)
        lines = log.lines(0, 10_000)
        if self._again:
            log.close()
            log = open_aged(path, FakeClock(LATER))
            prune(log, FakeClock(LATER), KEPT + 5)
            lines += log.lines(len(lines), 10)
        log.close()
        (self.folder / "lines").write_bytes(b"\0".join(lines))

    def work(self, path: Path, faults: Faults, number: int, *, within: bool) -> None:
        """Open it, prune it and write on."""
        faults.die(number, within=within)
        clock = FakeClock(LATER)
        log = open_aged(path, clock)
        log.prune(log.prunable(ago(clock, KEPT)), "swept")
        for number in range(3):
            log.append([draft(number)]).wait()
        log.close()

    def reopen(self, path: Path) -> None:
        """Open it at the same time."""
        open_aged(path, FakeClock(LATER)).close()

    def check(self, path: Path) -> None:
        """The prune is finished or never was, and the next one goes further."""
        whole = (self.folder / "lines").read_bytes().split(b"\0")
        before = int(segments_of(self.folder / "origin" / "audit.log")[0].name[-16:])
        verified(path)
        clock = FakeClock(LATER)
        log = open_aged(path, clock)
        first = log.first_seq
        _compare(whole, first, log.lines(first, 10_000), list(log.baseline()))
        log.prune(log.prunable(ago(clock, KEPT)), "once more")
        fill(log, 3)
        last = log.first_seq
        log.close()
        found = verified(path)
        assert found.clean
        assert found.first_seq == last > before
        assert all(int(segment.name[-16:]) >= last for segment in segments_of(path))
        assert found.pruned_roots == roots_of(whole[:last])
        assert not path.with_name("audit.log.baseline.new").exists()


def _compare(whole: list[bytes], first: int, lines: list[bytes], kept: object) -> None:
    """Check that what is there is what was written, and the rest is told."""
    assert lines[: len(whole) - first] == whole[first:]
    known = KnownKeys()
    for seq, line in enumerate(whole[:first]):
        known.note(event_of(line, seq))
    assert kept == list(known)
    details = [event_of(line, first + n).detail for n, line in enumerate(lines)]
    prunes = {d.next_seq for d in details if isinstance(d, PruneDetail)}
    assert not first or first in prunes


class _Writer:
    """A child that writes a log, and says what was acknowledged."""

    def __init__(self, path: Path, sync: str, seed: int, *, prunes: bool) -> None:
        self._path = path
        self._sync = AuditSync(sync)
        self._seed = seed
        self._prunes = prunes
        self.reader, self._out = os.pipe()
        self._child = 0

    def begin(self, count: int, point: str = "", hits: int = 1) -> None:
        """Begin to write so many records, or until it dies at a point."""
        self._child = os.fork()
        if self._child == 0:
            # Whoever waits for a sync leaves none to be done later.
            durable = 0.02 if point in SYNCING else 0.2
            with install(dying_at(point, hits)):
                log = open_any(self._path, sync=self._sync, segment_bytes=SEGMENT_BYTES)
                for seq in write_on(
                    log, count, seed=self._seed, durable=durable, prunes=self._prunes
                ):
                    os.write(self._out, b"%d " % seq)
                log.close()
            os._exit(0)
        os.close(self._out)

    def kill(self) -> None:
        """Kill it at once."""
        os.kill(self._child, signal.SIGKILL)

    def check(self) -> None:
        """Check that it was killed, and that nothing is lost."""
        ended = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        assert ended == -signal.SIGKILL, ended
        acknowledged = os.read(self.reader, 1_000_000).decode().split()
        os.close(self.reader)
        last = int(acknowledged[-1]) if acknowledged else -1
        if in_child(lambda: check_nothing_lost(self._path, last)) != 0:
            raise SystemExit("the check failed")


def kill_at_points(folder: Path, suffix: str, sync: str) -> int:
    """Kill one writer after the other at each point; all go on with one log."""
    path = folder / "log" / f"audit{suffix}"
    in_database = suffix == ".sqlite"
    rounds = [(point, hits) for point in WRITING[suffix] for hits in (1, 3)]
    rounds += [(point, 1) for point in ENDING]
    if in_database and sync == AuditSync.BOUNDED:
        rounds += [(point, 1) for point in SYNCING]

    for seed, (point, hits) in enumerate(rounds):
        writer = _Writer(path, sync, seed, prunes=in_database)
        writer.begin(60 if point in ENDING else 2000, point, hits)
        writer.check()
    return len(rounds)


def kill_at_any_moment(folder: Path, suffix: str, sync: str) -> int:
    """Kill writers of one log at random moments."""
    path = folder / "log" / f"audit{suffix}"
    moments = random.Random(20)
    for number in range(6):
        writer = _Writer(path, sync, number, prunes=number % 2 == 0)
        writer.begin(1_000_000)
        assert os.read(writer.reader, 1)
        time.sleep(moments.random() / 10)
        writer.kill()
        writer.check()
    return number + 1


def kill_at_repairs(folder: Path) -> int:
    """Kill a start at each point of a repair, and of the making of a log."""
    for number, point in enumerate(REPAIRING):
        path = torn_log(folder / f"{number}", TORN, 10)
        _die_opening(path, point)
        with opened(path) as log:
            repairs = [event for event in events(log) if event.kind == "system.repair"]
        assert [10] == [event.seq for event in repairs], point
        kept = [file.read_bytes() for file in path.parent.glob("*.torn-*")]
        assert [TORN] == kept, point
        assert verified(path).clean
    for point in ("audit.create.after_head", "audit.open.after_mark"):
        path = folder / point / "audit.log"
        _die_opening(path, point)
        with opened(path) as log:
            fill(log, 3)
        assert 3 == verified(path).records
    return len(REPAIRING) + 2


def _die_opening(path: Path, point: str) -> None:
    def start() -> None:
        with install(dying_at(point)):
            open_log(path).close()

    assert in_child(start) == -signal.SIGKILL, point


SCENARIOS: Final[dict[str, Callable[..., int]]] = {
    "writing": lambda folder, state: Writing(folder, state).run(),
    "healing": lambda folder, beginning: Healing(folder, beginning).run(),
    "pruning": lambda folder, scenario: Pruning(folder, scenario).run(),
    "points": kill_at_points,
    "moments": kill_at_any_moment,
    "repairs": kill_at_repairs,
}


def main(arguments: list[str]) -> None:
    """Run a scenario, and print how many rounds it had."""
    folder, scenario, *rest = arguments
    sys.stdout.write(f"{SCENARIOS[scenario](Path(folder), *rest)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

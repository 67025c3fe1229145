"""
Honest histories of a trail: whatever befalls it, nobody tampered with it.

`honest_histories` runs so many of them, each from its seed: uses and changes of keys,
intents that stay open for a while, stops in order, kills with and without a torn tail,
prunes and kills within them, failed writes and syncs with what heals them and kills
within that, and clocks that step for years. After every step the trail must verify, and
at the end it must hold all that was acknowledged and was not pruned.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core.errors import AuditUnavailableError
from hsm_core.testing import FakeClock
from tests.core.audit_faults import Faults, until
from tests.core.audit_prune_support import DAY, age, ago, open_aged, roots_of
from tests.core.audit_support import KEY, draft, intent, outcome, verified, verifier_of

STEPS = 25
PRUNE_POINTS = (
    "audit.prune.before_baseline_sync",
    "audit.prune.after_baseline",
    "audit.prune.after_record",
    "audit.prune.after_adoption",
    "audit.prune.after_unlink",
    "audit.prune.after_removal",
)
HEAL_POINTS = (
    "audit.heal.before_sync",
    "audit.heal.after_link",
    "audit.heal.after_link_sync",
    "audit.heal.after_rename",
    "audit.heal.after_rename_sync",
)


class History:
    """
    One history.

    Args:
        folder: Scratch.

        seed: What determines it, but for the moments at which segments are closed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._copies = 0
        self._clock = FakeClock()
        self._path = folder / "log-0" / "audit.log"
        self._log = open_aged(self._path, self._clock)
        self._lines: dict[int, bytes] = {}
        self._open: list[str] = []
        self._operations = 0

    def run(self) -> None:
        """
        Live through it.

        Raises:
            AssertionError: Something that was acknowledged is lost.
            AuditTamperedError: A false alarm.
        """
        steps: list[Callable[[], None]] = [
            self._live,
            self._live,
            self._live,
            self._begin,
            self._settle,
            self._stop,
            self._kill,
            self._tear,
            self._prune,
            self._prune,
            self._die_pruning,
            self._step_the_clock,
            self._fail,
            self._die_healing,
        ]
        for _ in range(STEPS):
            self._chance.choice(steps)()
            self._examine()
        self._log.close()
        found = verified(self._path)
        whole = [self._lines[seq] for seq in range(found.first_seq)]
        assert found.clean
        assert roots_of(whole) == found.pruned_roots

    # What befalls it.

    def _live(self) -> None:
        age(self._log, self._clock, self._chance.randint(1, 6))

    def _begin(self) -> None:
        self._operations += 1
        self._open.append(f"begun-{self._operations}")
        self._log.append([intent(self._open[-1])]).wait()

    def _settle(self) -> None:
        if self._open:
            self._log.append([outcome(self._open.pop(0))]).wait()

    def _stop(self) -> None:
        self._log.close()
        self._start()

    def _kill(self) -> None:
        self._die(self._copy())

    def _tear(self) -> None:
        path = self._copy()
        torn = b'{"format":2,"seq":"00000000000'[: self._chance.randint(1, 30)]
        if path.exists():
            # Else it dies between closing a segment and beginning the next.
            with path.open("ab") as file:
                file.write(torn)
        self._die(path)

    def _prune(self) -> None:
        before = ago(self._clock, self._chance.choice([3, 5, 9]))
        self._log.prune(self._log.prunable(before), "of an honest history")

    def _die_pruning(self) -> None:
        self._die_at(self._chance.choice(PRUNE_POINTS), self._prune)

    def _step_the_clock(self) -> None:
        days = self._chance.choice([-4000, -30, -1, 1, 30, 4000])
        self._clock.step(days * DAY)
        self._log.append([draft(0)]).wait()
        if self._chance.random() < 0.7:
            self._clock.step(-days * DAY)

    def _fail(self) -> None:
        call, code = self._chance.choice(
            [("fdatasync", errno.EIO), ("write", errno.ENOSPC), ("write", errno.EIO)]
        )
        with Faults().installed() as faults:
            faults.fail(call, code=code, at="audit.log", short=call == "write")
            with suppress(AuditUnavailableError):
                self._log.append([draft(0)], durable=True).wait()
            until(lambda: self._log.available)

    def _die_healing(self) -> None:
        self._die_at(self._chance.choice(HEAL_POINTS), self._fail)

    # How it dies and is started again.

    def _copy(self) -> Path:
        """Return what a kill leaves, taken while no segment was being closed."""
        while True:
            self._copies += 1
            folder = self._folder / f"log-{self._copies}"
            before = _state(self._path.parent)
            with suppress(FileNotFoundError):
                _copy_linked(self._path.parent, folder)
                if before == _state(self._path.parent):
                    return folder / self._path.name
            shutil.rmtree(folder)

    def _die_at(self, point: str, work: Callable[[], None]) -> None:
        """Go on with what a kill at a point leaves, if the work comes by there."""
        left: list[Path] = []

        def handler(reached: str) -> None:
            if reached == point and not left:
                left.append(self._copy())

        with install(handler):
            work()
        if left:
            self._die(left[0])

    def _die(self, path: Path) -> None:
        self._log.close()
        shutil.rmtree(self._path.parent)
        self._path = path
        self._start()

    def _start(self) -> None:
        verified(self._path)
        if self._chance.random() < 0.5:
            # The machine was started anew, and its monotonic clock with it.
            self._clock = FakeClock(self._clock.now())
        self._log = open_aged(self._path, self._clock)

    # What must hold.

    def _examine(self) -> None:
        log: FileAuditLog = self._log
        verifier_of(self._path, KEY).verify()
        # The second reader can't read while a segment is being closed.
        copy = self._copy()
        verified(copy)
        shutil.rmtree(copy.parent)
        verify_range(log, KEY, 0, 100_000)
        first = log.first_seq
        for seq, line in enumerate(log.lines(first, 100_000), first):
            assert line == self._lines.setdefault(seq, line), seq
        known = max(self._lines, default=-1)
        assert known == log.head().seq


def _copy_linked(folder: Path, copy: Path) -> None:
    """Copy a folder; files that have two names have them in the copy too."""
    copy.mkdir(mode=0o700)
    copied: dict[int, Path] = {}
    for name in os.listdir(folder):
        inode = os.stat(folder / name).st_ino
        if inode in copied:
            os.link(copied[inode], copy / name)
        else:
            copied[inode] = Path(shutil.copy2(folder / name, copy / name))


def _state(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return what tells whether a folder has changed."""
    found = []
    for entry in sorted(os.listdir(folder)):
        with suppress(FileNotFoundError):
            file = os.stat(folder / entry)
            found.append((entry, file.st_ino, file.st_size, file.st_mtime_ns))
    return found


def honest_history(folder: Path, seed: int) -> None:
    """
    Live through one history.

    Raises:
        AssertionError: Something that was acknowledged is lost.
        AuditTamperedError: A false alarm.
    """
    History(folder, seed).run()


def honest_histories(folder: Path, count: int, *, first_seed: int = 0) -> int:
    """
    Live through so many histories, one after the other; return how many it were.

    Raises:
        AssertionError: Something that was acknowledged is lost, or an honest history
            was called tampered with; the seed is told.
    """
    for seed in range(first_seed, first_seed + count):
        place = folder / f"history-{seed}"
        place.mkdir(mode=0o700)
        try:
            honest_history(place, seed)
        except Exception as error:
            raise AssertionError(f"history {seed}") from error
        shutil.rmtree(place)
    return count

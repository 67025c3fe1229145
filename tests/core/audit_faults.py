"""Calls of the system that fail, for the tests of a trail that heals."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from hsm_core._internal.audit.log import DurableAuditLog
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import AuditEvent, ResumeDetail
from tests.core.audit_support import Given, draft, events, open_log, opened, verified

CHANGING = [
    "fdatasync",
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "open",
    "posix_fallocate",
    "pwrite",
    "rename",
    "unlink",
    "write",
]
"""Calls that a trail makes to change its files; `open` may read, too."""


@dataclass(slots=True)
class _Rule:
    names: tuple[str, ...]
    code: int
    skip: int
    times: float
    at: str
    short: bool
    halved: bool = False


class Faults:
    """
    Makes calls of `os` fail by rules, or the process die at one, and notes them.

    It also follows what a power cut would leave of a folder at the worst: the contents
    as of their last sync, under the names as of the folder's.

    Args:
        folder: The folder to follow.

    Attributes:
        count: How many changing calls were made.
        repeated: Descriptors that were synced again after a sync of them had failed.
        failed: How many calls were made to fail.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._names: dict[str, int] = {}
        self._contents: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self._rules: list[_Rule] = []
        self._guard = threading.Lock()
        self._unsound: set[int] = set()
        self._dies_at = 0
        self._dies_within = False
        self.repeated: list[int] = []
        self.count = 0
        self.failed = 0

    def fail(
        self,
        *names: str,
        code: int,
        skip: int = 0,
        times: float = 1,
        at: str = "",
        short: bool = False,
    ) -> None:
        """
        Make calls fail.

        Args:
            names: Which ones.

            code: With what.

            skip: How many such calls succeed before.

            times: How many fail.

            at: How the name of the file ends.

            short: A write writes half, and the one that goes on with it fails.
        """
        with self._guard:
            self._rules.append(_Rule(names, code, skip, times, at, short))

    def die(self, number: int, *, within: bool) -> None:
        """Kill this process at the n-th changing call from now, before or within it."""
        with self._guard:
            self._dies_at = self.count + number
            self._dies_within = within

    def spare(self) -> None:
        """Let this process live on."""
        with self._guard:
            self._dies_at = 0

    def lift(self) -> None:
        """Let everything succeed from now on."""
        with self._guard:
            self._rules.clear()

    @contextmanager
    def installed(self) -> Iterator[Faults]:
        """Wrap the calls for the duration of a ``with`` block."""
        whole = {name: getattr(os, name) for name in [*CHANGING, "close"]}
        for name, call in whole.items():
            setattr(os, name, self._wrapped(name, call))
        try:
            yield self
        finally:
            for name, call in whole.items():
                setattr(os, name, call)
            for held in self._held.values():
                os.close(held)

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(first: Any, *rest: Any, **named: Any) -> Any:
            with self._guard:
                self._note(name, first)
                rule = self._rule(name, first)
                dies = name in CHANGING and self.count == self._dies_at
            if dies:
                self._end(name, call, first, *rest, **named)
            if rule is None:
                result = call(first, *rest, **named)
                if name in ("fdatasync", "fsync") and self._folder:
                    self._follow(first, self._folder)
                return result
            if rule.halved:
                return call(first, rest[0][: len(rest[0]) // 2], *rest[1:])
            if name in ("fdatasync", "fsync"):
                self._unsound.add(first)
            raise OSError(rule.code, os.strerror(rule.code))

        return replacement

    def _end(
        self, name: str, call: Callable[..., Any], first: Any, *rest: Any, **named: Any
    ) -> None:
        if self._dies_within and name in ("write", "pwrite"):
            call(first, rest[0][: len(rest[0]) // 2], *rest[1:])
        elif self._dies_within:
            call(first, *rest, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, name: str, first: Any) -> None:
        self.count += name in CHANGING
        if name == "close":
            self._unsound.discard(first)
        elif name in ("fdatasync", "fsync") and first in self._unsound:
            self.repeated.append(first)

    def _follow(self, descriptor: int, folder: Path) -> None:
        found = os.fstat(descriptor)
        with self._guard:
            if stat.S_ISDIR(found.st_mode):
                if Path(_name_of(descriptor)) == folder:
                    entries = os.scandir(folder)
                    self._names = {entry.name: entry.inode() for entry in entries}
                return
            # Held, so that no other file can have its number.
            if found.st_ino not in self._held:
                self._held[found.st_ino] = os.dup(descriptor)
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                self._contents[found.st_ino] = file.read()

    def after_power_cut(self) -> dict[str, bytes]:
        """Return the names and contents that a power cut at this moment leaves."""
        with self._guard:
            return {
                name: self._contents.get(number, b"")
                for name, number in self._names.items()
            }

    def _rule(self, name: str, first: Any) -> _Rule | None:
        for rule in self._rules:
            if name not in rule.names or not rule.times:
                continue
            if rule.at and not _name_of(first).endswith(rule.at):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            rule.halved = rule.short and not rule.halved
            if not rule.halved or name == "pwrite":
                rule.times -= 1
                self.failed += 1
            return rule
        return None


def _name_of(first: Any) -> str:
    if isinstance(first, int):
        return os.readlink(f"/proc/self/fd/{first}")
    return str(first)


class Writer:
    """Appends uses, each with a number of its own, and keeps what was acknowledged."""

    def __init__(self, log: DurableAuditLog) -> None:
        self._log = log
        self._next = 0
        self.acknowledged: list[str] = []
        self.refused: list[AuditUnavailableError] = []

    def append(self, *, durable: bool = False, reserved: bool = False) -> bool:
        """Append one use; return whether it was acknowledged."""
        number, self._next = self._next, self._next + 1
        given = draft(number)
        try:
            self._log.append([given], durable=durable, reserved=reserved).wait()
        except AuditUnavailableError as error:
            self.refused.append(error)
            return False
        self.acknowledged.append(given.request_id)
        return True


def begun(
    path: Path, count: int = 0, *, durable: bool = False, **given: Unpack[Given]
) -> tuple[FileAuditLog, Writer]:
    """Open a log in files, and append so many uses, each acknowledged."""
    log = open_log(path, **given)
    writer = Writer(log)
    for _ in range(count):
        assert writer.append(durable=durable)
    return log, writer


def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    """
    Wait until something is so.

    Raises:
        TimeoutError: It is not so in time.
    """
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > seconds:
            raise TimeoutError
        time.sleep(0.002)


def _move(path: Path, faults: Faults) -> None:
    path.replace(path.with_name("audit.log.1"))


BEGINNINGS: dict[str, Callable[[Path, Faults], None]] = {
    "write": lambda path, faults: faults.fail(
        "write", code=errno.ENOSPC, at="audit.log", short=True
    ),
    "sync": lambda path, faults: faults.fail(
        "fdatasync", code=errno.EIO, at="audit.log"
    ),
    "again": lambda path, faults: faults.fail(
        "fdatasync", code=errno.EIO, at="audit.log", times=2
    ),
    "mark": lambda path, faults: faults.fail("pwrite", code=errno.EIO),
    "moved": _move,
}
"""How outages begin, for tests of what happens while the trail heals."""


def is_well(log: DurableAuditLog) -> bool:
    """Return whether nothing ails a trail."""
    return log.health.state == "ok"


def resumes(log: DurableAuditLog) -> list[AuditEvent]:
    """Return the records of its outages."""
    return [event for event in events(log) if event.kind == "system.resume"]


def detail_of(event: AuditEvent) -> ResumeDetail:
    """Return what the record of an outage says."""
    assert isinstance(event.detail, ResumeDetail)
    return event.detail


def close_and_check(log: DurableAuditLog, writer: Writer, path: Path) -> None:
    """Check that what was acknowledged is there, once, in order, now and later."""
    check_all_there(log, writer)
    log.close()
    assert verified(path).clean
    with opened(path) as log:
        check_all_there(log, writer)
        log.append([draft(0)]).wait()
    assert verified(path).clean


def check_all_there(log: DurableAuditLog, writer: Writer) -> None:
    """Check that what was acknowledged is there, once and in order."""
    found = [event.request_id for event in events(log) if event.kind == "Sign"]
    assert len(found) == len(set(found))
    there = set(found)
    assert [name for name in writer.acknowledged if name not in there] == []
    assert sorted(found, key=lambda name: int(name.rpartition("-")[2])) == found

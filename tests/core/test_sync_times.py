# SPDX-License-Identifier: MIT
"""How long trails take to be durable is counted; the numbers stay small."""

from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from hsm_core._internal.audit import writer
from hsm_core._internal.audit.medium import SYNC_BOUNDS_SECONDS, SyncClock
from hsm_core._internal.stores.filesystem.audit_medium import FileMedium
from hsm_core._internal.stores.sqlite.audit_medium import SqliteMedium
from hsm_core.operations import SyncTimes
from hsm_core.protocols import AuditLog
from tests.core import audit_support, sqlite_audit_support
from tests.core.audit_support import draft, is_done


def _file(folder: Path) -> AuditLog:
    return audit_support.open_log(folder / "audit.log")


def _sqlite(folder: Path) -> AuditLog:
    return sqlite_audit_support.open_log(folder / "audit.sqlite")


def test_each_sync_falls_into_its_bounds() -> None:
    """A time at a bound is within it; one beyond all is only in the count."""
    clock = SyncClock()
    for seconds in (0.0, SYNC_BOUNDS_SECONDS[0], 0.3, 60.0):
        clock.count(seconds)
    found = clock.times()

    assert 4 == found.count
    assert pytest.approx(60.3001) == found.seconds
    assert SYNC_BOUNDS_SECONDS == found.bounds_seconds
    assert (2, 2, 3, 3) == (
        found.within[0],
        found.within[SYNC_BOUNDS_SECONDS.index(0.25)],
        found.within[SYNC_BOUNDS_SECONDS.index(0.5)],
        found.within[-1],
    )


def test_nothing_was_counted_yet() -> None:
    """A new clock has every bound, and no time within any."""
    found = SyncClock().times()

    assert SyncTimes(bounds_seconds=SYNC_BOUNDS_SECONDS, within=found.within) == found
    assert {0} == set(found.within)


@pytest.mark.parametrize("make", [_file, _sqlite], ids=["file", "sqlite"])
def test_a_trail_counts_its_syncs(
    tmp_path: Path, make: Callable[[Path], AuditLog]
) -> None:
    """Each record that is waited for by itself costs one sync at least."""
    log = make(tmp_path)
    before = log.health.syncs.count
    for number in range(3):
        log.append([draft(number)]).wait()
    found = log.health.syncs
    log.close()

    assert 3 <= found.count - before
    assert 0 < found.seconds
    assert found.count >= found.within[-1]


@pytest.mark.parametrize("make", [_file, _sqlite], ids=["file", "sqlite"])
def test_callers_who_come_again_share_a_sync(
    tmp_path: Path, make: Callable[[Path], AuditLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sync for many, the next waits for as many, or for the end of the log."""
    monkeypatch.setattr(writer, "_GATHER_SECONDS", 3600.0)
    for medium in (FileMedium, SqliteMedium):
        # What is tidied once a second takes along what gathers.
        monkeypatch.setattr(medium, "due", lambda _: inf)
    log = make(tmp_path)
    log.append([draft(0)]).wait()  # The first one has another before it.
    log.append([draft(number) for number in range(5)]).wait()

    tickets = [log.append([draft(number)]) for number in range(4)]
    assert not any(map(is_done, tickets))
    tickets.append(log.append([draft(4)]))
    for ticket in tickets:
        ticket.wait()
    last = log.append([draft(5)])
    assert not is_done(last)
    log.close()
    assert is_done(last)


@pytest.mark.parametrize("make", [_file, _sqlite], ids=["file", "sqlite"])
def test_a_caller_who_comes_alone_is_answered(
    tmp_path: Path, make: Callable[[Path], AuditLog]
) -> None:
    """Nobody waits for others who do not come."""
    log = make(tmp_path)
    for _ in range(3):
        log.append([draft(number) for number in range(5)]).wait()
        log.append([draft(6)]).wait()
    log.close()

"""What an audit trail must never do, each shown on files and on SQLite."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hsm_core._internal.audit.log import DurableAuditLog
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.audit.verify import verify_range
from hsm_core.errors import AuditTamperedError, AuditUnavailableError, StoreLockedError
from hsm_core.factory import open_hsm
from hsm_core.settings import Settings
from hsm_core.testing import FakeClock
from tests.core.audit_faults import Faults, until
from tests.core.audit_support import (
    KEY,
    draft,
    fill,
    open_any,
    open_log,
    opened,
    read_lines,
    verified,
    write_lines,
)
from tests.core.hsm_support import session_of
from tests.core.record_attacks import chained_anew, changed
from tests.support import REPOSITORY

SUFFIXES = [".log", ".sqlite"]


def _open(folder: Path, suffix: str, clock: FakeClock) -> DurableAuditLog:
    return open_any(folder / f"audit{suffix}", clock=clock, segment_bytes=8192)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_key_stays_the_same_for_ten_thousand_records_and_a_month(
    tmp_path: Path, suffix: str
) -> None:
    """
    More than 10,000 records and 30 days in one process verify after a restart.

    Where the key is replaced by one that only the process knows, they never do.
    """
    clock = FakeClock()
    log = _open(tmp_path, suffix, clock)
    for _ in range(12):
        log.append([draft(n) for n in range(1000)], durable=True).wait()
        clock.advance(3 * 24 * 3600)
    log.append([draft(0)]).wait()
    log.close()
    log = _open(tmp_path, suffix, clock)
    found = verify_range(log, KEY, 0, 100_000)
    log.close()

    assert (12_002, None) == (found.verified, found.next_seq)


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": "another"},
        {"numbers": (0,)},
        {"code": "forbidden"},
        {"time": "0" * 15 + "1"},
    ],
    ids=["request", "parameters", "code", "time"],
)
def test_the_mac_covers_who_did_what_in_which_request(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """Another actor, session or message is noticed, though the chain was made anew."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    lines = read_lines(path)
    lines[4] = changed(lines[4], **fields)
    write_lines(path, chained_anew(lines, 5))

    assert 10 == verified(path, None).records
    for refuse in (verified, open_log):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": 4, "reason": "mac"} == caught.value.facts


_SECOND = """
import sys
from pathlib import Path
from hsm_core.errors import StoreLockedError
from tests.core.audit_support import open_any
try:
    open_any(Path(sys.argv[1]))
except StoreLockedError:
    sys.exit(42)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_writer_is_refused_so_that_no_chain_forks(
    tmp_path: Path, suffix: str
) -> None:
    """Neither this process nor another one opens a trail that is open."""
    log = _open(tmp_path, suffix, FakeClock())
    log.append([draft(0)]).wait()
    with pytest.raises(StoreLockedError):
        _open(tmp_path, suffix, FakeClock())
    done = subprocess.run(
        [sys.executable, "-c", _SECOND, str(tmp_path / f"audit{suffix}")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 42 == done.returncode, done.stderr
    log.append([draft(1)]).wait()

    assert 3 == verify_range(log, KEY, 0, 10).verified
    log.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_times_that_stand_still_or_go_back_break_nothing(
    tmp_path: Path, suffix: str
) -> None:
    """Order is by sequence: records of one instant, or of an hour before, verify."""
    clock = FakeClock()
    log = _open(tmp_path, suffix, clock)
    for step in (0, -3600, 0, 1800, -7200, 0):
        clock.step(step)
        log.append([draft(n) for n in range(5)]).wait()
        log.append([draft(5)]).wait()
        log.close()
        log = _open(tmp_path, suffix, clock)
        verify_range(log, KEY, 0, 1000)
    events = [event_of(line, seq) for seq, line in enumerate(log.lines(0, 1000))]

    assert list(range(37)) == [event.seq for event in events]
    assert sorted(e.time for e in events) != [e.time for e in events]
    log.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_no_key_appears_that_the_trail_knows_nothing_of(
    tmp_path: Path, call: str, code: int
) -> None:
    """With a trail that can't be written nothing is made, not even on the disk."""
    settings = Settings(
        key_dir=tmp_path / "keys", audit_log=tmp_path / "log" / "audit.log"
    )
    with (
        Faults().installed() as faults,
        open_hsm(settings, master_key=KEY, hmac_key=KEY) as gateway,
    ):
        session = session_of(gateway)
        made = session.create_key("Ed25519").key_id
        stored = sorted((tmp_path / "keys" / "keys").rglob("*"))
        faults.fail(call, code=code, at="audit.log", times=float("inf"))
        for _ in range(3):
            with pytest.raises(AuditUnavailableError):
                session.create_key("Ed25519")
            with pytest.raises(AuditUnavailableError):
                session.destroy(made)
        assert [made] == [key.key_id for key in session.keys()]
        assert stored == sorted((tmp_path / "keys" / "keys").rglob("*"))

        faults.lift()
        until(lambda: session.status().audit.state == "ok")
        session.destroy(made)
    assert verified(settings.audit_log or tmp_path, KEY).clean

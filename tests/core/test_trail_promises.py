"""What an audit trail must never do, each shown on files and on SQLite."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from hsm_core._internal.audit.log import AuditOptions
from hsm_core._internal.audit.record import (
    FRAME,
    decode_event,
    encode_event,
    event_of,
    leaf_hash,
)
from hsm_core._internal.audit.verify import verify_range
from hsm_core._internal.background.maintenance import prune_trail
from hsm_core._internal.lib import encoding
from hsm_core._internal.stores.filesystem.audit import FileAuditLog
from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    StoreLockedError,
)
from hsm_core.factory import open_hsm
from hsm_core.model import AuditedCaller
from hsm_core.protocols import AuditLog
from hsm_core.settings import AuditSync, Settings
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core.audit_faults import Faults, until
from tests.core.audit_support import (
    KEY,
    draft,
    fill,
    open_log,
    opened,
    read_lines,
    verified,
    write_lines,
)
from tests.core.hsm_support import session_of
from tests.support import REPOSITORY

Opener: TypeAlias = Callable[[Path, FakeClock], AuditLog]


def _files(folder: Path, clock: FakeClock) -> AuditLog:
    return FileAuditLog.open(
        folder / "audit.log",
        AuditOptions(
            hmac_key=KEY,
            clock=clock,
            entropy=FakeEntropy(),
            sync=AuditSync.STRICT,
            timeout_seconds=20.0,
            node="node-1",
        ),
        segment_bytes=8192,
    )


def _sqlite(folder: Path, clock: FakeClock) -> AuditLog:
    return SqliteAuditLog.open(
        folder / "audit.sqlite",
        AuditOptions(
            hmac_key=KEY,
            clock=clock,
            entropy=FakeEntropy(),
            sync=AuditSync.STRICT,
            timeout_seconds=20.0,
            node="node-1",
            reserve_bytes=0,
        ),
    )


@pytest.mark.parametrize("open_trail", [_files, _sqlite])
def test_the_key_stays_the_same_for_ten_thousand_records_and_a_month(
    tmp_path: Path, open_trail: Opener
) -> None:
    """
    More than 10,000 records and 30 days in one process verify after a restart.

    Where the key is replaced by one that only the process knows, they never do.
    """
    clock = FakeClock()
    log = open_trail(tmp_path, clock)
    for _ in range(12):
        log.append([draft(n) for n in range(1000)], durable=True).wait()
        clock.advance(3 * 24 * 3600)
    log.append([draft(0)]).wait()
    log.close()
    log = open_trail(tmp_path, clock)
    found = verify_range(log, KEY, 0, 100_000)
    log.close()

    assert (12_001, None) == (found.verified, found.next_seq)


def _rewritten(lines: list[bytes], at: int, **fields: Any) -> list[bytes]:
    """Change a record and make every later one follow from it, MACs left alone."""
    lines = list(lines)
    for position in range(at, len(lines)):
        payload, mac = encoding.split(FRAME, lines[position])
        event = decode_event(payload)
        assert event is not None
        if position > at:
            fields = {"prev": leaf_hash(lines[position - 1])}
        changed = msgspec.structs.replace(event, **fields)
        lines[position] = encoding.join(FRAME, encode_event(changed), mac)
    return lines


@pytest.mark.parametrize(
    "fields",
    [
        {"caller": AuditedCaller(principal="bob", roles=("Operator",))},
        {"caller": AuditedCaller(principal="alice", roles=("Administrator",))},
        {"request_id": "another"},
        {"parameters": {"message_bytes": 0}},
        {"code": "forbidden"},
        {"node": "node-2"},
        {"time": 1},
    ],
    ids=["who", "role", "request", "parameters", "code", "node", "time"],
)
def test_the_mac_covers_who_did_what_in_which_request(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """Another actor, session or message is noticed, though the chain was made anew."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    write_lines(path, _rewritten(read_lines(path), 4, **fields))

    assert 10 == verified(path, None).records
    for refuse in (verified, open_log):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": 4, "reason": "mac"} == caught.value.facts


def _strip(lines: list[bytes]) -> list[bytes]:
    payload = encoding.split(FRAME, lines[4])[0]
    return [*lines[:4], b'{"event":' + payload + b"}", *lines[5:]]


def _plain_hash(lines: list[bytes]) -> list[bytes]:
    payload = encoding.split(FRAME, lines[4])[0]
    plain = encoding.join(FRAME, payload, hashlib.sha256(payload).digest())
    return [*lines[:4], plain, *lines[5:]]


def _other_prev(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], *_rewritten(lines[4:5], 0, prev="1" * 64), *lines[5:]]


def _truncate(lines: list[bytes]) -> list[bytes]:
    return lines[:4]


@pytest.mark.parametrize("attack", [_strip, _plain_hash, _other_prev, _truncate])
def test_a_missing_signature_a_wrong_link_or_a_cut_end_is_a_failure(
    tmp_path: Path, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Absence is never acceptance: each is named at the record where it begins."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    write_lines(path, attack(read_lines(path)))

    for refuse in (verified, open_log):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert 4 == caught.value.facts["seq"]


_SECOND = """
import sys
from pathlib import Path
from hsm_core.errors import StoreLockedError
from hsm_core.testing import FakeClock
from tests.core.test_trail_promises import OPENERS
try:
    OPENERS[sys.argv[1]](Path(sys.argv[2]), FakeClock())
except StoreLockedError:
    sys.exit(42)
"""

OPENERS = {"files": _files, "sqlite": _sqlite}


@pytest.mark.parametrize("kind", OPENERS)
def test_a_second_writer_is_refused_so_that_no_chain_forks(
    tmp_path: Path, kind: str
) -> None:
    """Neither this process nor another one opens a trail that is open."""
    log = OPENERS[kind](tmp_path, FakeClock())
    log.append([draft(0)]).wait()
    with pytest.raises(StoreLockedError):
        OPENERS[kind](tmp_path, FakeClock())
    done = subprocess.run(
        [sys.executable, "-c", _SECOND, kind, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 42 == done.returncode, done.stderr
    log.append([draft(1)]).wait()

    assert 2 == verify_range(log, KEY, 0, 10).verified
    log.close()


@pytest.mark.parametrize("open_trail", [_files, _sqlite])
def test_times_that_stand_still_or_go_back_break_nothing(
    tmp_path: Path, open_trail: Opener
) -> None:
    """Order is by sequence: records of one instant, or of an hour before, verify."""
    clock = FakeClock()
    log = open_trail(tmp_path, clock)
    for step in (0, -3600, 0, 1800, -7200, 0):
        clock.step(step)
        log.append([draft(n) for n in range(5)]).wait()
        log.append([draft(5)]).wait()
        log.close()
        log = open_trail(tmp_path, clock)
        verify_range(log, KEY, 0, 1000)
    events = [event_of(line, seq) for seq, line in enumerate(log.lines(0, 1000))]

    assert list(range(36)) == [event.seq for event in events]
    assert sorted(e.time for e in events) != [e.time for e in events]
    log.close()


@pytest.mark.parametrize("open_trail", [_files, _sqlite])
def test_a_prune_does_not_break_the_chain(tmp_path: Path, open_trail: Opener) -> None:
    """After retention has removed records, what is left verifies, here and reopened."""
    clock = FakeClock()
    log = open_trail(tmp_path, clock)
    for day in range(60):
        clock.step(-3600 if day % 7 == 3 else 0)
        clock.advance(24 * 3600)
        log.append([draft(n) for n in range(6)]).wait()
        log.append([draft(6)]).wait()
    detail = prune_trail(log, clock, 30)
    verify_range(log, KEY, 0, 1000)
    log.close()
    log = open_trail(tmp_path, clock)

    assert detail is not None
    assert detail.next_seq == log.first_seq > 100
    assert 421 - log.first_seq == verify_range(log, KEY, 0, 1000).verified
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

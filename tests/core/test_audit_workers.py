# SPDX-License-Identifier: MIT
"""Workers that check closed segments: same results and same faults as without them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.record import CLOSED
from hsm_core._internal.audit.verify import (
    CheckedPart,
    OfflineVerification,
    PartFollower,
)
from hsm_core._internal.stores.filesystem import audit_verify, audit_workers
from hsm_core._internal.stores.filesystem.audit_segments import Segment
from hsm_core.errors import AuditTamperedError
from hsm_core.model import Phase
from hsm_core.protocols import AuditDraft
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core.audit_prune_support import prune
from tests.core.audit_support import KEY, copy_of, draft, fill, open_log, opened, stored

RECORDS = 120
TRIALS = 12

Started = list[subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of a closed log with many short segments, to copy."""
    path = tmp_path_factory.mktemp("trail") / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        for number in range(RECORDS - 1):
            kind = "GenerateRandom" if number % 7 == 0 else "Sign"
            log.append([draft(number, kind=kind)], durable=True).wait()
    return path


def _do_to_each(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[subprocess.Popen[bytes]], object]
) -> None:
    """Do something to each worker that is started."""
    start = audit_workers._started  # noqa: SLF001 (to see what is started)

    def started(*args: Any) -> subprocess.Popen[bytes] | None:
        worker: subprocess.Popen[bytes] | None = start(*args)
        if worker is not None:
            act(worker)
        return worker

    monkeypatch.setattr(audit_workers, "_started", started)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Make every log worth two workers, and give those that were started."""
    found: Started = []
    _do_to_each(monkeypatch, found.append)
    monkeypatch.setattr(audit_workers, "PAYS_FROM", 0)
    monkeypatch.setattr(audit_workers, "processors", lambda: 3)
    return found


class _Checked:
    """Closed segments, checked in this process as workers check them."""

    def __init__(
        self, closed: Sequence[Segment], live_seq: int, log_id: str, key: bytes | None
    ) -> None:
        self.follower: PartFollower | None = None
        self.taken = 0
        ends = [*(segment.first_seq for segment in closed[1:]), live_seq]
        self._parts = [
            audit_workers.check_segment(s.path, s.first_seq, end, log_id, key)
            for s, end in zip(closed, ends, strict=True)
        ]

    def follow(self, position: int, /) -> bool:
        """Move on over a good part."""
        part = self._parts[position]
        good = part is not None and self.follower is not None
        good = good and self.follower.follow(part)  # type: ignore[union-attr, arg-type]
        self.taken += good
        return good


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[_Checked]:
    """Check all closed segments ahead, without processes, and give what did it."""
    found: list[_Checked] = []

    @contextmanager
    def ahead(
        closed: Sequence[Segment], live_seq: int, log_id: str, key: bytes | None
    ) -> Iterator[_Checked]:
        found.append(_Checked(closed, live_seq, log_id, key))
        yield found[-1]

    monkeypatch.setattr(audit_verify, "segment_workers", ahead)
    return found


def _verified(path: Path, key: bytes | None) -> OfflineVerification | dict[str, object]:
    try:
        return audit_verify.AuditVerifier(path, key).verify()
    except AuditTamperedError as error:
        return dict(error.facts)


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "chain"])
def test_two_workers_verify_a_log(
    made: Path, workers: Started, monkeypatch: pytest.MonkeyPatch, key: bytes | None
) -> None:
    """The result is that of one process, and no worker is left."""
    found = audit_verify.AuditVerifier(made, key).verify()
    assert [2, 2] == [len(workers), len([w for w in workers if w.poll() is not None])]
    monkeypatch.setattr(audit_workers, "processors", lambda: 1)

    assert audit_verify.AuditVerifier(made, key).verify() == found
    assert (RECORDS, 2) == (found.records, len(workers))


def test_a_worker_that_is_killed_is_not_needed(
    made: Path, workers: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that verifies reads the segments of the worker itself."""
    _do_to_each(monkeypatch, subprocess.Popen.kill)

    assert RECORDS == audit_verify.AuditVerifier(made, KEY).verify().records
    assert 2 == len(workers)


def test_a_worker_that_is_stopped_is_not_waited_for(
    made: Path, tmp_path: Path, workers: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segments are read by the process that verifies, even before its order is."""

    class Stopped(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, pipesize=4096)
            self.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    monkeypatch.setattr(audit_workers, "_SILENT_SECONDS", 0.1)
    path = copy_of(made, tmp_path / ("d" * 250) / ("e" * 250))

    assert RECORDS == audit_verify.AuditVerifier(path, KEY).verify().records
    assert [-signal.SIGKILL] * 2 == [worker.poll() for worker in workers]


def test_without_room_for_a_thread_there_are_no_workers(
    made: Path, workers: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that can't be given its order is ended, and nothing waits for it."""
    popen, begun = subprocess.Popen, list[subprocess.Popen[bytes]]()

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        begun.append(popen(*args, **options))
        return begun[-1]

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert RECORDS == audit_verify.AuditVerifier(made, KEY).verify().records
    assert ([], [-signal.SIGKILL]) == (workers, [one.poll() for one in begun])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
def test_workers_are_hardened(
    made: Path, workers: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the key of the log; see `harden`, which also takes their rights."""
    follow = audit_workers.SegmentWorkers.follow
    found: list[str] = []

    def followed(self: audit_workers.SegmentWorkers, position: int, /) -> bool:
        has_told = follow(self, position)
        if has_told:
            found.extend(Path(f"/proc/{w.pid}/status").read_text() for w in workers)
        return has_told

    monkeypatch.setattr(audit_workers.SegmentWorkers, "follow", followed)
    audit_verify.AuditVerifier(made, KEY).verify()

    assert any("NoNewPrivs:\t1\n" in status for status in found)


def test_an_interrupt_stops_the_workers(made: Path, workers: Started) -> None:
    """No process goes on after a verification that was interrupted."""

    def interrupt(_records: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_verify.AuditVerifier(made, KEY).verify(interrupt)

    assert [True, True] == [worker.poll() is not None for worker in workers]


def test_a_short_log_has_no_workers(
    made: Path, workers: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take longer to start than they save."""
    monkeypatch.setattr(audit_workers, "PAYS_FROM", 1 << 20)

    assert RECORDS == audit_verify.AuditVerifier(made, KEY).verify().records
    assert not workers


def _damage_byte(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _damage_lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(3):
        case 0:
            del lines[one]
        case 1:
            lines[one], lines[other] = lines[other], lines[one]
        case _:
            lines.insert(one, lines[other])
    return b"".join(lines)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def _cut_lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: random.randrange(len(lines))])


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "chain"])
@pytest.mark.parametrize("damage", [_damage_byte, _damage_lines, _cut, _cut_lines])
def test_the_first_fault_is_the_same(
    made: Path,
    tmp_path: Path,
    checked: list[_Checked],
    damage: Callable[[bytes, Random], bytes],
    key: bytes | None,
) -> None:
    """Whatever happened to a segment is reported as by one process alone."""
    random = Random(f"{damage.__name__} {key is None}")
    path = copy_of(made, tmp_path / "log")
    segments = sorted(path.parent.glob("audit.log.0*"))
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr(audit_verify, "segment_workers", audit_workers.segment_workers)
        assert _verified(path, key) == _verified(made, key)
    for _ in range(TRIALS):
        segment = random.choice(segments)
        before = segment.read_bytes()
        segment.write_bytes(damage(before, random))
        with pytest.MonkeyPatch.context() as alone:
            alone.setattr(
                audit_verify, "segment_workers", audit_workers.segment_workers
            )
            expected = _verified(path, key)

        assert expected == _verified(path, key)
        segment.write_bytes(before)
    assert any(ahead.taken > 1 for ahead in checked)


def test_another_history_is_not_taken_for_the_one_of_the_mark(
    tmp_path: Path, checked: list[_Checked]
) -> None:
    """The record that the head mark names is read, in whatever segment it is."""
    first = tmp_path / "first" / "audit.log"
    log = open_log(first, segment_bytes=4096)
    fill(log, 20, one_by_one=True)
    other = copy_of(first, tmp_path / "other")
    fill(log, 10, one_by_one=True)
    log.close()
    with opened(other, segment_bytes=4096) as log:
        fill(log, 60, one_by_one=True)
    forked = copy_of(other, tmp_path / "forked")
    head = "audit.log.head"
    (forked.parent / head).write_bytes((first.parent / head).read_bytes())
    found = _verified(forked, KEY)

    assert isinstance(found, dict)
    assert found["reason"] == "mark"
    assert checked[-1].taken > 0


def test_a_part_of_another_log_is_not_taken(
    made: Path, checked: list[_Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result counts only if it begins with the record that was read."""
    check = audit_workers.check_segment

    def other(*arguments: Any) -> CheckedPart | None:
        part = check(*arguments)
        return part and msgspec.structs.replace(part, first_leaf="0" * 64)

    expected = _verified(made, KEY)
    monkeypatch.setattr(audit_workers, "check_segment", other)

    assert expected == _verified(made, KEY)
    assert checked[-1].taken == 0


def test_nothing_follows_the_end_of_a_log(
    tmp_path: Path, checked: list[_Checked]
) -> None:
    """A segment behind the record that closes the log is reported."""
    chain = Chain(
        log_id="0" * 32, hmac_key=KEY, node="", random=FakeEntropy(0).random_bytes
    )
    path, seq = tmp_path / "audit.log", 0
    for number in range(1, 5):
        closing = AuditDraft(phase=Phase.SINGLE, kind=CLOSED)
        records = chain.extend([draft(number), closing], 1)
        path.with_name(f"{path.name}.{number:08}.{seq:016}").write_bytes(
            b"".join(stored(record) + b"\n" for record in records)
        )
        seq += len(records)
        chain.end = msgspec.structs.replace(chain.end, is_closed=False)
    path.touch()

    assert {"seq": 3, "reason": "after_close"} == _verified(path, None)
    assert checked


def test_the_record_of_a_prune_is_found_by_a_worker(
    tmp_path: Path, checked: list[_Checked]
) -> None:
    """It may stand in a segment that the verifying process does not read."""
    clock = FakeClock()
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, segment_bytes=4096, clock=clock)
    fill(log, 40, one_by_one=True)
    clock.advance(timedelta(days=10).total_seconds())
    prune(log, clock, 5)
    fill(log, 60, one_by_one=True)
    log.close()
    found = audit_verify.AuditVerifier(path, KEY).verify()

    assert found.baseline_checked
    assert found.first_seq > 0
    assert checked[-1].taken > 2

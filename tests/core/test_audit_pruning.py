"""Old segments of a trail in files are removed, and nothing else ever is."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.record import event_of
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem import audit_head
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    StoreUnavailableError,
)
from hsm_core.model import PruneDetail
from hsm_core.testing import FakeClock
from tests.core.audit_faults import Faults
from tests.core.audit_prune_support import (
    DAY,
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
    intent,
    open_log,
    outcome,
    read_lines,
    torn_log,
    verified,
    write_lines,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a trail."""
    return tmp_path / "log" / "audit.log"


def test_whole_closed_segments_go_and_others_stay(path: Path, clock: FakeClock) -> None:
    """Every file before the first record is gone, and what is left verifies offline."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    lines = log.lines(0, 1000)
    before = [segment.name for segment in segments_of(path)]
    detail = prune(log, clock, 5)
    after = [segment.name for segment in segments_of(path)]
    log.close()
    found = verified(path)
    blind = verified(path, None)

    assert {n for n in before if int(n[-16:]) >= detail.next_seq} <= set(after)
    assert all(int(name[-16:]) >= detail.next_seq for name in after)
    assert 0 < len(after) < len(before)
    assert detail.next_seq == found.first_seq == blind.first_seq
    assert roots_of(lines[: found.first_seq]) == found.pruned_roots
    assert 81 - found.first_seq == found.records
    assert found.baseline_checked
    assert found.mark_checked


def test_a_trail_of_one_segment_is_not_pruned(path: Path, clock: FakeClock) -> None:
    """Records of the live segment stay until it is closed, however old they are."""
    log = open_aged(path, clock)
    for number in range(5):
        log.append([draft(number)]).wait()
    clock.advance(100 * DAY)
    head = log.head()

    assert log.prune(log.prunable(ago(clock, 5)), "5 days") is None
    assert head == log.head()
    log.close()


def test_all_closed_segments_may_go(path: Path, clock: FakeClock) -> None:
    """A trail of which the live segment is left goes on and is pruned again."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    for number in range(5):
        log.append([draft(number)]).wait()
    clock.advance(100 * DAY)
    ended = time.monotonic() + 60
    while segments_of(path) and time.monotonic() < ended:
        # A full segment is closed after the answer.
        log.prune(log.prunable(ago(clock, 5)), "5 days")
    assert [] == segments_of(path)
    log.close()
    assert verified(path).first_seq > 70
    log = open_aged(path, clock)
    age(log, clock, 20)
    again = prune(log, clock, 5)
    log.close()

    assert again.next_seq == verified(path).first_seq > 90


def test_fragments_go_with_the_records_that_tell_of_them(
    tmp_path: Path, clock: FakeClock
) -> None:
    """What a repair set aside is removed once its record is."""
    torn = torn_log(tmp_path, b'{"event":{"format":1', 2, clock=clock)
    log = open_aged(torn, clock)
    assert len(list(torn.parent.glob("*.torn-*"))) == 1
    age(log, clock, 20)
    prune(log, clock, 5)

    assert [] == list(torn.parent.glob("*.torn-*"))
    log.close()


def test_a_forged_record_is_never_pruned(path: Path, clock: FakeClock) -> None:
    """A prune that meets a bad record removes nothing and names it."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    first = segments_of(path)[0]
    lines = read_lines(first)
    lines[5] = lines[5].replace(b'"request_id":"', b'"request_id":"x')
    write_lines(first, lines)
    before, head = segments_of(path), log.head()

    with pytest.raises(AuditTamperedError) as caught:
        prune(log, clock, 5)
    assert {"seq": 5, "reason": "mac"} == caught.value.facts
    assert set(before) <= set(segments_of(path))
    assert [] == list(path.parent.glob("*.baseline*"))
    assert (0, head) == (log.first_seq, log.head())
    log.close()


def test_a_prune_that_can_not_be_recorded_removes_nothing(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its record a prune has not happened, and the next one is as good."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    before = segments_of(path)

    def refuse(*_: object, **__: object) -> None:
        raise AuditUnavailableError

    with monkeypatch.context() as patched:
        patched.setattr(log, "append", refuse)
        with pytest.raises(AuditUnavailableError):
            prune(log, clock, 5)
    assert 0 == log.first_seq
    assert set(before) <= set(segments_of(path))
    killed = copy_of(path, path.parent.with_name("killed"))
    detail = prune(log, clock, 5)
    log.close()

    assert detail.next_seq == verified(path).first_seq
    assert 0 == verified(killed).first_seq
    log = open_aged(killed, clock)
    assert 0 == log.first_seq
    assert not killed.with_name("audit.log.baseline.new").exists()
    log.close()


def test_a_prune_whose_record_was_late_is_finished_by_the_next(
    path: Path, clock: FakeClock
) -> None:
    """Nobody knew whether the record is durable; it is, so its prune is carried out."""
    log = open_aged(path, clock)
    age(log, clock, 20)

    def fail(point: str) -> None:
        if point == "audit.prune.after_record":
            raise AuditUnavailableError

    with install(fail), pytest.raises(AuditUnavailableError):
        prune(log, clock, 5)
    head = log.head().seq
    assert 0 == log.first_seq
    assert log.prune(log.prunable(ago(clock, 5)), "again") is None
    assert log.first_seq > 40
    assert head == log.head().seq
    detail = event_of(log.lines(head, 1)[0], head).detail
    assert isinstance(detail, PruneDetail)
    assert detail.next_seq == log.first_seq
    log.close()
    verified(path)


@pytest.mark.parametrize("restart", [False, True])
def test_files_that_can_not_be_removed_go_later(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    """The records are gone for every reader; the files go with the next chance."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    before = segments_of(path)
    unlink = os.unlink

    def refuse(name: Path) -> None:
        if before[2] == name:
            raise OSError(errno.EIO, "no")
        unlink(name)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(AuditUnavailableError):
            prune(log, clock, 5)
    first = log.first_seq
    assert before[2] == segments_of(path)[0]
    assert first == verified(path).first_seq > 40
    if restart:
        log.close()
        log = open_aged(path, clock)
    assert log.prune(log.prunable(ago(clock, 5)), "again") is None
    assert first == log.first_seq == int(segments_of(path)[0].name[-16:])
    log.close()
    verified(path)


def test_what_is_kept_is_read_though_its_name_could_not_be_synced(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes that for tampering, nothing is removed, and the next one goes on."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    before = segments_of(path)

    def fail(_folder: Path) -> None:
        raise StoreUnavailableError

    with monkeypatch.context() as patch:

        def arm(reached: str) -> None:
            if reached == "audit.prune.after_record":
                patch.setattr(audit_head, "sync_directory", fail)

        with install(arm), pytest.raises(AuditUnavailableError):
            prune(log, clock, 5)
    assert 3 == len(list(log.baseline()))
    assert set(before) <= set(segments_of(path))
    assert verified(path).first_seq == log.first_seq > 40
    assert log.prune(log.prunable(ago(clock, 5)), "again") is None
    assert log.first_seq == int(segments_of(path)[0].name[-16:])
    log.close()
    verified(path)


def test_segments_that_go_after_they_were_listed_are_not_missing(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verifier that comes between two removals finds the trail intact."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    with Faults().installed() as faults:
        faults.fail("unlink", code=errno.EIO, skip=1, at="")
        with pytest.raises(AuditUnavailableError):
            prune(log, clock, 5)
    assert int(segments_of(path)[0].name[-16:]) < log.first_seq
    listdir, reached = os.listdir, list[str]()

    def listing(folder: Path) -> list[str]:
        names = listdir(folder)
        if reached == ["audit.verify.after_head", "audit.verify.after_live"]:
            reached.append("listed")
            log.prune(log.prunable(ago(clock, 5)), "again")
        return names

    monkeypatch.setattr(os, "listdir", listing)
    with install(reached.append):
        assert verified(path).first_seq == log.first_seq > 40
    assert "listed" in reached
    assert int(segments_of(path)[0].name[-16:]) == log.first_seq
    log.close()


def test_a_full_disk_prunes_nothing(path: Path, clock: FakeClock) -> None:
    """What is to be kept can't be written, so nothing is removed."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    with Faults().installed() as faults:
        faults.fail("fsync", code=errno.ENOSPC, at="baseline.new")
        with pytest.raises(AuditUnavailableError):
            prune(log, clock, 5)
        assert 1 == faults.failed
    assert 0 == log.first_seq
    assert log.available
    prune(log, clock, 5)
    log.close()
    verified(path)


@pytest.mark.parametrize(
    "point", ["audit.verify.after_head", "audit.verify.after_live"]
)
def test_offline_verification_bears_a_prune_under_way(
    path: Path, clock: FakeClock, point: str
) -> None:
    """Wherever the verifier stands while segments go, it finds the trail intact."""
    log = open_aged(path, clock)
    age(log, clock, 20)
    # Past the moment at which a segment is closed and there is no live one.
    fill(log, 3, one_by_one=True)
    begun: list[str] = []

    def interrupt(reached: str) -> None:
        if reached == point and not begun:
            begun.append(reached)
            prune(log, clock, 5)

    with install(interrupt):
        found = verified(path)
    assert begun == [point]
    assert log.first_seq == found.first_seq > 40
    log.close()


def test_an_intent_without_outcome_is_found_after_prunes_and_restarts(
    path: Path, clock: FakeClock
) -> None:
    """Recovery sees an open intent, whatever was pruned before it."""
    log = open_aged(path, clock)
    age(log, clock, 10)
    log.append([intent("settled")]).wait()
    log.append([outcome("settled")]).wait()
    log.append([intent("open")]).wait()
    floor = log.head().seq
    age(log, clock, 20)
    prune(log, clock, 5)
    assert 20 < log.first_seq <= floor
    log.close()
    log = open_aged(path, clock)

    assert ["open"] == [event.operation_id for event in log.open_intents()]
    assert log.prunable(ago(clock, 5)) <= floor
    log.close()


JOINT = 12
"""Where the segments of the overlapping trail join."""


def _grown(path: Path, folder: Path, numbers: range) -> Path:
    """Return what a kill leaves of a copy to which records were added."""
    copy = copy_of(path, folder / f"from-{numbers.start}")
    log = open_log(copy)
    for number in numbers:
        log.append([draft(number)]).wait()
    killed = copy_of(copy, folder / f"killed-{numbers.start}")
    log.close()
    return killed


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """
    Give a trail of 18 records in two segments, as healing after a failed sync leaves.

    The second begins at 12; the first goes on behind that, with other records.
    """
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    log.append([intent("so that a start reads all")]).wait()
    for number in range(2, JOINT):
        log.append([draft(number)]).wait()
    path = copy_of(path, tmp_path / "base")
    log.close()
    given_up = _grown(path, tmp_path, range(50, 54))
    path = _grown(path, tmp_path, range(70, 76))
    live = read_lines(path)
    write_lines(path, live[JOINT:])
    closed = path.with_name("audit.log.00000001.0000000000000000")
    closed.write_bytes(given_up.read_bytes())
    closed.chmod(0o600)
    return path


def _keep(content: bytes, joint: int) -> bytes:
    return content


def _tear(content: bytes, joint: int) -> bytes:
    return content[:-40]


def _end_at_the_joint(content: bytes, joint: int) -> bytes:
    return content[:joint]


def _lose_all_behind_it(content: bytes, joint: int) -> bytes:
    return content[:joint] + bytes(len(content) - joint)


def _add_to_it(content: bytes, joint: int) -> bytes:
    return content + b"no record\n"


def _join_of(closed: Path) -> int:
    return sum(len(line) + 1 for line in read_lines(closed)[:JOINT])


@pytest.mark.parametrize(
    "spoil", [_keep, _tear, _end_at_the_joint, _lose_all_behind_it, _add_to_it]
)
def test_where_segments_overlap_the_later_one_wins(
    overlapping: Path, spoil: Callable[[bytes, int], bytes]
) -> None:
    """What the earlier one holds from there on is ignored, whatever it is."""
    closed = segments_of(overlapping)[0]
    closed.write_bytes(spoil(closed.read_bytes(), _join_of(closed)))
    found = verified(overlapping)
    log = open_log(overlapping)
    told = [event.request_id for event in events(log)][2:]
    fill(log, 2)
    log.close()

    assert (18, False, 0) == (found.records, found.clean, found.torn_bytes)
    expected = [*range(2, JOINT), *range(70, 76)]
    assert [f"request-{number}" for number in expected] == told
    assert 20 == verified(overlapping).records
    log = open_log(overlapping)
    assert 20 == len(log.lines(0, 100))
    log.close()


def _cut_before_the_joint(closed: Path) -> None:
    write_lines(closed, read_lines(closed)[: JOINT - 1])


def _edit_the_last_before_it(closed: Path) -> None:
    lines = read_lines(closed)
    lines[JOINT - 1] = lines[JOINT - 1].replace(b"request-", b"requesT-")
    write_lines(closed, lines)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [(_cut_before_the_joint, "segment"), (_edit_the_last_before_it, "mac")],
)
def test_before_the_joint_nothing_may_be_missing_or_changed(
    overlapping: Path, attack: Callable[[Path], None], reason: str
) -> None:
    """The overlap rule hides no damage of what only the earlier segment holds."""
    attack(segments_of(overlapping)[0])

    with pytest.raises(AuditTamperedError) as caught:
        verified(overlapping)
    assert JOINT - 1 == caught.value.facts["seq"]
    with pytest.raises(AuditTamperedError) as caught:
        open_log(overlapping)
    assert JOINT - 1 == caught.value.facts["seq"]


def test_a_healing_that_was_interrupted_is_undone(overlapping: Path) -> None:
    """A live segment that has its closed name already loses it at the next start."""
    twin = overlapping.with_name(f"audit.log.00000002.{JOINT:016d}")
    os.link(overlapping, twin)
    before = verified(overlapping).records
    log = open_log(overlapping)
    fill(log, 2)
    log.close()

    assert not twin.exists()
    assert before == 18
    assert 20 == verified(overlapping).records


def test_an_overlap_is_pruned_whole(overlapping: Path, clock: FakeClock) -> None:
    """The segment that was given up goes with all that it holds."""
    log = open_aged(overlapping, clock)
    log.append([outcome("so that a start reads all")]).wait()
    age(log, clock, 20)
    detail = prune(log, clock, 5)
    log.close()

    assert detail.next_seq > 18
    assert detail.next_seq == verified(overlapping).first_seq

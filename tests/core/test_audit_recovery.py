"""What opening a trail finds, repairs and remembers."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm_core._internal.stores.filesystem.audit_files import (
    ClosedName,
    FragmentName,
    closed_names,
    fragment_names,
)
from hsm_core.errors import AuditTamperedError, AuditUnavailableError
from hsm_core.model import RepairDetail
from hsm_core.settings import AuditSync
from hsm_core.testing import FakeClock
from tests.core.audit_support import (
    copy_of,
    draft,
    events,
    fill,
    intent,
    open_log,
    opened,
    outcome,
    read_lines,
    verified,
)


def _killed(tmp_path: Path, records: int = 10) -> tuple[Path, bytes]:
    """Return a killed trail, and the line that would have come next."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    fill(log, records)
    killed = copy_of(path, tmp_path / "killed")
    fill(log, 1)
    log.close()
    return killed, read_lines(path)[-1]


def test_a_torn_line_is_set_aside_and_its_repair_recorded(tmp_path: Path) -> None:
    """The fragment is kept in a file of its own, and the trail goes on."""
    path, line = _killed(tmp_path)
    fragment = line[:100]
    path.write_bytes(path.read_bytes() + fragment)
    assert (10, len(fragment)) == (verified(path).records, verified(path).torn_bytes)
    clock = FakeClock()
    log = open_log(path, clock=clock)
    repair = events(log)[-1]
    fill(log, 3)
    log.close()

    name = f"audit.log.torn-10-{clock.now()}"
    assert fragment == path.with_name(name).read_bytes()
    assert 0o600 == path.with_name(name).stat().st_mode & 0o777
    assert (10, "system.repair", "single", "ok") == (
        repair.seq,
        repair.kind,
        repair.phase,
        repair.code,
    )
    assert repair.detail == RepairDetail(
        fragment_bytes=100,
        fragment_sha256=hashlib.sha256(fragment).hexdigest(),
        kept_as=name,
    )
    assert (14, True, 0) == (
        verified(path).records,
        verified(path).clean,
        verified(path).torn_bytes,
    )


def test_a_line_torn_at_any_byte_is_repaired(tmp_path: Path) -> None:
    """Wherever the crash cut, the next start succeeds without help."""
    path, line = _killed(tmp_path)
    whole = path.read_bytes()
    head = path.with_name("audit.log.head").read_bytes()

    for length in range(1, len(line)):
        path.write_bytes(whole + line[:length])
        path.with_name("audit.log.head").write_bytes(head)
        for kept in path.parent.glob("*.torn-*"):
            kept.unlink()
        with opened(path) as log:
            assert 10 == log.head().seq
        kept_as = [file.read_bytes() for file in path.parent.glob("*.torn-*")]
        assert [line[:length]] == kept_as


def test_a_record_that_lacks_only_its_newline_is_kept(tmp_path: Path) -> None:
    """It is whole and authentic, so nothing is set aside."""
    path, line = _killed(tmp_path)
    path.write_bytes(path.read_bytes() + line)
    assert 11 == verified(path).records
    with opened(path) as log:
        assert "Sign" == events(log)[-1].kind
        assert 11 == len(events(log))
        fill(log, 1)

    assert [] == list(path.parent.glob("*.torn-*"))
    assert 12 == verified(path).records


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 4096,
        b"\n",
        b"\n\n\n",
        b"x" * 3_000_000,
        b'{"event":{"format":1}\n{"event":',
        b'{"event":{"format":1},"mac":"' + b"0" * 64 + b'"}\n',
        b"\xff\xfe\n",
    ],
    ids=["zeros", "newline", "newlines", "long", "two lines", "bad mac", "no text"],
)
def test_any_tail_without_a_whole_record_is_set_aside(
    tmp_path: Path, tail: bytes
) -> None:
    """Blocks that a power cut left unwritten are no tampering."""
    path, _ = _killed(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    assert len(tail) == verified(path).torn_bytes

    with opened(path) as log:
        assert "system.repair" == events(log)[-1].kind
    assert [tail] == [file.read_bytes() for file in path.parent.glob("*.torn-*")]
    assert 11 == verified(path).records


def test_a_torn_tail_that_holds_a_whole_record_is_refused(tmp_path: Path) -> None:
    """A crash writes from front to back: nothing whole follows what is torn."""
    path, line = _killed(tmp_path)
    path.write_bytes(path.read_bytes() + line[:50] + b"\n" + line + b"\n")

    with pytest.raises(AuditTamperedError) as caught:
        open_log(path)
    assert {"seq": 10, "reason": "framing"} == caught.value.facts


def test_two_repairs_at_one_place_keep_both_fragments(tmp_path: Path) -> None:
    """A name that is taken is never overwritten, even if the clock stands still."""
    path, _ = _killed(tmp_path)
    clock = FakeClock()
    kept = path.with_name(f"audit.log.torn-10-{clock.now()}")
    kept.write_bytes(b"earlier")
    path.write_bytes(path.read_bytes() + b"later")
    log = open_log(path, clock=clock)
    repairs = [e.detail for e in events(log) if isinstance(e.detail, RepairDetail)]
    log.close()

    assert b"earlier" == kept.read_bytes()
    names = [kept.name, f"audit.log.torn-10-{clock.now() + 1}"]
    assert names == [repair.kept_as for repair in repairs]


def test_a_repaired_fragment_is_recorded_once(tmp_path: Path) -> None:
    """Later starts find the record and say nothing more."""
    path, line = _killed(tmp_path)
    path.write_bytes(path.read_bytes() + line[:9])

    for _ in range(3):
        with opened(path) as log:
            kinds = [event.kind for event in events(log)]
        assert 1 == kinds.count("system.repair")


def test_open_intents_are_those_without_outcome(tmp_path: Path) -> None:
    """An outcome closes the intent of its operation and no other."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    log.append([intent("a"), intent("b"), draft(), outcome("a"), intent("c")])
    log.append([outcome("unknown")]).wait()
    assert log.open_intents() == []
    killed = copy_of(path, tmp_path / "killed")
    log.close()

    for copy in (path, killed):
        with opened(copy) as log:
            found = log.open_intents()
            assert [("b", 2), ("c", 5)] == [(e.operation_id, e.seq) for e in found]
            log.append([outcome("b"), outcome("c")]).wait()
        with opened(copy) as log:
            assert log.open_intents() == []


def test_an_old_intent_is_found_in_a_closed_segment(tmp_path: Path) -> None:
    """Opening goes back as far as the oldest open intent, over any number of starts."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        fill(log, 15)
        log.append([intent("old")]).wait()
    for _ in range(4):
        with opened(path, segment_bytes=4096) as log:
            fill(log, 15, one_by_one=True)
    assert 5 <= len(list(path.parent.glob("audit.log.0*")))

    with opened(path, segment_bytes=4096) as log:
        assert [("old", 15)] == [(e.operation_id, e.seq) for e in log.open_intents()]
        log.append([outcome("old")]).wait()
    with opened(path) as log:
        assert log.open_intents() == []


def test_damage_below_an_old_intent_is_found_on_opening(tmp_path: Path) -> None:
    """The segments that an open intent needs are verified on opening."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        fill(log, 15)
        log.append([intent("old")]).wait()
        fill(log, 60, one_by_one=True)
    second = sorted(path.parent.glob("audit.log.0*"))[1]
    first_seq = int(second.name[-16:])
    second.write_bytes(second.read_bytes().replace(b"alice", b"mally", 1))

    with pytest.raises(AuditTamperedError) as caught:
        open_log(path)
    assert caught.value.facts["seq"] in range(first_seq, first_seq + 2)


def test_the_newest_set_digest_is_remembered(tmp_path: Path) -> None:
    """It survives restarts, kills, rotation and records without one."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        assert "" == log.set_digest_at_open
        log.append([intent("a"), outcome("a", "11" * 32)]).wait()
        log.append([intent("b"), outcome("b", "22" * 32)]).wait()
        fill(log, 40, one_by_one=True)
    with opened(path) as log:
        assert "22" * 32 == log.set_digest_at_open
        log.append([intent("c"), outcome("c", "33" * 32)]).wait()
        killed = copy_of(path, tmp_path / "killed")
    with opened(killed) as log:
        assert "33" * 32 == log.set_digest_at_open


def test_a_trail_of_25000_records_over_segments_and_restarts_verifies(
    tmp_path: Path,
) -> None:
    """The key never changes by itself: all verifies from the first record on."""
    path = tmp_path / "log" / "audit.log"
    clock = FakeClock()
    for restart in range(10):
        sync = AuditSync.STRICT if restart % 2 else AuditSync.BOUNDED
        log = open_log(path, clock=clock, sync=sync, segment_bytes=128 * 1024)
        for _ in range(25):
            # The first record names the log.
            first = int(log.head().seq < 0)
            log.append([draft(n) for n in range(first, 100)]).wait()
            clock.step(-3600)
        log.close()
    answer = verified(path)

    assert (25_000, 24_999, True) == (answer.records, answer.head_seq, answer.clean)
    names = [file.name for file in path.parent.iterdir()]
    closed = closed_names("audit.log", names)
    assert list(range(1, len(closed) + 1)) == [name.number for name in closed]
    assert len(closed) > 20
    with opened(path) as log:
        lines = log.lines(0, 30_000)
        assert 25_000 == len(lines)
        for start in (0, 1, 127, 128, 300, 12_345, 24_990):
            assert lines[start : start + 20] == log.lines(start, 20)


def test_segments_are_named_by_number_and_first_seq(tmp_path: Path) -> None:
    """A closed segment's first record has the seq that its name tells."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        fill(log, 30, one_by_one=True)
    first = path.with_name("audit.log.00000001.0000000000000000")
    names = closed_names("audit.log", [file.name for file in path.parent.iterdir()])

    assert first.is_file()
    assert len(names) >= 2
    for name in names:
        file = path.with_name(name.of("audit.log"))
        assert 4096 < file.stat().st_size < 8192
        assert b'"seq":"%016x"' % name.first_seq in read_lines(file)[0]


def test_only_exact_names_of_a_log_are_its_files() -> None:
    """Segments and fragments are found in their order, whatever else lies there."""
    live = "audit.log"
    closed = [ClosedName(1, 0), ClosedName(2, 40), ClosedName(10, 9 * 10**15)]
    fragments = [
        FragmentName(0, 7),
        FragmentName(9, 5, "fork"),
        FragmentName(10, 1),
    ]
    ours = [n.of(live) for n in closed] + [n.of(live) for n in fragments]
    others = [
        *("audit.log", "audit.log.head", "audit.log.1.0"),
        "audit.log.00000001.000000000000000",
        "audit.log.00000001.00000000000000000",
        "audit.log.00000001.0000000000000000.gz",
        "audit.log.00000001.0000000000000000\n",
        "audit.log.0000000x.0000000000000000",
        "audit.log.0000000\u0661.0000000000000000",
        "other.log.00000001.0000000000000000",
        *("audit.log.torn-01-5", "audit.log.torn-1-05", "audit.log.torn--1-5"),
        *("audit.log.torn-7-1.gz", "audit.log.tork-9-2", "audit.log.torn-1-5x"),
        f"audit.log.torn-1-{10**16}",
    ]
    names = random.Random(1).sample([*ours, *others], len(ours) + len(others))

    assert "audit.log.00000002.0000000000000040" == ours[1]
    assert "audit.log.fork-9-5" == ours[4]
    assert closed == closed_names(live, names)
    assert fragments == fragment_names(live, names)
    for other in ("other", "audit.lo", "log", "xaudit.log"):
        assert [] == closed_names(other, ours)
        assert [] == fragment_names(other, ours)


def test_a_rotation_whose_name_is_taken_fails_closed(tmp_path: Path) -> None:
    """A planted file is not overwritten; it is found damaged on the next start."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, segment_bytes=4096)
    planted = path.with_name("audit.log.00000001.0000000000000000")
    planted.write_bytes(b"planted\n")
    planted.chmod(0o600)
    fill(log, 20)
    with pytest.raises(AuditUnavailableError):
        log.close()

    assert log.available is False
    assert b"planted\n" == planted.read_bytes()
    with pytest.raises(AuditTamperedError):
        open_log(path)


def test_reading_goes_on_while_segments_are_closed(tmp_path: Path) -> None:
    """Readers see a prefix without gaps, whatever is renamed under them."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:

        def read() -> int:
            seen = 0
            while seen < 300:
                lines = log.lines(seen, 50)
                for position, line in enumerate(lines, seen):
                    assert b'"seq":"%016x"' % position in line
                seen += len(lines)
            return seen

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            fill(log, 300, one_by_one=True)
            assert all(reader.result(60) == 300 for reader in readers)

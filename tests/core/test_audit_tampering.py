"""
Attacks on a log by someone who may write its files but has not the key.

Each must be detected, on opening and by offline verification, and the first bad record
named. The attacks that need a copy held outside (3, 7 and 9 of the threat model) are
not among them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.head_mark import HEAD_BYTES
from hsm_core._internal.audit.record import Entry, decode_entry, leaf_hash
from hsm_core.errors import AuditTamperedError, WrongAuditKeyError
from hsm_core.model import ApprovalDemand, MessageDetail, Phase
from tests.core import record_attacks
from tests.core.audit_support import (
    KEY,
    check_named,
    copy_of,
    draft,
    events,
    fill,
    intent,
    open_any,
    open_log,
    opened,
    read_lines,
    verified,
    write_lines,
)
from tests.core.record_attacks import REASONS, RecordAttack, changed
from tests.core.sqlite_audit_support import replace_rows, rows_of

RECORDS = 60


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Give logs of 60 records in each medium: closed, of a killed writer, and foreign.

    An intent that is open from the first record on lets every start follow all.
    """
    folder = tmp_path_factory.mktemp("originals")
    for suffix in (".log", ".sqlite"):
        for seed, name in enumerate(("clean", "other")):
            log = open_any(folder / f"{name}{suffix}" / f"audit{suffix}", seed=seed)
            log.append([intent("operation")]).wait()
            log.append([draft(number) for number in range(2, RECORDS)]).wait()
            if name == "clean":
                path = folder / f"{name}{suffix}" / f"audit{suffix}"
                copy_of(path, folder / f"killed{suffix}")
            log.close()
    return folder


@pytest.fixture
def other(originals: Path) -> Path:
    """Give another log in files, of the same key."""
    return originals / "other.log" / "audit.log"


@pytest.fixture(params=["clean", "killed"])
def path(request: pytest.FixtureRequest, originals: Path, tmp_path: Path) -> Path:
    """Give a copy of the log in files that was closed, or whose writer was killed."""
    return copy_of(originals / f"{request.param}.log" / "audit.log", tmp_path / "copy")


@pytest.fixture(params=[".log", ".sqlite"])
def each(request: pytest.FixtureRequest, originals: Path, tmp_path: Path) -> Path:
    """Give a copy of the closed log in each medium."""
    name = f"clean{request.param}"
    return copy_of(originals / name / f"audit{request.param}", tmp_path / "copy")


def lines_of(path: Path) -> list[bytes]:
    """Return all records of a log of one segment, or of a database."""
    return read_lines(path) if path.suffix == ".log" else list(rows_of(path).values())


def replace(path: Path, lines: list[bytes]) -> None:
    """Overwrite all records."""
    if path.suffix == ".log":
        write_lines(path, lines)
    else:
        replace_rows(path, dict(enumerate(lines)))


@pytest.mark.parametrize("attack", REASONS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("state", ["clean", "killed"])
@pytest.mark.parametrize("suffix", [".log", ".sqlite"])
def test_an_attack_of_the_kit_is_detected_and_named(
    originals: Path, tmp_path: Path, suffix: str, state: str, attack: RecordAttack
) -> None:
    """Whatever holds the records, whoever wrote them last, and nothing is repaired."""
    name = f"audit{suffix}"
    path = copy_of(originals / f"{state}{suffix}" / name, tmp_path / "copy")
    lines = lines_of(path)
    seq = attack(lines, 20, lines_of(originals / f"other{suffix}" / name))
    replace(path, lines)
    attacked = lines_of(path)

    # Files have no number for it: the log may begin later, if a prune says so.
    first_is_gone = (suffix, attack) == (".log", record_attacks.remove_the_head)
    check_named(path, seq, "pruned" if first_is_gone else REASONS[attack])
    assert attacked == lines_of(path)


def test_without_the_key_the_chain_is_checked(each: Path) -> None:
    """An edit shows at the next record; who makes the chain anew is not noticed."""
    lines = lines_of(each)
    record_attacks.edit(lines, 20, [])
    replace(each, lines)
    check_named(each, 21, "chain", key=None)

    record_attacks.edit_and_chain_anew(lines, 20, [])
    replace(each, lines)
    answer = verified(each, None)
    told = answer.macs_checked, answer.mark_checked, answer.clean
    assert (False, False, False) == told
    assert leaf_hash(lines[-1]) == answer.head_hash


def test_a_wrong_key_is_told_from_tampering(each: Path) -> None:
    """Another HMAC key is an error of its own, and no record changes."""
    before = lines_of(each)

    with pytest.raises(WrongAuditKeyError):
        open_any(each, key=KEY[::-1])
    with pytest.raises(WrongAuditKeyError):
        verified(each, KEY[::-1])
    assert before == lines_of(each)
    assert verified(each).clean


def test_a_wrong_key_changes_no_file(path: Path) -> None:
    """Of a log in files not even the lock is made."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    with pytest.raises(WrongAuditKeyError):
        open_log(path, key=KEY[::-1])
    assert before == {file: file.read_bytes() for file in path.parent.iterdir()}


def test_a_forged_record_needs_every_field_under_the_mac(path: Path) -> None:
    """Changing any one member of an entry breaks its MAC."""
    lines = read_lines(path)
    entry = decode_entry(lines[20])
    others: dict[str, object] = {
        "phase": Phase.INTENT,
        "numbers": (99,),
        "demands": (ApprovalDemand(rule="x"),),
        "approval_signatures": ("x",),
        "detail": MessageDetail(text="x"),
        **dict.fromkeys(("seq", "time"), "0000000000000099"),
        **dict.fromkeys(("prev", "facts", "mac"), "a" * 64),
    }
    reasons = {"format": "format"}

    for name in Entry.__struct_fields__:
        old = getattr(entry, name)
        new = old + 1 if isinstance(old, int) else others.get(name, f"{old}x")
        line = changed(lines[20], **{name: new})
        write_lines(path, [*lines[:20], line, *lines[21:]])
        with pytest.raises(AuditTamperedError) as caught:
            verified(path)
        reason = reasons.get(name, "mac")
        assert {"seq": 20, "reason": reason} == caught.value.facts, name


def test_every_byte_change_is_detected(tmp_path: Path) -> None:
    """Changes of every byte of two records are each found, and the record named."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 2)
    original = path.read_bytes()

    for position, old in enumerate(original):
        # The second entry stands behind its facts line.
        seq = min(original[:position].count(b"\n"), 1)
        for new in {old ^ 0x20, *([0x0A] if position % 5 == 0 else [])} - {old}:
            changed = original[:position] + bytes([new]) + original[position + 1 :]
            path.write_bytes(changed)
            with pytest.raises(AuditTamperedError) as caught:
                verified(path)
            assert seq == caught.value.facts["seq"]


def test_every_byte_cut_off_the_end_is_detected(path: Path) -> None:
    """A log cut anywhere in its last record is refused."""
    original = path.read_bytes()
    last = len(original.splitlines(keepends=True)[-1])

    for cut in (1, 2, *range(3, last, 29), last):
        path.write_bytes(original[:-cut])
        check_named(path, RECORDS - 1, "torn" if cut < last else "shorter")


def test_a_missing_log_is_refused(path: Path) -> None:
    """A log that was deleted is not begun anew (attack 8)."""
    path.unlink()

    check_named(path, 0, "shorter")
    assert not path.exists()


def test_another_log_in_its_place_is_refused(path: Path, other: Path) -> None:
    """Neither its records nor its head mark fit what is there."""
    original = path.read_bytes()
    path.write_bytes(other.read_bytes())
    check_named(path, 0)

    path.write_bytes(original)
    head = other.with_name("audit.log.head").read_bytes()
    path.with_name("audit.log.head").write_bytes(head)
    check_named(path, 0)


def test_another_history_of_the_same_log_is_refused(tmp_path: Path) -> None:
    """A copy that went its own way does not fit the head mark."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    fill(log, 10)
    branch = copy_of(path, tmp_path / "branch")
    fill(log, 5)
    log.close()
    with opened(branch) as log:
        log.append([draft(n + 100) for n in range(5)]).wait()
    path.write_bytes(branch.read_bytes())

    check_named(path, 14, "mark")


# The head mark

DAMAGED = "head_damaged"


def test_a_missing_head_mark_is_refused(path: Path) -> None:
    """A log without it could have been cut; a bad record is named before that."""
    path.with_name("audit.log.head").unlink()
    check_named(path, 0, "head_missing")
    assert RECORDS == verified(path, None).records

    lines = read_lines(path)
    record_attacks.edit(lines, 20, [])
    write_lines(path, lines)
    with pytest.raises(AuditTamperedError) as caught:
        verified(path)
    assert {"seq": 20, "reason": "mac"} == caught.value.facts


@pytest.mark.parametrize("length", [0, 1, HEAD_BYTES - 1, HEAD_BYTES + 1, 10**6])
def test_a_head_file_of_another_length_is_refused(path: Path, length: int) -> None:
    """A head file that was cut or lengthened is damage, not a new log."""
    head = path.with_name("audit.log.head")
    head.write_bytes(head.read_bytes().ljust(length, b"\0")[:length])

    check_named(path, 0, DAMAGED)


@pytest.mark.parametrize("offset", [11, 16, 40, 511])
def test_a_changed_header_of_the_head_file_is_refused(path: Path, offset: int) -> None:
    """Neither magic, log id, key check value nor padding can be another one."""
    head = path.with_name("audit.log.head")
    content = bytearray(head.read_bytes())
    content[offset] ^= 0x10
    head.write_bytes(content)

    check_named(path, 0, DAMAGED)


def test_one_slot_of_the_head_mark_is_enough_and_none_is_not(path: Path) -> None:
    """A slot whose padding was changed does not count; a start writes it again."""
    head = path.with_name("audit.log.head")
    content = bytearray(head.read_bytes())
    content[512 + 300] ^= 1
    head.write_bytes(content)
    with opened(path) as log:
        fill(log, 3)
    assert verified(path).clean

    content[1024 + 300] ^= 1
    head.write_bytes(content)
    check_named(path, 0, DAMAGED)


# The end

TORN = b'{"event":{"form'


def test_what_follows_a_clean_stop_is_refused(tmp_path: Path) -> None:
    """A log that was closed in order has no torn tail, and no later records."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    head = path.with_name("audit.log.head")
    closed = head.read_bytes()
    whole = path.read_bytes()
    path.write_bytes(whole + TORN)
    check_named(path, 10, "torn")

    path.write_bytes(whole)
    with opened(path) as log:
        fill(log, 5)
    head.write_bytes(closed)
    check_named(path, 10, "after_clean")


@pytest.fixture
def behind(tmp_path: Path) -> Path:
    """Give a killed log of 60 records whose head mark knows the first 30."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    fill(log, 30)
    head = path.with_name("audit.log.head").read_bytes()
    fill(log, 30)
    killed = copy_of(path, tmp_path / "behind")
    log.close()
    killed.with_name("audit.log.head").write_bytes(head)
    return killed


@pytest.mark.parametrize("attack", record_attacks.IN_THE_MIDDLE)
@pytest.mark.parametrize("seq", [35, 50])
def test_damage_that_the_head_mark_does_not_cover_is_no_torn_tail(
    behind: Path, other: Path, attack: RecordAttack, seq: int
) -> None:
    """A bad record with a good one after it was not torn by a crash."""
    lines = read_lines(behind)
    attack(lines, seq, read_lines(other))
    write_lines(behind, lines)

    check_named(behind, seq)


@pytest.mark.parametrize("joined", [b" ", b""])
def test_two_records_on_one_line_are_no_torn_tail(behind: Path, joined: bytes) -> None:
    """The last newline but one is gone: a whole record lies in the bad line."""
    *lines, last = read_lines(behind)
    behind.write_bytes(b"\n".join(lines) + joined + last + b"\n")

    check_named(behind, RECORDS - 2)


def test_the_newest_record_can_not_be_told_from_a_torn_one_but_it_shows(
    behind: Path,
) -> None:
    """Beyond the mark the last record can be spoilt; the repair is recorded."""
    lines = read_lines(behind)
    spoilt = lines[-1].replace(b"request-", b"requesT-")
    write_lines(behind, [*lines[:-1], spoilt])
    with opened(behind) as log:
        newest = events(log)[-1]

    assert ("system.repair", RECORDS - 1) == (newest.kind, newest.seq)
    kept = next(behind.parent.glob("audit.log.torn-59-*"))
    assert spoilt + b"\n" == kept.read_bytes()


# Closed segments


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a killed log in several segments, the live one with a record."""
    path = tmp_path_factory.mktemp("segmented") / "log" / "audit.log"
    log = open_log(path, segment_bytes=4096)
    log.append([intent("so that a start reads all")]).wait()
    fill(log, 60, one_by_one=True)
    killed = copy_of(path, path.parent.with_name("killed"))
    log.close()
    return killed


def _closed(path: Path) -> list[Path]:
    return sorted(path.parent.glob("audit.log.0*"))


def _first_seq(segment: Path) -> int:
    return int(segment.name[-16:])


def _renumber(ahead: int, *segments: Path) -> None:
    for segment in reversed(segments):
        *start, number, first_seq = segment.name.split(".")
        name = ".".join([*start, f"{int(number) + ahead:08d}", first_seq])
        segment.rename(segment.with_name(name))


def _leave_a_number_out(path: Path) -> int:
    last = _closed(path)[-1]
    _renumber(3, last)
    return _first_seq(last)


def _number_from_two(path: Path) -> int:
    _renumber(1, *_closed(path))
    return 0


def _put_one_before(path: Path) -> int:
    _renumber(1, *_closed(path))
    planted = path.with_name(f"{path.name}.{1:08d}.{0:016d}")
    planted.write_bytes(b"no record\n")
    planted.chmod(0o600)
    return 0


def _take_one_out(path: Path) -> int:
    middle = _closed(path)[1]
    middle.unlink()
    return _first_seq(middle)


def _take_the_last_out(path: Path) -> int:
    last = _closed(path)[-1]
    last.unlink()
    return _first_seq(last)


def _rename_one(path: Path) -> int:
    second = _closed(path)[1]
    second.rename(second.with_name(f"{second.name[:-16]}{_first_seq(second) + 1:016d}"))
    return _first_seq(second)


@pytest.mark.parametrize(
    "attack",
    [
        _leave_a_number_out,
        _number_from_two,
        _put_one_before,
        _take_one_out,
        _take_the_last_out,
        _rename_one,
    ],
)
def test_segments_join_by_their_numbers_and_their_records(
    segmented: Path, tmp_path: Path, attack: Callable[[Path], int]
) -> None:
    """None of them can be taken out, put in or given another name."""
    path = copy_of(segmented, tmp_path / "copy")
    seq = attack(path)

    for key in (KEY, None):
        check_named(path, seq, "segment", "sequence", key=key)


def test_a_link_to_nowhere_is_no_segment(segmented: Path, tmp_path: Path) -> None:
    """A segment that is a dangling link is missing."""
    path = copy_of(segmented, tmp_path / "copy")
    middle = _closed(path)[1]
    middle.unlink()
    middle.symlink_to(tmp_path / "nowhere")

    for key in (KEY, None):
        with pytest.raises(AuditTamperedError) as caught:
            verified(path, key)
        expected = {"seq": _first_seq(middle), "reason": "segment"}
        assert expected == caught.value.facts


@pytest.mark.parametrize("position", [1, -1])
def test_a_closed_segment_is_whole(
    segmented: Path, tmp_path: Path, position: int
) -> None:
    """It was synced before it was closed, so not even its last newline can be gone."""
    path = copy_of(segmented, tmp_path / "copy")
    segment = _closed(path)[position]
    content = segment.read_bytes()
    lines = read_lines(segment)
    last = _first_seq(segment) + len(lines) - 1

    for cut, reasons in (
        (1, ["torn"]),
        (2, ["torn"]),
        (len(lines[-1]) + 1, ["segment", "sequence"]),
    ):
        segment.write_bytes(content[:-cut])
        for key in (KEY, None):
            check_named(path, last, *reasons, key=key)
    segment.write_bytes(content.replace(lines[-1], changed(lines[-1], code="no")))
    check_named(path, last, "mac")


def test_a_torn_closed_segment_beyond_the_head_mark_is_refused(tmp_path: Path) -> None:
    """It can't be repaired either, whatever the mark says."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, segment_bytes=2048)
    fill(log, 1)
    head = path.with_name("audit.log.head").read_bytes()
    fill(log, 10)
    fill(log, 1)
    killed = copy_of(path, tmp_path / "killed")
    log.close()
    killed.with_name("audit.log.head").write_bytes(head)
    closed = _closed(killed)[0]
    closed.write_bytes(closed.read_bytes()[:-1])

    check_named(killed, 11, "torn")

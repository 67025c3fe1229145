"""
Attacks on a trail by someone who may write its files but has not the key.

Each must be detected, on opening and by offline verification, and the first bad record
named. The attacks that need a copy held outside (3, 7 and 9 of the threat model) are
not among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.head_mark import HEAD_BYTES, HeadMark
from hsm_core._internal.audit.record import FRAME, decode_event, encode_event, leaf_hash
from hsm_core._internal.audit.verify import follow
from hsm_core._internal.lib import encoding
from hsm_core.errors import AuditTamperedError, HSMError, WrongAuditKeyError
from hsm_core.model import (
    ApprovalDemand,
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    MessageDetail,
    Phase,
)
from hsm_core.settings import AuditSync
from tests.core.audit_support import (
    KEY,
    copy_of,
    draft,
    events,
    fill,
    intent,
    live_segment,
    open_log,
    opened,
    read_lines,
    verified,
    write_lines,
)

RECORDS = 60


@pytest.fixture(params=["clean", "killed"])
def trail(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a trail of 60 records that was closed, or whose writer was killed."""
    path = tmp_path / "original" / "audit.log"
    log = open_log(path)
    fill(log, RECORDS)
    killed = copy_of(path, tmp_path / "killed")
    log.close()
    return path if request.param == "clean" else killed


def _event(line: bytes) -> AuditEvent:
    event = decode_event(encoding.split(FRAME, line)[0])
    assert event is not None
    return event


def _mac(line: bytes) -> bytes:
    return encoding.split(FRAME, line)[1]


def _edit(lines: list[bytes]) -> list[bytes]:
    caller = AuditedCaller(principal="bob", roles=("Operator",))
    event = msgspec.structs.replace(_event(lines[20]), caller=caller)
    lines[20] = encoding.join(FRAME, encode_event(event), _mac(lines[20]))
    return lines


def _edit_and_recompute(lines: list[bytes]) -> list[bytes]:
    lines = _edit(lines)
    for position in range(21, len(lines)):
        event = msgspec.structs.replace(
            _event(lines[position]), prev=leaf_hash(lines[position - 1])
        )
        lines[position] = encoding.join(
            FRAME, encode_event(event), _mac(lines[position])
        )
    return lines


def _edit_and_sign_without_key(lines: list[bytes]) -> list[bytes]:
    lines = _edit(lines)
    payload = encoding.split(FRAME, lines[20])[0]
    lines[20] = encoding.join(FRAME, payload, hashlib.sha256(payload).digest())
    return lines


def _delete(lines: list[bytes]) -> list[bytes]:
    del lines[20]
    return lines


def _reorder(lines: list[bytes]) -> list[bytes]:
    lines[20], lines[21] = lines[21], lines[20]
    return lines


def _duplicate(lines: list[bytes]) -> list[bytes]:
    lines.insert(20, lines[19])
    return lines


def _replay(lines: list[bytes]) -> list[bytes]:
    lines[20] = lines[3]
    return lines


def _truncate(lines: list[bytes]) -> list[bytes]:
    return lines[:20]


def _cut_the_newest(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _empty(lines: list[bytes]) -> list[bytes]:
    return []


def _strip_the_mac(lines: list[bytes]) -> list[bytes]:
    payload = encoding.split(FRAME, lines[20])[0]
    lines[20] = b'{"event":' + payload + b"}"
    return lines


def _blank_the_mac(lines: list[bytes]) -> list[bytes]:
    payload = encoding.split(FRAME, lines[20])[0]
    lines[20] = encoding.join(FRAME, payload, bytes(32))
    return lines


def _repeat_the_newest(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[-1]]


def _blank_line(lines: list[bytes]) -> list[bytes]:
    lines.insert(20, b"")
    return lines


def _carriage_return(lines: list[bytes]) -> list[bytes]:
    lines[20] += b"\r"
    return lines


def _duplicate_name(lines: list[bytes]) -> list[bytes]:
    lines[20] = lines[20].replace(b'"code":"ok"', b'"code":"no","code":"ok"')
    return lines


@pytest.mark.parametrize(
    ("attack", "seq", "reason"),
    [
        (_edit, 20, "mac"),
        (_edit_and_recompute, 20, "mac"),
        (_edit_and_sign_without_key, 20, "mac"),
        (_delete, 20, "sequence"),
        (_reorder, 20, "sequence"),
        (_duplicate, 20, "sequence"),
        (_replay, 20, "sequence"),
        (_truncate, 20, "shorter"),
        (_cut_the_newest, RECORDS - 1, "shorter"),
        (_empty, 0, "shorter"),
        (_strip_the_mac, 20, "framing"),
        (_blank_the_mac, 20, "mac"),
        (_repeat_the_newest, RECORDS, "sequence"),
        (_blank_line, 20, "framing"),
        (_carriage_return, 20, "framing"),
        (_duplicate_name, 20, "mac"),
    ],
)
def test_an_attack_is_detected_and_its_first_bad_record_named(
    trail: Path,
    attack: Callable[[list[bytes]], list[bytes]],
    seq: int,
    reason: str,
) -> None:
    """Opening and offline verification both refuse, with the same seq and reason."""
    write_lines(trail, attack(read_lines(trail)))
    attacked = trail.read_bytes()

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert {"seq": seq, "reason": reason} == caught.value.facts
    assert attacked == trail.read_bytes()


def test_an_edit_by_the_chain_alone_shows_at_the_next_record(trail: Path) -> None:
    """Without the key an edit shows as a record that does not follow."""
    write_lines(trail, _edit(read_lines(trail)))

    with pytest.raises(AuditTamperedError) as caught:
        verified(trail, None)
    assert {"seq": 21, "reason": "chain"} == caught.value.facts


def test_without_the_key_the_answer_says_that_macs_were_not_checked(
    trail: Path,
) -> None:
    """A forger who recomputes the chain passes without key, and that is said."""
    lines = _edit_and_recompute(read_lines(trail))
    write_lines(trail, lines)
    answer = verified(trail, None)

    assert (False, False) == (answer.macs_checked, answer.mark_checked)
    assert leaf_hash(lines[-1]) == answer.head_hash


@pytest.mark.parametrize("position", [0, 20, RECORDS - 1])
def test_a_record_of_another_trail_of_the_same_key_is_refused(
    trail: Path, tmp_path: Path, position: int
) -> None:
    """A record spliced in from another log is named (attack 10)."""
    other = tmp_path / "other" / "audit.log"
    with opened(other, seed=1) as log:
        fill(log, RECORDS)
    lines = read_lines(trail)
    lines[position] = read_lines(other)[position]
    write_lines(trail, lines)

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert {"seq": position, "reason": "mac"} == caught.value.facts


def test_another_trail_of_the_same_key_in_its_place_is_refused(
    trail: Path, tmp_path: Path
) -> None:
    """A whole log swapped in does not fit the head mark."""
    other = tmp_path / "other" / "audit.log"
    with opened(other, seed=1) as log:
        fill(log, RECORDS)
    trail.write_bytes(other.read_bytes())

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert 0 == caught.value.facts["seq"]


def test_an_older_copy_of_the_log_is_refused(tmp_path: Path) -> None:
    """A log put back without its head mark is shorter than the mark says."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 30)
    older = path.read_bytes()
    with opened(path) as log:
        fill(log, 30)
    path.write_bytes(older)

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": 30, "reason": "shorter"} == caught.value.facts


def test_a_missing_log_is_refused(trail: Path) -> None:
    """A log that was deleted is not begun anew (attack 8)."""
    trail.unlink()

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert {"seq": 0, "reason": "shorter"} == caught.value.facts
    assert not trail.exists()


def test_a_missing_head_mark_is_refused(trail: Path) -> None:
    """A log without head mark could have been cut, so it is not believed."""
    (trail.parent / "audit.log.head").unlink()

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert {"seq": 0, "reason": "head_missing"} == caught.value.facts


def test_a_bad_record_is_named_even_if_the_head_mark_is_missing(trail: Path) -> None:
    """Offline verification of a lone copy still names the record that was edited."""
    (trail.parent / "audit.log.head").unlink()
    write_lines(trail, _edit(read_lines(trail)))

    with pytest.raises(AuditTamperedError) as caught:
        verified(trail)
    assert {"seq": 20, "reason": "mac"} == caught.value.facts


def test_every_single_byte_change_in_a_trail_is_detected(tmp_path: Path) -> None:
    """Five changes of every byte of 60 records are each found, and the record named."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, RECORDS)
        log_id = log.log_id
    lines = [line + b"\n" for line in read_lines(path)]
    mark = HeadMark(
        seq=RECORDS - 1, leaf_hash=leaf_hash(lines[-1][:-1]), floor=RECORDS, clean=True
    )
    follower = Follower(log_id=log_id, hmac_key=KEY, mark=mark)
    checked = 0

    for number, line in enumerate(lines):
        rest = b"".join(lines[number + 1 :])
        for position in range(len(line)):
            old = line[position]
            changes = {old ^ 0x01, old ^ 0x20, old ^ 0x80, 0x0A, 0x00} - {old}
            for new in changes:
                changed = line[:position] + bytes([new]) + line[position + 1 :]
                _assert_named(changed + rest, number, log_id, follower)
                checked += 1
        follower.follow(line[:-1])
    assert checked > 4 * sum(map(len, lines))


def _assert_named(tail: bytes, number: int, log_id: str, before: Follower) -> None:
    follower = Follower(
        log_id=log_id,
        hmac_key=KEY,
        seq=before.seq,
        leaf_hash=before.leaf_hash,
        mark=before.mark,
    )
    with pytest.raises(AuditTamperedError) as caught:
        follow(live_segment(tail, follower), follower, lambda _: None)
    assert number == caught.value.facts["seq"]


def test_byte_changes_are_detected_through_the_files(trail: Path) -> None:
    """A sample of byte changes is found by opening and by offline verification."""
    original = trail.read_bytes()

    for position in range(0, len(original), 211):
        changed = bytearray(original)
        changed[position] ^= 0x04
        trail.write_bytes(changed)
        seq = original[:position].count(b"\n")
        for refuse in (open_log, verified):
            with pytest.raises(AuditTamperedError) as caught:
                refuse(trail)
            assert seq == caught.value.facts["seq"]


def test_every_byte_cut_off_the_end_is_detected(trail: Path) -> None:
    """A log cut at any byte of its last record is refused."""
    original = trail.read_bytes()
    last = len(original.splitlines(keepends=True)[-1])

    for cut in range(1, last + 1):
        trail.write_bytes(original[:-cut])
        with pytest.raises(AuditTamperedError) as caught:
            open_log(trail)
        assert RECORDS - 1 == caught.value.facts["seq"]


def test_bytes_after_a_clean_stop_are_refused(tmp_path: Path) -> None:
    """A trail that was closed in order has no torn tail."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, RECORDS)
    with path.open("ab") as file:
        file.write(b'{"event":{"form')

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": RECORDS, "reason": "torn"} == caught.value.facts


def test_records_after_a_clean_stop_are_refused(tmp_path: Path) -> None:
    """Good records that came after the end was marked clean did not come from us."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    head = path.with_name("audit.log.head")
    closed = head.read_bytes()
    with opened(path) as log:
        fill(log, 5)
    head.write_bytes(closed)

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": 10, "reason": "after_clean"} == caught.value.facts


def _behind(tmp_path: Path) -> Path:
    """Return a killed trail of 60 records whose head mark knows the first 30."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path)
    fill(log, 30)
    head = path.with_name("audit.log.head").read_bytes()
    fill(log, 30)
    killed = copy_of(path, tmp_path / "behind")
    log.close()
    killed.with_name("audit.log.head").write_bytes(head)
    return killed


@pytest.mark.parametrize("change", [_edit, _delete, _reorder, _duplicate, _replay])
@pytest.mark.parametrize("offset", [15, 25])
def test_damage_that_the_head_mark_does_not_cover_is_no_torn_tail(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], offset: int
) -> None:
    """A bad record with a good one after it was not torn by a crash."""
    path = _behind(tmp_path)
    lines = read_lines(path)
    write_lines(path, [*lines[:offset], *change(lines[offset:])])

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert offset + 20 == caught.value.facts["seq"]


def test_two_records_joined_by_a_changed_newline_are_no_torn_tail(
    tmp_path: Path,
) -> None:
    """The last newline but one is changed: a whole record lies in the bad line."""
    path = _behind(tmp_path)
    lines = read_lines(path)
    joined = b"".join(line + b"\n" for line in lines[:-1])[:-1] + b" " + lines[-1]
    path.write_bytes(joined + b"\n")

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert RECORDS - 2 == caught.value.facts["seq"]


def test_the_newest_record_can_not_be_told_from_a_torn_one_but_it_shows(
    tmp_path: Path,
) -> None:
    """Beyond the mark the last record can be spoilt; the repair is recorded."""
    path = _behind(tmp_path)
    lines = read_lines(path)
    spoilt = lines[-1].replace(b"alice", b"mally")
    write_lines(path, [*lines[:-1], spoilt])
    log = open_log(path)
    newest = events(log)[-1]
    log.close()

    assert ("system.repair", RECORDS - 1) == (newest.kind, newest.seq)
    kept = next(path.parent.glob("audit.log.torn-59-*"))
    assert spoilt + b"\n" == kept.read_bytes()


def test_a_wrong_key_is_recognised_before_anything_is_written(trail: Path) -> None:
    """Another HMAC key is an error of its own, and no file changes."""
    before = {file: file.read_bytes() for file in trail.parent.iterdir()}

    with pytest.raises(WrongAuditKeyError):
        open_log(trail, key=KEY[::-1])
    with pytest.raises(WrongAuditKeyError):
        verified(trail, KEY[::-1])
    assert before == {file: file.read_bytes() for file in trail.parent.iterdir()}


def test_a_changed_head_mark_is_refused_or_another_slot_tells_the_same(
    tmp_path: Path,
) -> None:
    """No byte of the head file can be changed so that the log may be cut."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 10)
    lines = read_lines(path)
    write_lines(path, lines[:-1])
    head = path.with_name("audit.log.head")
    original = head.read_bytes()
    assert HEAD_BYTES == len(original)

    for position in range(0, HEAD_BYTES):
        changed = bytearray(original)
        changed[position] ^= 0x10
        head.write_bytes(changed)
        with pytest.raises(HSMError):
            verified(path)


@pytest.mark.parametrize("length", [0, 1, HEAD_BYTES - 1, HEAD_BYTES + 1, 10**6])
def test_a_head_file_of_another_length_is_refused(trail: Path, length: int) -> None:
    """A head file that was cut or lengthened is damage, not a new log."""
    head = trail.with_name("audit.log.head")
    head.write_bytes(head.read_bytes().ljust(length, b"\0")[:length])

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert "head_damaged" == caught.value.facts["reason"]


def test_a_log_id_changed_in_the_head_file_is_not_taken_for_a_wrong_key(
    trail: Path,
) -> None:
    """The key check value does not depend on the log id."""
    head = trail.with_name("audit.log.head")
    content = bytearray(head.read_bytes())
    content[16] ^= 1
    head.write_bytes(content)

    with pytest.raises(AuditTamperedError):
        open_log(trail)


def test_a_head_file_of_another_trail_is_refused(trail: Path, tmp_path: Path) -> None:
    """The mark of another log of the same key does not fit."""
    other = tmp_path / "other" / "audit.log"
    with opened(other, seed=1) as log:
        fill(log, RECORDS)
    head = other.with_name("audit.log.head").read_bytes()
    trail.with_name("audit.log.head").write_bytes(head)

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(trail)
        assert 0 == caught.value.facts["seq"]


def _segmented(tmp_path: Path) -> Path:
    path = tmp_path / "segments" / "audit.log"
    log = open_log(path, segment_bytes=4096)
    for _ in range(20):
        fill(log, 5)
    # A segment is closed after the answer; this one is written after that.
    fill(log, 1)
    killed = copy_of(path, tmp_path / "killed")
    log.close()
    return killed


def _closed(path: Path) -> list[Path]:
    return sorted(path.parent.glob("audit.log.0*"))


def _delete_last_closed(path: Path) -> int:
    last = _closed(path)[-1]
    last.unlink()
    return int(last.name[-16:])


def _delete_middle_closed(path: Path) -> int:
    middle = _closed(path)[1]
    middle.unlink()
    return int(middle.name[-16:])


def _delete_first_closed(path: Path) -> int:
    _closed(path)[0].unlink()
    return 0


def _cut_last_closed(path: Path) -> int:
    last = _closed(path)[-1]
    lines = read_lines(last)
    write_lines(last, lines[:-1])
    return int(last.name[-16:]) + len(lines) - 1


def _swap_two_closed(path: Path) -> int:
    first, second = _closed(path)[-2:]
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    return int(first.name[-16:])


def _edit_last_record_of_last_closed(path: Path) -> int:
    last = _closed(path)[-1]
    lines = read_lines(last)
    lines[-1] = lines[-1].replace(b"alice", b"mally")
    write_lines(last, lines)
    return int(last.name[-16:]) + len(lines) - 1


def _renumber_last_closed(path: Path) -> int:
    last = _closed(path)[-1]
    number, first_seq = last.name.split(".")[2:]
    last.rename(path.with_name(f"audit.log.{int(number) + 3:08d}.{first_seq}"))
    return int(first_seq)


def _renumber_all_closed(path: Path) -> int:
    for segment in reversed(_closed(path)):
        number, first_seq = segment.name.split(".")[2:]
        segment.rename(path.with_name(f"audit.log.{int(number) + 1:08d}.{first_seq}"))
    return 0


@pytest.mark.parametrize(
    "attack",
    [
        _renumber_last_closed,
        _renumber_all_closed,
        _delete_last_closed,
        _delete_middle_closed,
        _delete_first_closed,
        _cut_last_closed,
        _edit_last_record_of_last_closed,
    ],
)
def test_an_attack_on_closed_segments_is_detected(
    tmp_path: Path, attack: Callable[[Path], int]
) -> None:
    """Opening and offline verification notice it and name the first bad record."""
    path = _segmented(tmp_path)
    seq = attack(path)

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert seq == caught.value.facts["seq"]


def test_swapped_closed_segments_are_detected(tmp_path: Path) -> None:
    """Two segments whose contents were exchanged are noticed."""
    path = _segmented(tmp_path)
    seq = _swap_two_closed(path)

    with pytest.raises(AuditTamperedError) as caught:
        verified(path)
    assert {"seq": seq, "reason": "sequence"} == caught.value.facts
    with pytest.raises(AuditTamperedError):
        open_log(path)


def test_an_edit_in_an_old_segment_is_found_offline(tmp_path: Path) -> None:
    """Offline verification reads every segment from the first record on."""
    path = _segmented(tmp_path)
    first = _closed(path)[0]
    lines = read_lines(first)
    lines[2] = lines[2].replace(b"alice", b"mally")
    write_lines(first, lines)

    with pytest.raises(AuditTamperedError) as caught:
        verified(path)
    assert {"seq": 2, "reason": "mac"} == caught.value.facts


def test_a_torn_closed_segment_is_refused(tmp_path: Path) -> None:
    """A segment is synced before it is closed, so a crash can't tear it."""
    path = _segmented(tmp_path)
    last = _closed(path)[-1]
    last.write_bytes(last.read_bytes()[:-1])
    seq = int(last.name[-16:]) + len(read_lines(last)) - 1

    for refuse in (open_log, verified, lambda path: verified(path, None)):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": seq, "reason": "torn"} == caught.value.facts


def test_a_torn_closed_segment_beyond_the_head_mark_is_refused(tmp_path: Path) -> None:
    """It can't be repaired either, whatever the mark says."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, segment_bytes=4096)
    fill(log, 1)
    head = path.with_name("audit.log.head").read_bytes()
    fill(log, 10)
    fill(log, 1)
    killed = copy_of(path, tmp_path / "killed")
    log.close()
    killed.with_name("audit.log.head").write_bytes(head)
    closed = _closed(killed)[0]
    closed.write_bytes(closed.read_bytes()[:-1])

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(killed)
        assert {"seq": 10, "reason": "torn"} == caught.value.facts


def test_a_segment_under_another_name_is_refused(tmp_path: Path) -> None:
    """The first seq in a name that is read must be that of the first record."""
    path = tmp_path / "log" / "audit.log"
    with opened(path, segment_bytes=4096) as log:
        log.append([intent("old")]).wait()
        fill(log, 40, one_by_one=True)
    second = _closed(path)[1]
    seq = int(second.name[-16:])
    second.rename(path.with_name(f"audit.log.00000002.{seq + 1:016d}"))

    with pytest.raises(AuditTamperedError) as caught:
        open_log(path)
    assert {"seq": seq, "reason": "segment"} == caught.value.facts


def test_a_dangling_link_is_no_segment(tmp_path: Path) -> None:
    """A segment that is a link to nowhere is missing."""
    path = _segmented(tmp_path)
    path.unlink()
    first = _closed(path)[0]
    first.unlink()
    first.symlink_to(tmp_path / "nowhere")

    with pytest.raises(AuditTamperedError) as caught:
        verified(path)
    assert {"seq": 0, "reason": "segment"} == caught.value.facts


def test_another_history_of_the_same_trail_is_refused(tmp_path: Path) -> None:
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

    for refuse in (open_log, verified):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(path)
        assert {"seq": 14, "reason": "mark"} == caught.value.facts


def test_a_forged_record_needs_every_field_under_the_mac(tmp_path: Path) -> None:
    """Changing any one field of an event breaks its MAC: actor and session too."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        log.append([draft(1), draft(2, phase=Phase.SINGLE)]).wait()
    lines = read_lines(path)
    event = _event(lines[0])

    for name in AuditEvent.__struct_fields__:
        old = getattr(event, name)
        new = old + 1 if isinstance(old, int) else _other(name, old)
        forged = msgspec.structs.replace(event, **{name: new})
        line = encoding.join(FRAME, encode_event(forged), _mac(lines[0]))
        write_lines(path, [line, lines[1]])
        with pytest.raises(AuditTamperedError) as caught:
            verified(path)
        assert {"seq": 0, "reason": "mac"} == caught.value.facts, name


def _other(name: str, old: object) -> object:
    others: dict[str, object] = {
        "phase": Phase.INTENT,
        "caller": AuditedCaller(principal="mallory"),
        "parameters": {"message_bytes": 99},
        "demands": (ApprovalDemand(rule="x"),),
        "approval_signatures": ("x",),
        "key": None,
        "detail": None,
    }
    if name in ("key", "detail"):
        return AuditedKey(algorithm="x") if name == "key" else MessageDetail(text="x")
    return others.get(name, f"{old}x")


def test_bounded_records_beyond_the_mark_survive_a_kill(tmp_path: Path) -> None:
    """Written records that no sync covered are followed and kept after a kill."""
    path = tmp_path / "log" / "audit.log"
    log = open_log(path, sync=AuditSync.BOUNDED)
    for number in range(100):
        log.append([draft(number)]).wait()
    killed = copy_of(path, tmp_path / "killed")
    log.close()

    assert 100 == verified(killed).records
    with opened(killed) as log:
        assert 100 == len(log.lines(0, 1000))

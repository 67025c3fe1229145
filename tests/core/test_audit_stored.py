# SPDX-License-Identifier: MIT
"""Reading a segment: its lines, how far it can be followed, and how it may end."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from hsm_core._internal.audit.chain import Chain, Follower, OpenIntents
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.record import (
    MAX_LINE_BYTES,
    claimed_seq,
    is_chain,
    leaf_hash,
)
from hsm_core._internal.audit.verify import follow
from hsm_core._internal.stores.filesystem import audit_stored
from hsm_core._internal.stores.filesystem.audit_files import open_reader
from hsm_core._internal.stores.filesystem.audit_segments import Segment
from hsm_core._internal.stores.filesystem.audit_stored import (
    StoredSegments,
    first_seq,
    last_line,
    nth_line,
)
from hsm_core.errors import AuditTamperedError
from tests.core.audit_support import KEY, draft, live_segment

LOG_ID = "00112233445566778899aabbccddeeff"
LONGEST = b"x" * MAX_LINE_BYTES
FORGED_END = b'","mac":"' + b"0" * 64 + b'"}'


def _lines(count: int = 6, log_id: str = LOG_ID) -> list[bytes]:
    """Return the first lines of a trail, each with its newline."""
    chain = Chain(
        log_id=log_id,
        hmac_key=KEY,
        node="node-1",
        mark=HeadMark(),
        intents=OpenIntents(),
    )
    return chain.extend([draft(number) for number in range(count)], 5)


LINES = _lines()


def _mark(seq: int, *, clean: bool = False) -> HeadMark:
    """Return the mark of a trail that was synced up to this record."""
    leaf = leaf_hash(LINES[seq][:-1])
    return HeadMark(seq=seq, leaf_hash=leaf, floor=seq + 1, clean=clean)


def _follower(mark: HeadMark | None = None) -> Follower:
    return Follower(log_id=LOG_ID, hmac_key=KEY, mark=mark)


def _reason(error: AuditTamperedError | None) -> tuple[object, object]:
    assert error is not None
    return error.facts["seq"], error.facts["reason"]


def _stored(content: bytes, mark: HeadMark | None) -> tuple[StoredSegments, Follower]:
    """Return a log whose only segment is live, followed to its end."""
    follower = _follower(mark)
    stored = live_segment(content, follower)
    follow(stored, follower, lambda event: None)
    return stored, follower


def _judged(content: bytes, mark: HeadMark | None) -> int:
    """Follow a live segment, and return how many of its bytes are torn."""
    return _stored(content, mark)[0].torn_bytes


def test_where_the_next_segment_begins_the_one_before_ends(tmp_path: Path) -> None:
    """What a closed segment holds from there on is not looked at, good or bad."""
    closed = Segment(tmp_path / "audit.log.00000001.0000000000000000", 1, 0)
    closed.path.write_bytes(b"".join(LINES[:3]) + b"no record\n")
    follower = _follower()
    stored = StoredSegments(
        [closed],
        Segment(tmp_path / "audit.log", 2, 0),
        BytesIO(b"".join(LINES[3:])),
        follower.codec,
        head=None,
        baseline=None,
        open_file=open_reader,
    )

    follow(stored, follower, lambda event: None)

    assert 5 == follower.seq
    assert (3, 3, sum(map(len, LINES[3:]))) == (
        stored.live.first_seq,
        stored.live.count,
        stored.live.size,
    )


@pytest.mark.parametrize("mark", [None, _mark(2), _mark(4)])
def test_a_whole_record_beyond_the_mark_may_lack_its_newline(
    mark: HeadMark | None,
) -> None:
    """A crash may come between the last byte of a record and its newline."""
    stored, follower = _stored(b"".join(LINES)[:-1], mark)

    assert 5 == follower.seq
    assert (sum(map(len, LINES)), True) == (stored.live.size, stored.unterminated)


def test_a_record_that_the_mark_knows_does_not_lack_its_newline() -> None:
    """What was synced was synced with its newline, so no crash has taken that."""
    follower = _follower(_mark(5))
    stored = live_segment(b"".join(LINES)[:-1], follower)

    with pytest.raises(AuditTamperedError) as caught:
        follow(stored, follower, lambda event: None)

    assert (5, "torn") == _reason(caught.value)
    assert (4, sum(map(len, LINES[:5]))) == (follower.seq, stored.live.size)


@pytest.mark.parametrize(
    ("end", "reason"), [(b"no record\n", "framing"), (b"no record", "torn")]
)
def test_what_is_no_record_is_named_for_what_it_is(end: bytes, reason: str) -> None:
    """A whole line has its own fault; one without newline may be the half of one."""
    with pytest.raises(AuditTamperedError) as caught:
        _stored(b"".join(LINES) + end, _mark(5, clean=True))

    assert (6, reason) == _reason(caught.value)


@pytest.mark.parametrize(
    ("kept", "tail", "mark", "torn"),
    [
        (6, b"", None, 0),
        (6, b"", _mark(5), 0),
        (6, b"", _mark(5, clean=True), 0),
        (6, b"", _mark(3), 0),
        (5, LINES[5][:-2], None, len(LINES[5]) - 2),
        (5, LINES[5][:-2], _mark(4), len(LINES[5]) - 2),
        (5, LINES[5][:-2], _mark(3), len(LINES[5]) - 2),
        (5, LINES[5].replace(b"alice", b"mally"), _mark(4), len(LINES[5])),
        (5, LINES[5][:90] + b"\n" + LINES[5][:90], _mark(4), 181),
    ],
)
def test_what_a_crash_may_leave(
    kept: int, tail: bytes, mark: HeadMark | None, torn: int
) -> None:
    """Beyond the mark a tail may be torn, unless the trail was closed in order."""
    assert torn == _judged(b"".join(LINES[:kept]) + tail, mark)


@pytest.mark.parametrize(
    ("kept", "tail", "mark", "bad", "reason"),
    [
        (5, b"", _mark(5), 5, "shorter"),
        (0, b"", _mark(2), 0, "shorter"),
        (5, b"", _mark(3, clean=True), 4, "after_clean"),
        (5, LINES[5][:-2], _mark(5), 5, "torn"),
        (5, LINES[5][:-2], _mark(4, clean=True), 5, "torn"),
        (5, b"no record\n", _mark(4, clean=True), 5, "framing"),
        (4, b"no record\n" + LINES[5], _mark(3), 4, "framing"),
        (4, LINES[4][:-1] + b" " + LINES[5], _mark(3), 4, "mac"),
        (4, LINES[4][:90] + LINES[5], _mark(3), 4, "mac"),
        (4, LINES[4][:90] + FORGED_END + LINES[5], None, 4, "mac"),
    ],
)
def test_what_no_crash_leaves(
    kept: int, tail: bytes, mark: HeadMark | None, bad: int, reason: str
) -> None:
    """What was synced or closed is whole, and no whole record lies in a torn tail."""
    with pytest.raises(AuditTamperedError) as caught:
        _judged(b"".join(LINES[:kept]) + tail, mark)
    assert (bad, reason) == _reason(caught.value)


def test_records_of_another_trail_are_nothing_but_bytes() -> None:
    """A tail that holds what others wrote is torn like any other."""
    others = b"".join(_lines(2, log_id="f" * 32))

    assert len(others) == _judged(b"".join(LINES) + others, _mark(5))


def test_a_tail_is_only_as_long_as_what_waits_to_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than can be on its way to the disk at one time was not torn by a crash."""
    monkeypatch.setattr(audit_stored, "MAX_TORN_BYTES", 1000)
    whole = b"".join(LINES)

    assert 1000 == _judged(whole + b"x" * 1000, _mark(5))
    with pytest.raises(AuditTamperedError) as caught:
        _judged(whole + b"x" * 1001, _mark(5))
    assert (6, "torn") == _reason(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", None),
        (b"one", None),
        (b"one\ntwo", None),
        (b"\n", b""),
        (b"one\n", b"one"),
        (b"one\ntwo\n", b"two"),
        (b"one\n\n", b""),
        (b"one\n" + LONGEST + b"\n", LONGEST),
        (LONGEST + b"\n", LONGEST),
        (b"y" * 100_000 + b"\n" + b"x" * 70_000 + b"\n", b"x" * 70_000),
        (b"y" * 200_000 + b"\ntwo\n", b"two"),
    ],
)
def test_the_last_line(content: bytes, line: bytes | None) -> None:
    """It is found from the end, however long it and the file are, if it is whole."""
    # No assertion shows a megabyte.
    assert (line == last_line(BytesIO(content))) is True


@pytest.mark.parametrize(
    ("place", "line"),
    [(-1, None), (0, b"one"), (1, LONGEST), (2, b"three"), (3, None), (4, None)],
)
def test_a_line_by_its_place(place: int, line: bytes | None) -> None:
    """Lines before it are passed over, the longest too; half a line is none."""
    file = BytesIO(b"one\n" + LONGEST + b"\nthree\nfour")
    file.seek(7)

    assert (line == nth_line(file, place)) is True


def test_no_line_is_longer_than_a_record() -> None:
    """What is longer is not there as a whole line."""
    assert nth_line(BytesIO(LONGEST + b"x\n"), 0) is None


def test_lines_lead_to_the_record_that_is_known() -> None:
    """Each of them is named by the one after it, and the last by its hash."""
    lines = [line[:-1] for line in LINES]
    leaf = leaf_hash(lines[-1])

    assert is_chain(lines, leaf)
    assert is_chain(lines[-1:], leaf)
    assert is_chain([], leaf)
    for wrong in (
        lines[:-1],
        [lines[0], *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
        [b"no record", *lines],
        [b"no record"],
    ):
        assert not is_chain(wrong, leaf)
    assert not is_chain([b"no record"], leaf_hash(b"no record"))


def test_what_a_line_says_of_its_place() -> None:
    """It is believed by nobody, and only of what has the form of a record."""
    forged = LINES[3][:-1].replace(b"alice", b"mally")

    assert [3, 3, None, None] == [
        claimed_seq(line)
        for line in (LINES[3][:-1], forged, LINES[3], b'{"event":{},"mac":""}')
    ]
    assert 3 == first_seq(BytesIO(LINES[3] + LINES[4]))
    assert first_seq(BytesIO(LINES[3][:-1])) is None


def test_a_lone_segment_begins_where_its_first_record_says() -> None:
    """It is believed if that is a record of the trail; else it begins elsewhere."""
    forged = LINES[3].replace(b"alice", b"mally")
    other = _lines(4, log_id="f" * 32)[3]

    assert 3 == live_segment(b"".join(LINES[3:]), _follower()).first_seq
    assert 0 == live_segment(LINES[0], _follower()).first_seq
    for content in (b"", forged, other, LINES[3][:-1], b"no record\n"):
        assert 0 == live_segment(content, _follower()).first_seq

# SPDX-License-Identifier: MIT
"""End of a live segment: what a crash may leave, and what it never leaves."""

from __future__ import annotations

import pytest

from hsm_core._internal.audit.chain import Chain, Follower
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.record import leaf_hash
from hsm_core._internal.audit.verify import follow
from hsm_core._internal.stores.filesystem import audit_stored
from hsm_core.errors import AuditTamperedError
from tests.core.audit_support import KEY, draft, live_segment

LOG_ID = "00112233445566778899aabbccddeeff"
FORGED_END = b'","mac":"' + b"0" * 64 + b'"}'


def _lines(count: int = 6, log_id: str = LOG_ID) -> list[bytes]:
    """Return the first lines of a trail, each with its newline."""
    chain = Chain(
        log_id=log_id,
        hmac_key=KEY,
        node="node-1",
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


def _judged(content: bytes, mark: HeadMark | None) -> int:
    """Follow a live segment, and return how many of its bytes are torn."""
    follower = _follower(mark)
    stored = live_segment(content, follower)
    follow(stored, follower, lambda event: None)
    return stored.torn_bytes


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


def test_a_lone_segment_begins_where_its_first_record_says() -> None:
    """It is believed if that is a record of the trail; else it begins elsewhere."""
    forged = LINES[3].replace(b"alice", b"mally")
    other = _lines(4, log_id="f" * 32)[3]

    assert 3 == live_segment(b"".join(LINES[3:]), _follower()).first_seq
    assert 0 == live_segment(LINES[0], _follower()).first_seq
    for content in (b"", forged, other, LINES[3][:-1], b"no record\n"):
        assert 0 == live_segment(content, _follower()).first_seq

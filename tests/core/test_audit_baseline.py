# SPDX-License-Identifier: MIT
"""Baseline of pruned records, the tree over them, and the rule that finds them."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.audit.baseline import (
    ACCEPTED,
    FORMAT,
    Baseline,
    BaselineHeader,
    KnownKeys,
    PrunedPrefix,
    check_baseline,
    encode_baseline,
    known_keys,
)
from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.pruning import IDLE, RetentionRule, WatchedClock
from hsm_core.errors import AuditTamperedError, MalformedError
from hsm_core.model import AuditEvent, KeyId, Phase, PruneDetail
from hsm_core.protocols import AuditDraft, KnownKey
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core.audit_support import stored

KEY = bytes(range(32))
LOG_ID = "00112233445566778899aabbccddeeff"
KEYS = [KnownKey(KeyId(f"key-{n}"), n + 1, f"{n:064x}") for n in range(3)]


def _header(keys: int, next_seq: int = 2, log_id: str = LOG_ID) -> BaselineHeader:
    return BaselineHeader(
        format=FORMAT,
        log_id=log_id,
        first_seq=0,
        next_seq=next_seq,
        last_leaf_hash="ab" * 32,
        roots=("cd" * 32,),
        policy="365 days",
        keys=keys,
        after_seq=7,
    )


def _entry(detail: PruneDetail) -> bytes:
    """Return the entry of a prune."""
    chain = Chain(
        log_id=LOG_ID, hmac_key=KEY, node="", random=FakeEntropy(0).random_bytes
    )
    draft = AuditDraft(phase=Phase.SINGLE, kind="system.prune", detail=detail)
    return stored(chain.extend([draft], 0)[1])


def _check(lines: list[bytes], key: bytes | None = KEY) -> Baseline:
    return check_baseline(lines, log_id=LOG_ID, hmac_key=key)


def test_every_change_of_a_byte_is_found() -> None:
    """No byte of a baseline can be changed, and none cut off its end."""
    content = b"".join(encode_baseline(_header(3), KEYS, KEY)[1])

    for position in range(len(content)):
        for changed in (
            content[:position],
            content[:position]
            + bytes([content[position] ^ 1])
            + content[position + 1 :],
        ):
            with pytest.raises(AuditTamperedError) as caught:
                _check(changed.splitlines(keepends=True))
            assert "baseline" == caught.value.facts["reason"]


def test_the_baseline_of_another_trail_or_key_is_refused() -> None:
    """A baseline is bound to the trail's id and to the HMAC key."""
    other = encode_baseline(_header(3, log_id="f" * 32), KEYS, KEY)[1]
    forged = encode_baseline(_header(3), KEYS, bytes(32))[1]

    for lines in (other, forged):
        with pytest.raises(AuditTamperedError):
            _check(lines)
    check_baseline(other, log_id="", hmac_key=KEY)


def test_a_line_more_or_less_is_found_without_the_key() -> None:
    """The header says how many keys there are."""
    lines = encode_baseline(_header(3), KEYS, KEY)[1]

    for changed in ([*lines[:1], *lines[2:]], [*lines, lines[-1]], [], lines[:1]):
        with pytest.raises(AuditTamperedError):
            _check(changed, None)


def test_keys_cut_short_after_the_check_are_not_taken_for_all() -> None:
    """A baseline that shrinks while it is read raises."""
    lines = encode_baseline(_header(3), KEYS, KEY)[1]

    for cut in (lines[:2], [], [lines[0], b"[]\n", *lines[2:]]):
        with pytest.raises(AuditTamperedError):
            list(known_keys(cut))


@pytest.mark.parametrize(("first", "bad"), [(1, 0), (3, 2)])
def test_records_that_no_prune_removed_are_missed(first: int, bad: int) -> None:
    """A trail that begins later than its baseline tells has lost records."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0] if bad else None

    with pytest.raises(AuditTamperedError) as caught:
        PrunedPrefix(first, baseline)
    assert {"seq": bad, "reason": "pruned"} == caught.value.facts


def test_a_destroyed_key_stays_destroyed() -> None:
    """Whatever older document of it is accepted, or that there is none any more."""
    key_id = KeyId("key-0")
    known = KnownKeys([KnownKey(key_id, 3, "cc", destroyed=True)])
    for generation, document in ((2, "bb"), (0, "")):
        known.note(
            AuditEvent(
                format=2,
                seq=generation,
                prev="0" * 64,
                time=0,
                phase=Phase.SINGLE,
                kind=ACCEPTED,
                code="ok",
                key_id=key_id,
                generation=generation,
                document_after=document,
            )
        )

        assert [KnownKey(key_id, generation, document, destroyed=True)] == [*known]


def test_a_trail_may_begin_where_a_baseline_tells_or_before() -> None:
    """The record before is the one pruned last, or what the first one names."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0]

    assert (1, "ab" * 32) == PrunedPrefix(2, baseline).start
    assert (0, "") == PrunedPrefix(1, baseline).start
    assert (-1, "0" * 64) == PrunedPrefix(0, baseline).start
    assert (-1, "0" * 64) == PrunedPrefix(0, None).start


def test_a_baseline_needs_the_record_of_its_prune() -> None:
    """A baseline that no record of the trail tells of is not believed."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0]
    other = encode_baseline(_header(3, next_seq=1), KEYS, KEY)[0]
    prefix = PrunedPrefix(2, baseline)
    prefix.visit(_entry(other.detail), 2, "ef" * 32)

    with pytest.raises(AuditTamperedError) as caught:
        prefix.finish()
    assert "pruned" == caught.value.facts["reason"]
    prefix.visit(_entry(baseline.detail), 3, "ef" * 32)
    prefix.finish()
    PrunedPrefix(0, None).finish()


def test_what_is_still_there_must_be_what_the_baseline_means() -> None:
    """After a removal that was interrupted, the last record to go is compared."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0]
    prefix = PrunedPrefix(0, baseline)
    prefix.visit(b"", 0, "ef" * 32)

    with pytest.raises(AuditTamperedError) as caught:
        prefix.visit(b"", 1, "ef" * 32)
    assert {"seq": 1, "reason": "baseline"} == caught.value.facts
    prefix.visit(b"", 1, "ab" * 32)


def _tree_hash(leaves: list[bytes]) -> bytes:
    """Return MTH(D[n]) by the very words of RFC 6962, section 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = _tree_hash(leaves[:split]), _tree_hash(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def _leaf_hash(leaf: bytes) -> str:
    return hashlib.sha256(b"\0" + leaf).hexdigest()


def _range_of(leaves: list[bytes]) -> CompactRange:
    found = CompactRange()
    for leaf in leaves:
        found.append(_leaf_hash(leaf))
    return found


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_roots_are_those_of_complete_subtrees(leaves: list[bytes]) -> None:
    """There is one for each bit of the size, from the largest subtree on."""
    expected, start = [], 0
    for bit in reversed(range(7)):
        if len(leaves) >> bit & 1:
            expected.append(_tree_hash(leaves[start : start + (1 << bit)]).hex())
            start += 1 << bit

    assert tuple(expected) == _range_of(leaves).roots


@pytest.mark.parametrize(
    ("size", "roots"),
    [
        (1, ()),
        (0, ("ab" * 32,)),
        (3, ("ab" * 32,)),
        (-1, ("ab" * 32,)),
        (1, ("ab" * 31,)),
        (1, ("AB" * 32,)),
        (1, ("g" * 64,)),
    ],
)
def test_roots_that_can_not_be_are_refused(size: int, roots: tuple[str, ...]) -> None:
    """There are as many roots as the size has bits set, each of 64 hex digits."""
    with pytest.raises(MalformedError):
        CompactRange(size, roots)


DAY = 24 * 3600 * 1_000_000
START = 1_750_000_000_000_000


class _Trail:
    """Times of records under a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.times: list[int] = []
        self.rule = self._opened()

    def _opened(self) -> RetentionRule:
        def read(seq: int, limit: int) -> list[int]:
            return self.times[seq : seq + limit]

        self.watched = WatchedClock(self.clock)
        return RetentionRule(self.watched, len(self.times) - 1, read)

    def record(self) -> None:
        """Write a record now."""
        self.times.append(self.watched.now())

    def days(self, count: int, per_day: int = 2) -> None:
        """Let days pass, with records on each of them."""
        for _ in range(count * per_day):
            self.clock.advance(24 * 3600 / per_day)
            self.record()

    def reopen(self) -> None:
        """Begin anew, with a monotonic clock that knows nothing."""
        self.clock = FakeClock(self.clock.now())
        self.rule = self._opened()

    def prunable(self, days: int) -> int:
        """Return how many records are older than so many days."""
        before = self.clock.now() - days * DAY
        head = len(self.times) - 1
        return self.rule.prunable(0, len(self.times), head, before)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("years", [1, 10])
def test_a_clock_that_steps_forwards_removes_nothing_early(
    years: int, restart: bool
) -> None:
    """After a step of years the records of the last weeks stay, also over a restart."""
    trail = _Trail()
    trail.days(20)
    trail.clock.step(years * 365 * 24 * 3600)
    if restart:
        trail.reopen()
    trail.days(5)

    assert 0 == trail.prunable(33)
    trail.reopen()
    trail.days(40)
    assert trail.prunable(33) > 0


def test_the_present_before_the_newest_record_removes_nothing() -> None:
    """A clock that stands before the newest record is wrong now or was wrong then."""
    trail = _Trail()
    trail.days(100)
    trail.clock.step(-2 * 24 * 3600)

    assert 0 == trail.prunable(30)
    trail.days(3)
    assert trail.prunable(30) > 0


def test_silence_before_the_trail_was_opened_counts_for_a_week() -> None:
    """A machine that was off for 60 days may have had a wrong clock instead."""
    trail = _Trail()
    trail.days(10)
    trail.clock.advance(60 * 24 * 3600)
    trail.reopen()
    trail.record()

    assert 0 == trail.prunable(30)
    trail.days(22)
    assert 17 == trail.prunable(30)


@pytest.mark.parametrize(("beyond", "gone"), [(0, 1), (1, 0)])
def test_a_week_of_silence_counts_to_the_microsecond(beyond: int, gone: int) -> None:
    """All of a week is believed, and of what is longer no more than the week."""
    opened = START + IDLE + beyond
    times = [START, opened, opened]
    rule = RetentionRule(
        WatchedClock(FakeClock(opened)), 0, lambda seq, limit: times[seq : seq + limit]
    )

    # By the time that it bears, the first record is older, if by a microsecond.
    assert gone == rule.prunable(0, 2, 2, START + 1)


def test_a_record_whose_time_went_back_goes_with_a_later_one() -> None:
    """A record that was written while the clock was behind is younger than it says."""
    trail = _Trail()
    trail.days(10)
    trail.clock.step(-5 * 24 * 3600)
    trail.clock.advance(3 * 24 * 3600)
    trail.record()
    trail.clock.step(5 * 24 * 3600)
    trail.days(1)
    trail.reopen()
    trail.days(27)

    assert 20 == trail.prunable(30)
    trail.days(4)
    assert 24 == trail.prunable(30)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_nothing_goes_before_its_time_has_passed(seed: int, days: int) -> None:
    """However clocks step, real age is the limit, but for a week a step at most."""
    generator = random.Random(seed)
    trail = _Trail()
    real, hidden, written = 0, 0, []
    for _ in range(generator.randrange(1, 60)):
        step = generator.choice([0, 0, 0, -5, 3, 400, -400, 3650]) * DAY
        passed = generator.choice([1, 3, 20]) * DAY
        trail.clock.step(step // 1_000_000)
        hidden += min(max(step, 0), IDLE)
        if generator.random() < 0.3:
            trail.reopen()
        trail.clock.advance(passed // 1_000_000)
        real += passed
        trail.record()
        written.append(real + hidden)
        gone = trail.prunable(days)
        assert all(real + hidden - then >= days * DAY for then in written[:gone])

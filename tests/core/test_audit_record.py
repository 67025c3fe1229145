"""Records and the head mark as bytes: one form only, and nothing else is read."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from hsm_core._internal.audit.chain import Chain, Follower, LogEnd
from hsm_core._internal.audit.facts import MAX_LINE_BYTES
from hsm_core._internal.audit.head_mark import HEAD_BYTES, HeadCodec, HeadMark
from hsm_core._internal.audit.keys import record_mac_function
from hsm_core._internal.audit.record import Entry, decode_entry, event_of, leaf_hash
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    InputSizeError,
    InvalidInputError,
)
from hsm_core.model import LogBegunDetail, Phase
from hsm_core.protocols import AuditDraft
from tests.core.audit_support import KEY, stored

LOG_ID = "00112233445566778899aabbccddeeff"
SAFE = 2**53 - 1


def _chain() -> Chain:
    return Chain(
        log_id=LOG_ID,
        hmac_key=KEY,
        node="node-1",
        random=os.urandom,
    )


def _payload(**fields: Any) -> bytes:
    """Return an entry up to its MAC."""
    given: dict[str, Any] = {
        "format": 2,
        "seq": "0" * 16,
        "prev": "0" * 64,
        "time": "0" * 15 + "1",
        "kind": "system.log-begun",
        "detail": LogBegunDetail(log_id=LOG_ID),
    }
    return msgspec.json.encode(Entry(**(given | fields)))[:-1]


def _authentic(payload: bytes) -> bytes:
    """Return a line with the right MAC, as only a holder of the key can make it."""
    mac = record_mac_function(KEY, LOG_ID)(payload).hex().encode()
    return b'%b,"mac":"%b"}' % (payload, mac)


GOOD = _payload(numbers=(1,), version=3)


@pytest.mark.parametrize(
    "payload",
    [
        GOOD.replace(b'"version":3', b'"version": 3'),
        GOOD.replace(b'"version":3', b'"version":3.0'),
        GOOD.replace(b'"version":3', b'"version":-3'),
        GOOD.replace(b'"version":3', b'"version":3e0'),
        GOOD.replace(b'"version":3', b'"version":4,"version":3'),
        GOOD.replace(b'"version":3', b'"version":9007199254740992'),
        GOOD.replace(b"[1]", b"[1.0]"),
        GOOD.replace(b"[1]", b"[null]"),
        GOOD.replace(b"[1]", b"[{}]"),
        GOOD.replace(b"[1]", b"[true]"),
        GOOD.replace(b"[1]", b"[9007199254740992]"),
        GOOD.replace(b"[1]", b"[-9007199254740992]"),
        GOOD.replace(b'"system.', b'"\\u0053ystem.'),
        GOOD.replace(b'"system.', b'"system\\/.'),
        GOOD.replace(b'"system.', b'"\\ud800.'),
        GOOD.replace(b'"system.', b'"\xff.'),
        GOOD.replace(b'"system.', b'"\xed\xa0\x80.'),
        GOOD.replace(b',"version":3', b',"phase":"other","version":3'),
        GOOD.replace(b',"version":3', b',"phase":"single","version":3'),
        GOOD.replace(b',"version":3', b',"generation":0,"version":3'),
        GOOD.replace(b',"version":3', b',"unknown":""'),
        GOOD.replace(b',"numbers":[1],"version":3', b',"version":3,"numbers":[1]'),
        GOOD.replace(b'"0000000000000001"', b'"9007199254740992"'),
        GOOD + b" ",
        GOOD[:-1],
    ],
)
def test_an_authentic_record_in_another_form_is_refused(payload: bytes) -> None:
    """There is one form of an entry, even for a holder of the key."""
    assert payload != GOOD
    follower = Follower(log_id=LOG_ID, hmac_key=KEY)

    with pytest.raises(AuditTamperedError) as caught:
        follower.follow(_authentic(payload))
    assert {"seq": 0, "reason": "event"} == caught.value.facts
    assert decode_entry(_authentic(payload)) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"detail": LogBegunDetail(log_id="f" * 32)}, "log_id"),
        ({"kind": "Sign"}, "log_id"),
        ({"facts": "f" * 64}, "facts"),
        ({"seq": "0" * 15 + "1"}, "sequence"),
        ({"prev": "1" * 64}, "chain"),
    ],
)
def test_an_authentic_record_in_the_wrong_place_is_refused(
    fields: dict[str, object], reason: str
) -> None:
    """Each fact that binds a record to its place is checked by itself."""
    follower = Follower(log_id=LOG_ID, hmac_key=KEY)

    with pytest.raises(AuditTamperedError) as caught:
        follower.follow(_authentic(_payload(**fields)))
    assert {"seq": 0, "reason": reason} == caught.value.facts


@pytest.mark.parametrize("log_id", ["", "0" * 31, "0" * 33, "G" * 32, "F" * 32])
def test_a_log_id_is_32_lower_case_hex_digits(log_id: str) -> None:
    """A trail whose id is taken from its first record is not fooled by its form."""
    line = _authentic(_payload(detail=LogBegunDetail(log_id=log_id)))

    with pytest.raises(AuditTamperedError) as caught:
        Follower(log_id=None, hmac_key=KEY).follow(line)
    assert {"seq": 0, "reason": "log_id"} == caught.value.facts


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": Phase.INTENT},
        {"version": SAFE + 1},
        {"version": -1},
        {"generation": SAFE + 1},
        {"generation": -1},
        {"set_digest": "1" * 129},
        {"set_digest": "\N{SNOWMAN}"},
        {"kind": "\ud800"},
        {"parameters": {"bytes": SAFE + 1}},
        {"parameters": {"bytes": -SAFE - 1}},
        {"parameters": {"is": True}},
        {"parameters": {"part": 0.5}},
        {"parameters": {"texts": ["a", 1]}},
        {"parameters": {"good": "a", "bad": None}},
    ],
)
def test_what_no_reader_would_accept_is_not_written(fields: dict[str, Any]) -> None:
    """Of drafts with one that can't be recorded none is, and the trail goes on."""
    chain = _chain()
    good = AuditDraft(phase=Phase.SINGLE, kind="Sign", set_digest="11")
    bad = AuditDraft(**({"phase": Phase.SINGLE, "kind": "Sign"} | fields))

    with pytest.raises(InvalidInputError):
        chain.extend([good, bad], 0)
    assert HeadMark() == chain.end.mark
    assert 2 == len(chain.extend([good], 0))


def test_no_record_is_longer_than_a_line_may_be() -> None:
    """The longest that is accepted makes a line that is read; one byte more none."""
    empty = stored(_chain().extend([AuditDraft(phase=Phase.SINGLE, kind="")], 0)[1])
    room = MAX_LINE_BYTES - len(empty)

    draft = AuditDraft(phase=Phase.SINGLE, kind="x" * room)
    begun, line = map(stored, _chain().extend([draft], 0))
    assert len(line) == MAX_LINE_BYTES
    follower = Follower(log_id=LOG_ID, hmac_key=KEY)
    follower.follow(begun)
    follower.follow(line)
    with pytest.raises(InputSizeError):
        _chain().extend([AuditDraft(phase=Phase.SINGLE, kind="x" * (room + 1))], 0)
    rule = "x" * MAX_LINE_BYTES
    with pytest.raises(InputSizeError):
        _chain().extend([AuditDraft(phase=Phase.SINGLE, kind="Sign", rule=rule)], 0)


@pytest.mark.parametrize(("now", "time"), [(-5, 0), (SAFE + 5, SAFE)])
def test_no_clock_stops_the_trail(now: int, time: int) -> None:
    """A time that can't be recorded becomes the nearest that can."""
    line, _ = _chain().extend([AuditDraft(phase=Phase.SINGLE, kind="Sign")], now)

    assert time == Follower(log_id=LOG_ID, hmac_key=KEY).follow(stored(line)).time


def test_nothing_follows_a_log_that_was_closed_for_good() -> None:
    """Nobody writes there, and who reads refuses what stands behind the end."""
    chain = _chain()
    begun, closed = chain.extend([AuditDraft.system("system.log-closed")], 0)
    with pytest.raises(AuditUnavailableError):
        chain.extend([AuditDraft.system("system.start")], 0)
    chain.end = LogEnd(chain.end.mark)
    (behind,) = chain.extend([AuditDraft.system("system.start")], 0)
    follower = Follower(log_id=LOG_ID, hmac_key=KEY)
    for line in (begun, closed):
        follower.follow(stored(line))

    with pytest.raises(AuditTamperedError) as caught:
        follower.follow(stored(behind))
    assert {"seq": 2, "reason": "after_close"} == caught.value.facts


def test_who_opens_a_log_goes_on_with_the_mark_of_who_wrote_it() -> None:
    """Floor, open intents and set digest are found again from the records."""
    chain, end = _chain(), LogEnd()
    found = []
    for phase, operation_id, set_digest in (
        (Phase.INTENT, "a", ""),
        (Phase.SINGLE, "", "11"),
        (Phase.INTENT, "b", ""),
        (Phase.INTENT, "a", "22"),
        (Phase.OUTCOME, "a", ""),
        (Phase.INTENT, "c", ""),
        (Phase.OUTCOME, "b", "33"),
    ):
        draft = AuditDraft(
            phase=phase, kind="k", operation_id=operation_id, set_digest=set_digest
        )
        *begun, line = map(stored, chain.extend([draft], 0))
        seq = end.mark.seq + 1 + len(begun)
        end = end.after(event_of(line, seq), seq, leaf_hash(line))
        assert chain.end.mark == end.mark
        names = "".join(event.operation_id for event in end.open_events())
        found.append((names, end.mark.floor, end.mark.set_digest))

    assert [
        *(("a", 1, ""), ("a", 1, "11"), ("ab", 1, "11"), ("ab", 1, "22")),
        *(("b", 3, "22"), ("bc", 3, "22"), ("c", 6, "33")),
    ] == found


OLDER = HeadMark(seq=5, leaf_hash="ab" * 32, floor=6, set_digest="11")
NEWEST = HeadMark(seq=7, leaf_hash="cd" * 32, floor=3, clean=True, set_digest="22")


def _head_file(key: bytes = KEY, log_id: str = LOG_ID) -> bytes:
    """Return a file with two marks, the newest in the first slot."""
    codec = HeadCodec(key, log_id)
    content = bytearray(codec.new_file())
    for counter, mark in ((3, OLDER), (4, NEWEST)):
        offset, slot = codec.slot(counter, mark)
        content[offset : offset + len(slot)] = slot
    return bytes(content)


def _told(content: bytes) -> object:
    """Return the mark that a file tells, or why it is not believed."""
    try:
        return HeadCodec.read(content, KEY).mark
    except AuditTamperedError as error:
        return error.facts["seq"], error.facts["reason"]


DAMAGED = (0, "head_damaged")


def test_no_byte_of_a_head_file_can_become_another_one() -> None:
    """A slot that is not whole does not count; all else must be as it was written."""
    content, told = _head_file(), []
    for position in range(HEAD_BYTES):
        changed = bytearray(content)
        changed[position] ^= 0x10
        told.append(_told(bytes(changed)))

    assert NEWEST == _told(content)
    assert {DAMAGED} == set(told[:512])
    # Body, MAC and padding of the newest slot.
    assert {OLDER} == set(told[512:1024])
    assert {NEWEST} == set(told[1024:])


def test_a_slot_of_a_head_file_counts_in_its_own_place_only() -> None:
    """Marks that change places, or stand there twice, were moved by somebody else."""
    content = _head_file()
    header, first, second = content[:512], content[512:1024], content[1024:]

    assert DAMAGED == _told(header + second + first)
    assert DAMAGED == _told(header + second + bytes(512))
    assert NEWEST == HeadCodec.read(header + first + first, KEY).mark


def test_a_newer_format_of_a_head_file_is_not_taken_for_damage() -> None:
    """Who has gone back to an older release is told to use the newer one."""
    content = _head_file()

    assert (0, "format") == _told(content.replace(b"head 1\n", b"head 2\n"))
    assert DAMAGED == _told(content.replace(b"head 1\n", b"head 0\n"))

# SPDX-License-Identifier: MIT
"""The head file: nobody without the key can make it say what it never said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_core._internal.audit.head_mark import HEAD_BYTES, HeadCodec, HeadMark
from hsm_core.errors import AuditTamperedError, WrongAuditKeyError
from tests.core.audit_support import KEY, fill, open_log, opened, verified

LOG_ID = "00112233445566778899aabbccddeeff"
OLDER = HeadMark(seq=5, leaf_hash="ab" * 32, floor=6, set_digest="11")
NEWEST = HeadMark(seq=7, leaf_hash="cd" * 32, floor=3, clean=True, set_digest="22")


def _content(key: bytes = KEY, log_id: str = LOG_ID) -> bytes:
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


def test_no_byte_of_it_can_become_another_one() -> None:
    """A slot that is not whole does not count; all else must be as it was written."""
    content, told = _content(), []
    for position in range(HEAD_BYTES):
        changed = bytearray(content)
        changed[position] ^= 0x10
        told.append(_told(bytes(changed)))

    assert NEWEST == _told(content)
    assert {DAMAGED} == set(told[:512])
    # Body, MAC and padding of the newest slot.
    assert {OLDER} == set(told[512:1024])
    assert {NEWEST} == set(told[1024:])


@pytest.mark.parametrize("offset", [512 + 300, 1024 + 300])
def test_a_changed_padding_byte_stops_no_start(tmp_path: Path, offset: int) -> None:
    """In neither slot: the other one is whole. In both, the file is damaged."""
    path = tmp_path / "log" / "audit.log"
    with opened(path) as log:
        fill(log, 3)
    head = path.with_name("audit.log.head")
    content = bytearray(head.read_bytes())
    content[offset] ^= 1
    head.write_bytes(content)

    with opened(path) as log:
        fill(log, 3)
    assert verified(path).clean
    content[512 + 300] = content[1024 + 300] = 1
    head.write_bytes(content)
    with pytest.raises(AuditTamperedError, match="head mark was altered"):
        open_log(path)


def test_it_has_one_length() -> None:
    """What was cut or lengthened is damaged."""
    content = _content()

    for wrong in (b"", content[:16], content[:-1], content + b"\0"):
        assert DAMAGED == _told(wrong)


def test_another_key_is_not_taken_for_damage() -> None:
    """Nor is another trail's head under our own key taken for a wrong key."""
    with pytest.raises(WrongAuditKeyError):
        HeadCodec.read(_content(bytes(32)), KEY)
    moved = bytearray(_content())
    moved[16:32] = bytes(16)

    assert DAMAGED == _told(bytes(moved))
    assert "f" * 32 == HeadCodec.read(_content(log_id="f" * 32), KEY).log_id


def test_without_a_slot_that_is_whole_it_tells_nothing() -> None:
    """No crash spoils both, for they are written in turn."""
    assert DAMAGED == _told(_content()[:512] + bytes(1024))


def test_a_slot_counts_in_its_own_place_only() -> None:
    """Marks that change places, or stand there twice, were moved by somebody else."""
    content = _content()
    header, first, second = content[:512], content[512:1024], content[1024:]

    assert DAMAGED == _told(header + second + first)
    assert DAMAGED == _told(header + second + bytes(512))
    assert NEWEST == HeadCodec.read(header + first + first, KEY).mark


def test_a_newer_format_is_not_taken_for_damage() -> None:
    """Who has gone back to an older release is told to use the newer one."""
    content = _content()

    assert (0, "format") == _told(content.replace(b"head 1\n", b"head 2\n"))
    assert DAMAGED == _told(content.replace(b"head 1\n", b"head 0\n"))

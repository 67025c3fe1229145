# SPDX-License-Identifier: MIT
"""MACs, and frames of records: what is one, byte by byte."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from hsm_core._internal.lib.encoding import join, mac_function, split
from hsm_core.errors import MalformedError


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128])
def test_keys_about_a_block_of_the_hash(length: int) -> None:
    """A MAC is HMAC-SHA-256 under a key of any length."""
    key = b"k" * length

    right = hmac.new(key, b"data", hashlib.sha256).digest()
    assert right == mac_function(key)(b"data")


def test_empty_payload() -> None:
    """A frame round nothing is refused."""
    with pytest.raises(MalformedError):
        split(b"key", join(b"key", b"", bytes(32)))


@pytest.mark.parametrize("place", [0, 31, 63])
def test_a_mac_is_written_in_one_way(place: int) -> None:
    """A framed MAC has 64 lower-case hex digits, and no other byte in their place."""
    framed = join(b"key", b"{}", b"\xab" * 32)
    at = len(framed) - 66 + place

    def is_framed(byte: int) -> bool:
        try:
            split(b"key", framed[:at] + bytes([byte]) + framed[at + 1 :])
        except MalformedError:
            return False
        return True

    assert b"0123456789abcdef" == bytes(b for b in range(256) if is_framed(b))
    assert (b"{}", b"\xab" * 32) == split(b"key", framed)

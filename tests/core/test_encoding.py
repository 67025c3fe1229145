# SPDX-License-Identifier: MIT
"""Tests of canonical bytes, key derivation and the framing of records."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.lib.encoding import (
    check,
    hkdf_sha256,
    join,
    length_prefixed,
    mac_function,
    split,
)
from hsm_core.errors import MalformedError

PARTS = st.lists(st.binary(max_size=12), max_size=6)


class TestLengthPrefixed:
    @given(PARTS, PARTS)
    def test_injective(self, one: list[bytes], other: list[bytes]) -> None:
        """
        Two lists give the same bytes only if they are the same list.
        """
        assert (one == other) == (length_prefixed(*one) == length_prefixed(*other))

    @given(PARTS)
    def test_can_be_read_back(self, parts: list[bytes]) -> None:
        """
        The lengths cut the bytes into the parts again, with nothing left.
        """
        joined, found = length_prefixed(*parts), []
        while joined:
            end = 8 + int.from_bytes(joined[:8], "big")
            found.append(joined[8:end])
            joined = joined[end:]

        assert parts == found

    def test_boundaries_move(self) -> None:
        """
        A byte that moves from one part to the next changes the result.
        """
        assert length_prefixed(b"ab", b"c") != length_prefixed(b"a", b"bc")
        assert length_prefixed(b"", b"") != length_prefixed(b"")


# RFC 5869, appendix A, test cases 1 to 3.
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        "34007208d5b887185865",
    ),
    (
        bytes(range(0x00, 0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
        "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
        "cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        "9d201395faa4b61a96c8",
    ),
]


class TestHKDF:
    @pytest.mark.parametrize(("key", "salt", "info", "length", "output"), RFC_5869)
    def test_rfc_5869(
        self, key: str, salt: str, info: str, length: int, output: str
    ) -> None:
        """
        The published vectors for SHA-256 come out.
        """
        derived = hkdf_sha256(
            bytes.fromhex(key),
            salt=bytes.fromhex(salt),
            info=bytes.fromhex(info),
            length=length,
        )

        assert output == derived.hex()

    @pytest.mark.parametrize("length", [1, 31, 32, 33, 8160])
    def test_lengths(self, length: int) -> None:
        """
        Any length up to 255 blocks is a prefix of the longest.
        """
        longest = hkdf_sha256(b"key", salt=b"salt", info=b"info", length=8160)

        derived = hkdf_sha256(b"key", salt=b"salt", info=b"info", length=length)

        assert longest[:length] == derived


class TestMacFunction:
    @given(st.binary(max_size=200), st.binary(max_size=300))
    def test_equals_standard_library(self, key: bytes, data: bytes) -> None:
        """
        The pre-keyed form gives what ``hmac`` gives, for keys of any length.
        """
        assert hmac.digest(key, data, "sha256") == mac_function(key)(data)

    @pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128])
    def test_block_boundaries(self, length: int) -> None:
        """
        Keys about the block length of SHA-256 are padded or hashed as they must be.
        """
        key = b"k" * length

        assert hmac.new(key, b"data", hashlib.sha256).digest() == mac_function(key)(
            b"data"
        )

    def test_calls_are_independent(self) -> None:
        """
        One call leaves nothing behind for the next.
        """
        mac = mac_function(b"key")
        first = mac(b"data")
        mac(b"other")

        assert first == mac(b"data")


class TestEnvelope:
    MAC = staticmethod(mac_function(b"key"))

    def framed(self, payload: bytes = b'{"a":1}') -> bytes:
        """Return a payload in its frame."""
        return join(b"key", payload, self.MAC(payload))

    @given(st.binary(min_size=1, max_size=60))
    def test_round_trip(self, payload: bytes) -> None:
        """
        Any payload, even one that looks like a frame, comes back as it was.
        """
        framed = join(b"key", payload, self.MAC(payload))

        assert payload == check(b"key", framed, self.MAC)

    def test_every_single_byte_change(self) -> None:
        """
        No byte of a frame can become another one unnoticed.
        """
        whole = self.framed()
        accepted = []
        for position in range(len(whole)):
            for value in range(256):
                changed = bytearray(whole)
                changed[position] = value
                if changed == whole:
                    continue
                try:
                    if check(b"key", bytes(changed), self.MAC) is not None:
                        accepted.append((position, value))
                except MalformedError:
                    pass

        assert [] == accepted

    def test_every_truncation_and_extension(self) -> None:
        """
        A frame with bytes missing, or one too many, is refused.
        """
        whole = self.framed()
        wrong = [whole[:n] for n in range(len(whole))]
        wrong += [whole[n:] for n in range(1, len(whole))]
        wrong += [whole + b" ", whole + b"\n", b" " + whole]
        accepted = []
        for framed in wrong:
            try:
                if check(b"key", framed, self.MAC) is not None:
                    accepted.append(framed)
            except MalformedError:
                pass

        assert [] == accepted

    def test_upper_case_mac(self) -> None:
        """
        A MAC has one spelling.
        """
        start, mac = self.framed()[:-66], self.framed()[-66:]

        with pytest.raises(MalformedError):
            split(b"key", start + mac.upper())

    def test_empty_payload(self) -> None:
        """
        A frame round nothing is refused.
        """
        with pytest.raises(MalformedError):
            split(b"key", join(b"key", b"", bytes(32)))

    def test_another_name(self) -> None:
        """
        A record of one kind is not one of another kind.
        """
        with pytest.raises(MalformedError):
            split(b"event", self.framed())


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

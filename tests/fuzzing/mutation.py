# SPDX-License-Identifier: MIT
"""Inputs made from those that a parser takes, by a seed: quick, and blind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

_ODD: Final = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b'"\xff":1,',
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"[" * 40,
    b'{"a":' * 40,
    b"\xc1",
    b"\x91" * 40,
    b"\n",
    b"%00",
    b"%s",
)
"""Pieces that parsers stumble over: numbers, ends, depths, what is no UTF-8."""


def mutants(seeds: Sequence[bytes], count: int, longest: int) -> Iterator[bytes]:
    """Give so many inputs, always the same ones for the same seeds."""
    chance = random.Random(len(seeds))
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            _change(data, seeds, chance)
        yield bytes(data[:longest])


def _change(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    match chance.randrange(7):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at % len(data)] = chance.randrange(256)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * chance.choice((1, 2, 9))
        case 4:
            data[at:end] = chance.choice(_ODD)
        case 5:
            data[at:at] = chance.choice(_ODD)
        case _:
            other = chance.choice(seeds)
            begin = chance.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + chance.choice((4, 32, 256))]

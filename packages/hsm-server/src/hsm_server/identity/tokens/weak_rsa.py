# SPDX-License-Identifier: MIT
"""
Check for weak RSA keys of a faulty generator (ROCA, CVE-2017-15361).

Their primes are ``k * M + 65537^a mod M``, with M the product of small primes. So such
a modulus is a power of 65537 modulo each of these; a random one is so once in some
hundred million times.
"""

from __future__ import annotations

from functools import cache
from typing import Final

_GENERATOR: Final = 65537
_PRIMES: Final = tuple(
    p for p in range(3, 168) if all(p % d for d in range(2, int(p**0.5) + 1))
)


@cache
def _powers(prime: int) -> frozenset[int]:
    """Return the powers of the generator by a prime."""
    found, power = set[int](), 1
    while power not in found:
        found.add(power)
        power = power * _GENERATOR % prime
    return frozenset(found)


def is_predictable(modulus: int) -> bool:
    """Return whether a modulus looks as if it were made that way."""
    return all(modulus % prime in _powers(prime) for prime in _PRIMES)

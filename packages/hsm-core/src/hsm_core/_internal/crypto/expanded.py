# SPDX-License-Identifier: MIT
"""
Private keys of ML-KEM and ML-DSA as PKCS#8, of which only the seed is used.

Some programs write the expanded key too, or it alone. The seed is the key. An expanded
key beside it must be the seed's in every byte; no seed can be found from one alone.

No provider of every machine expands a seed, so it is expanded here, whichever provider
serves the algorithm. Nothing is ever computed with the result but a comparison.

Standard:
    RFC 9881, section 8.2, and its like in RFC 9935: a seed and an expanded key that
    don't belong together must be refused. FIPS 203, algorithms 13 and 16; FIPS 204,
    algorithm 6.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from hsm_core._internal.crypto.der import PrivateForm, bad_material, read_private_form
from hsm_core.algorithms import Algorithm, Family, spec

_N: Final = 256
_D: Final = 13
"""Bits of t that the public key leaves out (FIPS 204, table 1)."""


def _zetas(root: int, modulus: int, bits: int) -> tuple[int, ...]:
    """Return powers of a root of unity, their exponents with the bits reversed."""
    exponents = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return tuple(pow(root, exponent, modulus) for exponent in exponents)


class _Ring(msgspec.Struct, frozen=True):
    """Polynomials of degree 255 modulo *modulus*, transformed down to *last*."""

    modulus: int
    zetas: tuple[int, ...]
    last: int

    def transformed(self, polynomial: Sequence[int]) -> list[int]:
        """Return the NTT (FIPS 203, algorithm 9; FIPS 204, algorithm 41)."""
        values, used, length = list(polynomial), iter(self.zetas[1:]), _N // 2
        while length >= self.last:
            for start in range(0, _N, 2 * length):
                zeta = next(used)
                for j in range(start, start + length):
                    turned = zeta * values[j + length]
                    values[j + length] = (values[j] - turned) % self.modulus
                    values[j] = (values[j] + turned) % self.modulus
            length //= 2
        return values

    def restored(self, transformed: Sequence[int]) -> list[int]:
        """Return what was transformed (FIPS 204, algorithm 42)."""
        values, used, length = list(transformed), iter(self.zetas[:0:-1]), self.last
        while length < _N:
            for start in range(0, _N, 2 * length):
                zeta = next(used)
                for j in range(start, start + length):
                    above = values[j + length]
                    values[j + length] = zeta * (above - values[j]) % self.modulus
                    values[j] = (values[j] + above) % self.modulus
            length *= 2
        scale = pow(_N // self.last, -1, self.modulus)
        return [value * scale % self.modulus for value in values]


_KEM: Final = _Ring(3329, _zetas(17, 3329, 7), 2)
_DSA: Final = _Ring(8380417, _zetas(1753, 8380417, 8), 1)


def read_seeded_form(algorithm: Algorithm, material: bytes) -> PrivateForm:
    """
    Return seed and expanded key of PKCS#8 from elsewhere, not compared yet.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or has no seed.
    """
    form = read_private_form(algorithm, material)
    if not form.seed:
        raise bad_material(
            algorithm,
            "holds the expanded key without its seed; export it with the seed",
        )
    return form


def read_seed(
    algorithm: Algorithm,
    material: bytes,
    public_of: Callable[[bytes], bytes],
    *,
    trusted: bool,
) -> bytes:
    """
    Return the seed of PKCS#8.

    Args:
        algorithm: An ML-KEM or ML-DSA algorithm.

        material: PKCS#8, DER: the seed, alone or beside the expanded key.

        public_of: Gives the raw public key of a seed, as the provider makes it.

        trusted: It is our own, of which the seed alone is kept.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, has no seed, or its
            expanded key is not the seed's in every byte.
    """
    form = read_seeded_form(algorithm, material)
    if form.expanded and trusted:
        raise bad_material(algorithm, "holds more than the seed")
    if form.expanded:
        own = expand(algorithm, form.seed, public_of(form.seed))
        if not hmac.compare_digest(own, form.expanded):
            raise bad_material(
                algorithm, "holds an expanded key that does not match its seed"
            )
    return form.seed


def seed_bytes(algorithm: Algorithm) -> int:
    """
    Return the length of the seed that a key is made from.

    Standard:
        FIPS 203, algorithm 16 (d ‖ z); FIPS 204, algorithm 6 (ξ); FIPS 205, algorithm
        18 (SK.seed ‖ SK.prf ‖ PK.seed).
    """
    row = spec(algorithm)
    whole = row.private_bytes
    return whole // 4 * 3 if row.family is Family.SLH_DSA else whole


def expand(algorithm: Algorithm, seed: bytes, raw_public: bytes) -> bytes:
    """
    Return the expanded private key of a seed.

    Args:
        algorithm: An ML-KEM or ML-DSA algorithm.

        seed: d ‖ z of ML-KEM, 64 bytes; ξ of ML-DSA, 32 bytes.

        raw_public: Its public key.

    Standard:
        FIPS 203, algorithm 16: dkPKE ‖ ek ‖ H(ek) ‖ z. FIPS 204, algorithm 24:
        rho ‖ K ‖ tr ‖ s1 ‖ s2 ‖ t0.
    """
    if spec(algorithm).family is Family.ML_KEM:
        own_hash = hashlib.sha3_256(raw_public).digest()
        return _kem_secret(algorithm, seed[:32]) + raw_public + own_hash + seed[32:]
    return _dsa_private(algorithm, seed, raw_public)


def _kem_secret(algorithm: Algorithm, d: bytes) -> bytes:
    """Return dkPKE of FIPS 203, algorithm 13: the secret vector, transformed."""
    k, eta = spec(algorithm).lattice
    sigma = hashlib.sha3_512(d + bytes([k])).digest()[32:]
    encoded = []
    for i in range(k):
        drawn = hashlib.shake_256(sigma + bytes([i])).digest(64 * eta)
        bits = f"{int.from_bytes(drawn, 'little'):0{512 * eta}b}"[::-1]
        secret = [
            bits.count("1", at, at + eta) - bits.count("1", at + eta, at + 2 * eta)
            for at in range(0, len(bits), 2 * eta)
        ]
        encoded.append(_packed(_KEM.transformed(secret), 12))
    return b"".join(encoded)


def _dsa_private(algorithm: Algorithm, seed: bytes, raw_public: bytes) -> bytes:
    rows, columns, eta = spec(algorithm).lattice
    drawn = hashlib.shake_256(seed + bytes([rows, columns])).digest(128)
    rho, rho_prime, key = drawn[:32], drawn[32:96], drawn[96:]
    short = [
        _bounded(rho_prime + i.to_bytes(2, "little"), eta)
        for i in range(rows + columns)
    ]
    first = [_DSA.transformed(polynomial) for polynomial in short[:columns]]
    low = []
    for row in range(rows):
        total = [0] * _N
        for column in range(columns):
            uniform = _uniform(rho + bytes([column, row]))
            pairs = zip(total, uniform, first[column], strict=True)
            total = [so_far + a * b for so_far, a, b in pairs]
        t = zip(_DSA.restored(total), short[columns + row], strict=True)
        low.append([_low_bits((a + b) % _DSA.modulus) for a, b in t])
    width = (2 * eta).bit_length()
    return b"".join(
        (
            *(rho, key, hashlib.shake_256(raw_public).digest(64)),
            *(_packed([eta - value for value in one], width) for one in short),
            *(_packed([(1 << _D - 1) - value for value in one], _D) for one in low),
        )
    )


def _low_bits(value: int) -> int:
    """Return r0 of FIPS 204, algorithm 35: the value modulo 2¹³, about zero."""
    low = value % (1 << _D)
    return low - (1 << _D) if low > 1 << _D - 1 else low


def _uniform(seed: bytes) -> list[int]:
    """Return a polynomial by rejection (FIPS 204, algorithm 30)."""

    def drawn() -> Iterator[int]:
        # Of 400 draws fewer than 256 are below the modulus once in 2^1000.
        stream = hashlib.shake_128(seed).digest(3 * 400)
        for at in range(0, len(stream), 3):
            yield int.from_bytes(stream[at : at + 3], "little") & 0x7FFFFF

    return [value for value in drawn() if value < _DSA.modulus][:_N]


def _bounded(seed: bytes, eta: int) -> list[int]:
    """Return a short polynomial by rejection (FIPS 204, algorithms 15 and 31)."""
    limit, turn = (15, 5) if eta == 2 else (9, 16)
    # Of 1,600 halves of bytes fewer than 256 are below the limit once in 2^600.
    stream = hashlib.shake_256(seed).digest(800)
    halves = (half for byte in stream for half in (byte & 15, byte >> 4))
    return [eta - half % turn for half in halves if half < limit][:_N]


def _packed(values: Sequence[int], width: int) -> bytes:
    """Return numbers of *width* bits each, the lowest bit first."""
    total = sum(value << width * i for i, value in enumerate(values))
    return total.to_bytes(width * len(values) // 8, "little")


_PART_BYTES: Final = 32


def expanded_alone(algorithm: Algorithm, material: bytes) -> bytes:
    """
    Return the key of our own material that was made without a seed; else nothing.

    Its public part is that of `encapsulation_key`.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or the public part is
            not the one that the key names.
    """
    if not spec(algorithm).exists_without_seed:
        return b""
    form = read_private_form(algorithm, material)
    if form.seed:
        return b""
    encapsulation_key(algorithm, form.expanded)
    return form.expanded


def encapsulation_key(algorithm: Algorithm, expanded: bytes) -> bytes:
    """
    Return the public key inside an expanded key, whose own hash of it is checked.

    Args:
        algorithm: What it is a key of.

        expanded: As long as the algorithm's expanded keys.

    Raises:
        InvalidInputError: The hash is another one (FIPS 203, section 7.3, check 3).
    """
    end = len(expanded) - 2 * _PART_BYTES
    public = expanded[end - spec(algorithm).public_bytes : end]
    own_hash = expanded[end : end + _PART_BYTES]
    if not hmac.compare_digest(hashlib.sha3_256(public).digest(), own_hash):
        raise bad_material(
            algorithm, "holds a public key that does not match its private key"
        )
    return public

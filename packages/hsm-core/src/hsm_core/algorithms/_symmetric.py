# SPDX-License-Identifier: MIT
"""Rows of the algorithms with a secret key alone."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms import _usages as usages
from hsm_core.algorithms.names import Algorithm, Family, HashAlgorithm, KeyUsage
from hsm_core.algorithms.specs import AlgorithmSpec

__all__ = [
    "CIPHERS",
    "KEY_DERIVATIONS",
    "KEY_WRAPS",
    "MACS",
]

_GCM_LIMIT: Final = 9 * 2**32 // 10
"""Encryptions per key with random 96-bit nonces, a tenth below SP 800-38D, 8.3."""


def _aead(
    algorithm: Algorithm, standard: str, category: int, key_bytes: int, *aliases: str
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.AEAD,
        standard=standard,
        category=category,
        strength_bits=8 * key_bytes,
        usages=usages.CRYPT,
        default_usages=usages.CRYPT,
        key_bytes=key_bytes,
        use_limit=_GCM_LIMIT,
        aliases=aliases,
    )


def _hmac(algorithm: Algorithm, size: int, *aliases: str) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.MAC,
        hashes=(HashAlgorithm(algorithm.value.removeprefix("HMAC-")),),
        standard="FIPS 198-1, FIPS 180-4",
        category=5,
        strength_bits=8 * size,
        usages=frozenset({KeyUsage.MAC}),
        default_usages=frozenset({KeyUsage.MAC}),
        key_bytes=size,
        mac_bytes=size,
        aliases=aliases,
    )


def _key_wrap(
    algorithm: Algorithm, category: int, key_bytes: int, *aliases: str
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.KEY_WRAP,
        standard="SP 800-38F (RFC 3394, RFC 5649)",
        category=category,
        strength_bits=8 * key_bytes,
        usages=usages.WRAP,
        default_usages=usages.WRAP,
        key_bytes=key_bytes,
        aliases=aliases,
    )


def _hkdf(algorithm: Algorithm, hashed: HashAlgorithm, *aliases: str) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.KDF,
        standard="SP 800-56C, RFC 5869",
        category=5,
        strength_bits=8 * hashed.digest_bytes,
        usages=usages.DERIVE,
        default_usages=usages.DERIVE,
        hashes=(hashed,),
        key_bytes=hashed.digest_bytes,
        aliases=aliases,
    )


CIPHERS: Final = (
    _aead(
        Algorithm.AES_256_GCM,
        "FIPS 197, SP 800-38D",
        5,
        32,
        *("aes256gcm", "aes-256-gcm", "aes"),
    ),
    _aead(Algorithm.AES_128_GCM, "FIPS 197, SP 800-38D", 1, 16, "aes128gcm"),
    _aead(
        Algorithm.CHACHA20_POLY1305,
        "RFC 8439",
        5,
        32,
        *("chacha20poly1305", "chacha20", "chachapoly"),
    ),
)

MACS: Final = (
    _hmac(Algorithm.HMAC_SHA_256, 32, "hmacsha256", "hmac-sha256", "hs256"),
    _hmac(Algorithm.HMAC_SHA_384, 48, "hmacsha384", "hmac-sha384", "hs384"),
    _hmac(Algorithm.HMAC_SHA_512, 64, "hmacsha512", "hmac-sha512", "hs512"),
)

KEY_WRAPS: Final = (
    _key_wrap(
        Algorithm.AES_256_KW, 5, 32, "aes256kw", "aes-256-kwp", "aes-kw", "aes-kwp"
    ),
    _key_wrap(Algorithm.AES_128_KW, 1, 16, "aes128kw", "aes-128-kwp"),
)

KEY_DERIVATIONS: Final = (
    _hkdf(Algorithm.HKDF_SHA_256, HashAlgorithm.SHA_256, "hkdf", "hkdf-sha256"),
    _hkdf(Algorithm.HKDF_SHA_384, HashAlgorithm.SHA_384, "hkdf-sha384"),
    _hkdf(Algorithm.HKDF_SHA_512, HashAlgorithm.SHA_512, "hkdf-sha512"),
)

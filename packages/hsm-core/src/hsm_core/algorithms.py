# SPDX-License-Identifier: MIT
"""
The table of algorithms: one row per algorithm, with its standard, sizes and usages.

Names are those of the standards. Look-up ignores case and accepts the short
spellings that users of the original know (``aes256gcm``, ``rsa2048``, ``p256`` …).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hsm_core.errors import UnknownAlgorithmError

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AlgorithmSpec",
    "CiphertextEncoding",
    "Cost",
    "Family",
    "HashAlgorithm",
    "KeyUsage",
    "SignatureEncoding",
    "SignatureScheme",
    "parse_algorithm",
    "spec",
]


class Algorithm(StrEnum):
    """Every algorithm a key can have; the value is its canonical name."""

    AES_256_GCM = "AES-256-GCM"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    EC_P256 = "EC-P256"
    EC_P384 = "EC-P384"
    EC_P521 = "EC-P521"
    ED25519 = "Ed25519"
    HMAC_SHA_256 = "HMAC-SHA-256"


class Family(StrEnum):
    """Algorithms that share their operations and parameters."""

    AEAD = "AEAD"
    RSA = "RSA"
    ECDSA = "ECDSA"
    EDDSA = "EdDSA"
    MAC = "MAC"


class KeyUsage(StrEnum):
    """What a key may be used for; enforced at every use."""

    SIGN = "sign"
    VERIFY = "verify"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    WRAP = "wrap"
    UNWRAP = "unwrap"
    ENCAPSULATE = "encapsulate"
    DECAPSULATE = "decapsulate"
    DERIVE = "derive"
    MAC = "mac"


class HashAlgorithm(StrEnum):
    """SHA-2 hashes (FIPS 180-4)."""

    SHA_256 = "SHA-256"
    SHA_384 = "SHA-384"
    SHA_512 = "SHA-512"

    @property
    def digest_bytes(self) -> int:
        """Length of a digest, in bytes."""
        return int(self.value[-3:]) // 8


class SignatureScheme(StrEnum):
    """How a signature is made."""

    RSASSA_PSS = "RSASSA-PSS"
    RSASSA_PKCS1_V1_5 = "RSASSA-PKCS1-v1_5"
    ECDSA = "ECDSA"
    EDDSA = "EdDSA"


class SignatureEncoding(StrEnum):
    """
    How an ECDSA signature is written down.

    ``der`` is the SEQUENCE of RFC 3279; ``p1363`` is r ‖ s at fixed length, which JWS
    uses (RFC 7518, section 3.4). Other schemes have one encoding only.
    """

    DER = "der"
    P1363 = "p1363"


class CiphertextEncoding(StrEnum):
    """``envelope`` names key and version; ``raw`` is RSAES-OAEP's bare output."""

    ENVELOPE = "envelope"
    RAW = "raw"


class Cost(StrEnum):
    """Where work of this size runs: at once, or on the bounded pool."""

    QUICK = "quick"
    SLOW = "slow"


_SIGN = frozenset({KeyUsage.SIGN, KeyUsage.VERIFY})
_CRYPT = frozenset({KeyUsage.ENCRYPT, KeyUsage.DECRYPT})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """
    One row of the table.

    Attributes:
        standard: Documents that define it.
        category: Security category 1, 3 or 5 of NIST's post-quantum call, 0 for
            public-key algorithms that a quantum computer would break.
        strength_bits: Classical security strength (SP 800-57 part 1, table 2).
        usages: Every usage a key of this algorithm may be given.
        default_usages: What a key gets when its creator names none.
        schemes: Signature schemes, the default first.
        hashes: Hashes to sign with, the default first.
        verify_hashes: Hashes to verify with.
        modulus_bits: Length of an RSA modulus, else 0.
        coordinate_bytes: Length of r and of s, else 0.
        key_bytes: Length of a symmetric key, else 0.
        mac_bytes: Length of a MAC, else 0.
        generate_cost: Cost class of making a key.
        use_cost: Cost class of a private-key operation.
        aliases: Other spellings accepted as input, lower case.
    """

    algorithm: Algorithm
    family: Family
    standard: str
    category: int
    strength_bits: int
    usages: frozenset[KeyUsage]
    default_usages: frozenset[KeyUsage]
    schemes: tuple[SignatureScheme, ...] = ()
    hashes: tuple[HashAlgorithm, ...] = ()
    verify_hashes: tuple[HashAlgorithm, ...] = ()
    modulus_bits: int = 0
    coordinate_bytes: int = 0
    key_bytes: int = 0
    mac_bytes: int = 0
    generate_cost: Cost = Cost.QUICK
    use_cost: Cost = Cost.QUICK
    aliases: tuple[str, ...] = field(default=())

    @property
    def is_asymmetric(self) -> bool:
        """Whether a public key exists."""
        return self.family in {Family.RSA, Family.ECDSA, Family.EDDSA}


_SHA2 = (HashAlgorithm.SHA_256, HashAlgorithm.SHA_384, HashAlgorithm.SHA_512)


def _rsa(
    algorithm: Algorithm, bits: int, strength: int, *aliases: str
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.RSA,
        standard="FIPS 186-5, RFC 8017",
        category=0,
        strength_bits=strength,
        usages=_SIGN | _CRYPT,
        default_usages=_SIGN,
        schemes=(SignatureScheme.RSASSA_PSS, SignatureScheme.RSASSA_PKCS1_V1_5),
        hashes=_SHA2,
        verify_hashes=_SHA2,
        modulus_bits=bits,
        generate_cost=Cost.SLOW,
        aliases=(f"rsa{bits}", f"rsa{bits}", *aliases),
    )


def _ecdsa(
    algorithm: Algorithm,
    strength: int,
    coordinate_bytes: int,
    paired: HashAlgorithm,
    *aliases: str,
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ECDSA,
        standard="FIPS 186-5, SP 800-186",
        category=0,
        strength_bits=strength,
        usages=_SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.ECDSA,),
        hashes=(paired,),
        verify_hashes=_SHA2,
        coordinate_bytes=coordinate_bytes,
        aliases=aliases,
    )


_ROWS: Final = (
    AlgorithmSpec(
        algorithm=Algorithm.AES_256_GCM,
        family=Family.AEAD,
        standard="FIPS 197, SP 800-38D",
        category=5,
        strength_bits=256,
        usages=_CRYPT,
        default_usages=_CRYPT,
        key_bytes=32,
        aliases=("aes256gcm", "aes-256-gcm", "aes"),
    ),
    _rsa(Algorithm.RSA_2048, 2048, 112, "rsa"),
    _rsa(Algorithm.RSA_3072, 3072, 128),
    _rsa(Algorithm.RSA_4096, 4096, 152),
    _ecdsa(
        Algorithm.EC_P256,
        128,
        32,
        HashAlgorithm.SHA_256,
        "p256",
        "p-256",
        "secp256r1",
        "nistp256",
        "prime256v1",
    ),
    _ecdsa(
        Algorithm.EC_P384,
        192,
        48,
        HashAlgorithm.SHA_384,
        "p384",
        "p-384",
        "secp384r1",
        "nistp384",
    ),
    _ecdsa(
        Algorithm.EC_P521,
        256,
        66,
        HashAlgorithm.SHA_512,
        "p521",
        "p-521",
        "secp521r1",
        "nistp521",
    ),
    AlgorithmSpec(
        algorithm=Algorithm.ED25519,
        family=Family.EDDSA,
        standard="FIPS 186-5, RFC 8032",
        category=0,
        strength_bits=128,
        usages=_SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.EDDSA,),
        aliases=("eddsa", "ed-25519"),
    ),
    AlgorithmSpec(
        algorithm=Algorithm.HMAC_SHA_256,
        family=Family.MAC,
        standard="FIPS 198-1, FIPS 180-4",
        category=5,
        strength_bits=256,
        usages=frozenset({KeyUsage.MAC}),
        default_usages=frozenset({KeyUsage.MAC}),
        key_bytes=32,
        mac_bytes=32,
        aliases=("hmacsha256", "hmac-sha256", "hs256"),
    ),
)

ALGORITHMS: Final = {row.algorithm: row for row in _ROWS}
"""Every row by its algorithm, in the order that lists are shown in."""

_BY_NAME: Final = {
    name: row.algorithm
    for row in _ROWS
    for name in (row.algorithm.value.lower(), *row.aliases)
}


def spec(algorithm: Algorithm) -> AlgorithmSpec:
    """Return the row of an algorithm."""
    return ALGORITHMS[algorithm]


def parse_algorithm(name: str) -> Algorithm:
    """
    Return the algorithm that a name stands for, in any case and accepted spelling.

    Raises:
        UnknownAlgorithmError: No row has this name; the message lists those that are.

    Example:
        >>> parse_algorithm("secp256r1").value
        'EC-P256'
    """
    try:
        return _BY_NAME[name.lower()]
    except KeyError:
        known = ", ".join(ALGORITHMS)
        raise UnknownAlgorithmError(
            f"algorithm {name[:64]!r} is not known; there are {known}.",
            field="algorithm",
        ) from None

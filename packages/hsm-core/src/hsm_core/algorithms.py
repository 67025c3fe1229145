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
    "KeyFormat",
    "KeyUsage",
    "SignatureEncoding",
    "SignatureScheme",
    "WrapMechanism",
    "parse_algorithm",
    "spec",
]


class Algorithm(StrEnum):
    """Every algorithm a key can have; the value is its canonical name."""

    AES_256_GCM = "AES-256-GCM"
    AES_128_GCM = "AES-128-GCM"
    CHACHA20_POLY1305 = "ChaCha20-Poly1305"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    EC_P256 = "EC-P256"
    EC_P384 = "EC-P384"
    EC_P521 = "EC-P521"
    ED25519 = "Ed25519"
    ED448 = "Ed448"
    X25519 = "X25519"
    HMAC_SHA_256 = "HMAC-SHA-256"
    HMAC_SHA_384 = "HMAC-SHA-384"
    HMAC_SHA_512 = "HMAC-SHA-512"
    AES_256_KW = "AES-256-KW"
    AES_128_KW = "AES-128-KW"
    HKDF_SHA_256 = "HKDF-SHA-256"
    HKDF_SHA_384 = "HKDF-SHA-384"
    HKDF_SHA_512 = "HKDF-SHA-512"
    ML_KEM_512 = "ML-KEM-512"
    ML_KEM_768 = "ML-KEM-768"
    ML_KEM_1024 = "ML-KEM-1024"
    ML_DSA_44 = "ML-DSA-44"
    ML_DSA_65 = "ML-DSA-65"
    ML_DSA_87 = "ML-DSA-87"
    SLH_DSA_SHA2_128S = "SLH-DSA-SHA2-128s"
    SLH_DSA_SHA2_128F = "SLH-DSA-SHA2-128f"
    SLH_DSA_SHA2_192S = "SLH-DSA-SHA2-192s"
    SLH_DSA_SHA2_192F = "SLH-DSA-SHA2-192f"
    SLH_DSA_SHA2_256S = "SLH-DSA-SHA2-256s"
    SLH_DSA_SHA2_256F = "SLH-DSA-SHA2-256f"
    SLH_DSA_SHAKE_128S = "SLH-DSA-SHAKE-128s"
    SLH_DSA_SHAKE_128F = "SLH-DSA-SHAKE-128f"
    SLH_DSA_SHAKE_192S = "SLH-DSA-SHAKE-192s"
    SLH_DSA_SHAKE_192F = "SLH-DSA-SHAKE-192f"
    SLH_DSA_SHAKE_256S = "SLH-DSA-SHAKE-256s"
    SLH_DSA_SHAKE_256F = "SLH-DSA-SHAKE-256f"
    MLKEM768_ECDH_P256_SHA3_256 = "MLKEM768-ECDH-P256-SHA3-256"
    MLKEM1024_ECDH_P384_SHA3_256 = "MLKEM1024-ECDH-P384-SHA3-256"
    MLKEM768_X25519_SHA3_256 = "MLKEM768-X25519-SHA3-256"
    MLDSA44_ECDSA_P256_SHA256 = "MLDSA44-ECDSA-P256-SHA256"
    MLDSA65_ECDSA_P256_SHA512 = "MLDSA65-ECDSA-P256-SHA512"
    MLDSA87_ECDSA_P384_SHA512 = "MLDSA87-ECDSA-P384-SHA512"
    MLDSA65_ED25519_SHA512 = "MLDSA65-Ed25519-SHA512"


class Family(StrEnum):
    """Algorithms that share their operations and parameters."""

    AEAD = "AEAD"
    RSA = "RSA"
    ECDSA = "ECDSA"
    EDDSA = "EdDSA"
    ECDH = "ECDH"
    MAC = "MAC"
    KEY_WRAP = "AES-KW"
    KDF = "HKDF"
    ML_KEM = "ML-KEM"
    ML_DSA = "ML-DSA"
    SLH_DSA = "SLH-DSA"
    COMPOSITE_KEM = "Composite ML-KEM"
    COMPOSITE_SIGNATURE = "Composite ML-DSA"


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
    ML_DSA = "ML-DSA"
    SLH_DSA = "SLH-DSA"
    COMPOSITE_ML_DSA = "Composite-ML-DSA"


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


class KeyFormat(StrEnum):
    """
    How the private form of a key is written down.

    ``pkcs8`` is OneAsymmetricKey, DER, not encrypted (RFC 5958); ``seed`` the bare seed
    of ML-KEM (64 bytes, d ‖ z) or ML-DSA (32 bytes); ``raw`` the bare symmetric key.
    """

    PKCS8 = "pkcs8"
    SEED = "seed"
    RAW = "raw"


class WrapMechanism(StrEnum):
    """
    How a key is wrapped for transport.

    ``AES-KW`` and ``AES-KWP`` are those of SP 800-38F (RFC 3394, RFC 5649).
    ``RSA-OAEP+AES-KWP`` is PKCS#11's CKM_RSA_AES_KEY_WRAP. ``KEM+AES-KWP`` is the same
    with a key that ML-KEM or a composite of it encapsulates.
    """

    AES_KW = "AES-KW"
    AES_KWP = "AES-KWP"
    RSA_OAEP_AES_KWP = "RSA-OAEP+AES-KWP"
    KEM_AES_KWP = "KEM+AES-KWP"


class Cost(StrEnum):
    """Where work of this size runs: at once, or on the bounded pool."""

    QUICK = "quick"
    SLOW = "slow"


_SIGN = frozenset({KeyUsage.SIGN, KeyUsage.VERIFY})
_CRYPT = frozenset({KeyUsage.ENCRYPT, KeyUsage.DECRYPT})
_WRAP = frozenset({KeyUsage.WRAP, KeyUsage.UNWRAP})
_DERIVE = frozenset({KeyUsage.DERIVE})
_ENCAPSULATE = frozenset({KeyUsage.ENCAPSULATE, KeyUsage.DECAPSULATE})

_QUANTUM_SAFE = frozenset(
    {
        Family.ML_KEM,
        Family.ML_DSA,
        Family.SLH_DSA,
        Family.COMPOSITE_KEM,
        Family.COMPOSITE_SIGNATURE,
    }
)
_COMPOSITE = frozenset({Family.COMPOSITE_KEM, Family.COMPOSITE_SIGNATURE})
_SYMMETRIC = frozenset({Family.AEAD, Family.MAC, Family.KEY_WRAP, Family.KDF})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmSpec:
    """
    One row of the table. Sizes are in bytes, and 0 where there is no such thing.

    Attributes:
        standard: Documents that define it.
        category: Security category 1, 2, 3 or 5 of NIST's post-quantum call, 0 for
            public-key algorithms that a quantum computer would break.
        strength_bits: Classical security strength (SP 800-57 part 1, table 2).
        usages: Every usage a key of this algorithm may be given.
        default_usages: What a key gets when its creator names none.
        schemes: Signature schemes, the default first.
        hashes: Hashes to sign with, the default first; for a composite its pre-hash.
        verify_hashes: Hashes to verify with.
        modulus_bits: Length of an RSA modulus, else 0.
        coordinate_bytes: Length of r and of s, else 0.
        key_bytes: Length of a symmetric key.
        mac_bytes: Length of a MAC.
        public_bytes: Length of the raw public key, where it is fixed.
        private_bytes: Length of the raw private key that is kept: for ML-KEM, ML-DSA
            and Edwards and Montgomery curves the seed.
        signature_bytes: Length of the longest signature.
        ciphertext_bytes: Length of an encapsulation.
        shared_secret_bytes: Length of what is encapsulated.
        max_context_bytes: Longest context to sign with.
        takes_mu: Whether the external representative mu (FIPS 204, section 6.2, line
            6 of algorithm 7) can be signed instead of a message.
        oid: Object identifier in SubjectPublicKeyInfo, where it is the algorithm's own.
        label: Label of a composite, as its draft says.
        components: Algorithms of a composite, the post-quantum one first.
        draft: Draft that defines a composite, with revision; kept in every such key.
        use_limit: How often one key's material may protect something (SP 800-38D,
            section 8.3); 0 means that there is no such limit.
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
    public_bytes: int = 0
    private_bytes: int = 0
    signature_bytes: int = 0
    ciphertext_bytes: int = 0
    shared_secret_bytes: int = 0
    max_context_bytes: int = 0
    takes_mu: bool = False
    oid: str = ""
    label: bytes = b""
    components: tuple[Algorithm, ...] = ()
    draft: str = ""
    use_limit: int = 0
    generate_cost: Cost = Cost.QUICK
    use_cost: Cost = Cost.QUICK
    aliases: tuple[str, ...] = field(default=())

    @property
    def is_asymmetric(self) -> bool:
        """Whether a public key exists."""
        return self.family not in _SYMMETRIC

    @property
    def is_pqc(self) -> bool:
        """Whether it is a post-quantum algorithm, alone or in a hybrid."""
        return self.family in _QUANTUM_SAFE

    @property
    def is_hybrid(self) -> bool:
        """Whether it joins a post-quantum and a traditional algorithm (RFC 9794)."""
        return self.family in _COMPOSITE

    @property
    def is_kem(self) -> bool:
        """Whether it is a key-encapsulation mechanism."""
        return bool(self.ciphertext_bytes)

    @property
    def is_signature(self) -> bool:
        """Whether it makes signatures."""
        return bool(self.schemes)


_SHA2 = (HashAlgorithm.SHA_256, HashAlgorithm.SHA_384, HashAlgorithm.SHA_512)
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
        usages=_CRYPT,
        default_usages=_CRYPT,
        key_bytes=key_bytes,
        use_limit=_GCM_LIMIT,
        aliases=aliases,
    )


def _rsa(
    algorithm: Algorithm, bits: int, strength: int, *aliases: str
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.RSA,
        standard="FIPS 186-5, RFC 8017",
        category=0,
        strength_bits=strength,
        usages=_SIGN | _CRYPT | _WRAP,
        default_usages=_SIGN,
        schemes=(SignatureScheme.RSASSA_PSS, SignatureScheme.RSASSA_PKCS1_V1_5),
        hashes=_SHA2,
        verify_hashes=_SHA2,
        modulus_bits=bits,
        signature_bytes=bits // 8,
        generate_cost=Cost.SLOW,
        aliases=(f"rsa{bits}", *aliases),
    )


def _ecdsa(
    algorithm: Algorithm,
    strength: int,
    coordinate_bytes: int,
    paired: HashAlgorithm,
    *aliases: str,
    derives: bool = True,
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ECDSA,
        standard="FIPS 186-5, SP 800-186" + (", SP 800-56A (ECDH)" if derives else ""),
        category=0,
        strength_bits=strength,
        usages=_SIGN | _DERIVE if derives else _SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.ECDSA,),
        hashes=(paired,),
        verify_hashes=_SHA2,
        coordinate_bytes=coordinate_bytes,
        public_bytes=1 + 2 * coordinate_bytes,
        private_bytes=coordinate_bytes,
        # SEQUENCE of two INTEGERs with a leading zero each; two-byte lengths from 128.
        signature_bytes=2 * (coordinate_bytes + 3)
        + (3 if coordinate_bytes > 61 else 2),
        shared_secret_bytes=coordinate_bytes if derives else 0,
        aliases=aliases,
    )


def _eddsa(
    algorithm: Algorithm,
    strength: int,
    key_bytes: int,
    oid: str,
    *aliases: str,
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.EDDSA,
        standard="FIPS 186-5, RFC 8032",
        category=0,
        strength_bits=strength,
        usages=_SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.EDDSA,),
        public_bytes=key_bytes,
        private_bytes=key_bytes,
        signature_bytes=2 * key_bytes,
        oid=oid,
        aliases=aliases,
    )


def _hmac(algorithm: Algorithm, size: int, *aliases: str) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.MAC,
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
        usages=_WRAP,
        default_usages=_WRAP,
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
        usages=_DERIVE,
        default_usages=_DERIVE,
        hashes=(hashed,),
        key_bytes=hashed.digest_bytes,
        aliases=aliases,
    )


_KEM_USAGES = _ENCAPSULATE | _CRYPT | _WRAP


def _ml_kem(
    algorithm: Algorithm,
    category: int,
    public_bytes: int,
    ciphertext_bytes: int,
    oid_arc: int,
) -> AlgorithmSpec:
    short = algorithm.value.rpartition("-")[2]
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ML_KEM,
        standard="FIPS 203, RFC 9935",
        category=category,
        strength_bits=_STRENGTH[category],
        usages=_KEM_USAGES,
        default_usages=_ENCAPSULATE | _CRYPT,
        public_bytes=public_bytes,
        private_bytes=64,
        ciphertext_bytes=ciphertext_bytes,
        shared_secret_bytes=32,
        oid=f"2.16.840.1.101.3.4.4.{oid_arc}",
        aliases=(f"mlkem{short}", f"mlkem-{short}", f"ml-kem{short}"),
    )


def _ml_dsa(
    algorithm: Algorithm,
    category: int,
    public_bytes: int,
    signature_bytes: int,
    oid_arc: int,
) -> AlgorithmSpec:
    short = algorithm.value.rpartition("-")[2]
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ML_DSA,
        standard="FIPS 204, RFC 9881",
        category=category,
        strength_bits=_STRENGTH[category],
        usages=_SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.ML_DSA,),
        public_bytes=public_bytes,
        private_bytes=32,
        signature_bytes=signature_bytes,
        max_context_bytes=255,
        takes_mu=True,
        oid=f"2.16.840.1.101.3.4.3.{oid_arc}",
        aliases=(f"mldsa{short}", f"mldsa-{short}", f"ml-dsa{short}"),
    )


def _slh_dsa(
    algorithm: Algorithm, category: int, signature_bytes: int, oid_arc: int
) -> AlgorithmSpec:
    n = {1: 16, 3: 24, 5: 32}[category]
    _, _, hashed, parameters = algorithm.value.lower().split("-")
    short = (f"slhdsa{parameters}", f"slh-dsa-{parameters}") if hashed == "sha2" else ()
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.SLH_DSA,
        standard="FIPS 205, RFC 9909",
        category=category,
        strength_bits=_STRENGTH[category],
        usages=_SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.SLH_DSA,),
        public_bytes=2 * n,
        private_bytes=4 * n,
        signature_bytes=signature_bytes,
        max_context_bytes=255,
        oid=f"2.16.840.1.101.3.4.3.{oid_arc}",
        generate_cost=Cost.SLOW,
        use_cost=Cost.SLOW,
        aliases=(
            f"slhdsa-{hashed}-{parameters}",
            f"slhdsa{hashed}{parameters}",
            *short,
        ),
    )


def _composite_kem(
    algorithm: Algorithm,
    components: tuple[Algorithm, Algorithm],
    traditional: tuple[int, int, int],
    label: bytes,
    oid_arc: int,
    *aliases: str,
) -> AlgorithmSpec:
    """Build a row; *traditional* is strength, public key and private key length."""
    kem, public_bytes, private_bytes = _ROW_OF[components[0]], *traditional[1:]
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.COMPOSITE_KEM,
        standard=f"{_KEM_DRAFT}; FIPS 203",
        category=kem.category,
        strength_bits=traditional[0],
        usages=_KEM_USAGES,
        default_usages=_ENCAPSULATE | _CRYPT,
        public_bytes=kem.public_bytes + public_bytes,
        private_bytes=kem.private_bytes + private_bytes,
        ciphertext_bytes=kem.ciphertext_bytes + public_bytes,
        shared_secret_bytes=32,
        oid=f"{_COMPOSITE_ARC}.{oid_arc}",
        label=label,
        components=components,
        draft=_KEM_DRAFT,
        aliases=aliases,
    )


def _composite_signature(
    algorithm: Algorithm,
    components: tuple[Algorithm, Algorithm],
    private_bytes: int,
    hashed: HashAlgorithm,
    oid_arc: int,
    *aliases: str,
) -> AlgorithmSpec:
    quantum_safe, traditional = (_ROW_OF[component] for component in components)
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.COMPOSITE_SIGNATURE,
        standard=f"{_SIGNATURE_DRAFT}; FIPS 204",
        category=quantum_safe.category,
        strength_bits=traditional.strength_bits,
        usages=_SIGN,
        default_usages=_SIGN,
        schemes=(SignatureScheme.COMPOSITE_ML_DSA,),
        hashes=(hashed,),
        verify_hashes=(hashed,),
        public_bytes=quantum_safe.public_bytes + traditional.public_bytes,
        private_bytes=quantum_safe.private_bytes + private_bytes,
        signature_bytes=quantum_safe.signature_bytes + traditional.signature_bytes,
        max_context_bytes=255,
        oid=f"{_COMPOSITE_ARC}.{oid_arc}",
        label=f"COMPSIG-{algorithm}".encode(),
        components=components,
        draft=_SIGNATURE_DRAFT,
        aliases=aliases,
    )


_STRENGTH: Final = {1: 128, 2: 128, 3: 192, 5: 256}
_COMPOSITE_ARC: Final = "1.3.6.1.5.5.7.6"
_KEM_DRAFT: Final = "draft-ietf-lamps-pq-composite-kem-18"
_SIGNATURE_DRAFT: Final = "draft-ietf-lamps-pq-composite-sigs-19"

_CLASSICAL: Final = (
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
    _rsa(Algorithm.RSA_2048, 2048, 112, "rsa"),
    _rsa(Algorithm.RSA_3072, 3072, 128),
    _rsa(Algorithm.RSA_4096, 4096, 152),
    _ecdsa(
        Algorithm.EC_P256,
        128,
        32,
        HashAlgorithm.SHA_256,
        *("p256", "p-256", "secp256r1", "nistp256", "prime256v1"),
    ),
    _ecdsa(
        Algorithm.EC_P384,
        192,
        48,
        HashAlgorithm.SHA_384,
        *("p384", "p-384", "secp384r1", "nistp384"),
    ),
    _ecdsa(
        Algorithm.EC_P521,
        256,
        66,
        HashAlgorithm.SHA_512,
        *("p521", "p-521", "secp521r1", "nistp521"),
        derives=False,
    ),
    _eddsa(Algorithm.ED25519, 128, 32, "1.3.101.112", "eddsa", "ed-25519"),
    _eddsa(Algorithm.ED448, 224, 57, "1.3.101.113", "ed-448"),
    AlgorithmSpec(
        algorithm=Algorithm.X25519,
        family=Family.ECDH,
        standard="RFC 7748, SP 800-186",
        category=0,
        strength_bits=128,
        usages=_DERIVE,
        default_usages=_DERIVE,
        public_bytes=32,
        private_bytes=32,
        shared_secret_bytes=32,
        oid="1.3.101.110",
        aliases=("x-25519", "curve25519"),
    ),
    _hmac(Algorithm.HMAC_SHA_256, 32, "hmacsha256", "hmac-sha256", "hs256"),
    _hmac(Algorithm.HMAC_SHA_384, 48, "hmacsha384", "hmac-sha384", "hs384"),
    _hmac(Algorithm.HMAC_SHA_512, 64, "hmacsha512", "hmac-sha512", "hs512"),
    _key_wrap(
        Algorithm.AES_256_KW, 5, 32, "aes256kw", "aes-256-kwp", "aes-kw", "aes-kwp"
    ),
    _key_wrap(Algorithm.AES_128_KW, 1, 16, "aes128kw", "aes-128-kwp"),
    _hkdf(Algorithm.HKDF_SHA_256, HashAlgorithm.SHA_256, "hkdf", "hkdf-sha256"),
    _hkdf(Algorithm.HKDF_SHA_384, HashAlgorithm.SHA_384, "hkdf-sha384"),
    _hkdf(Algorithm.HKDF_SHA_512, HashAlgorithm.SHA_512, "hkdf-sha512"),
)

_QUANTUM_SAFE_ALONE: Final = (
    _ml_kem(Algorithm.ML_KEM_512, 1, 800, 768, 1),
    _ml_kem(Algorithm.ML_KEM_768, 3, 1184, 1088, 2),
    _ml_kem(Algorithm.ML_KEM_1024, 5, 1568, 1568, 3),
    _ml_dsa(Algorithm.ML_DSA_44, 2, 1312, 2420, 17),
    _ml_dsa(Algorithm.ML_DSA_65, 3, 1952, 3309, 18),
    _ml_dsa(Algorithm.ML_DSA_87, 5, 2592, 4627, 19),
    _slh_dsa(Algorithm.SLH_DSA_SHA2_128S, 1, 7856, 20),
    _slh_dsa(Algorithm.SLH_DSA_SHA2_128F, 1, 17088, 21),
    _slh_dsa(Algorithm.SLH_DSA_SHA2_192S, 3, 16224, 22),
    _slh_dsa(Algorithm.SLH_DSA_SHA2_192F, 3, 35664, 23),
    _slh_dsa(Algorithm.SLH_DSA_SHA2_256S, 5, 29792, 24),
    _slh_dsa(Algorithm.SLH_DSA_SHA2_256F, 5, 49856, 25),
    _slh_dsa(Algorithm.SLH_DSA_SHAKE_128S, 1, 7856, 26),
    _slh_dsa(Algorithm.SLH_DSA_SHAKE_128F, 1, 17088, 27),
    _slh_dsa(Algorithm.SLH_DSA_SHAKE_192S, 3, 16224, 28),
    _slh_dsa(Algorithm.SLH_DSA_SHAKE_192F, 3, 35664, 29),
    _slh_dsa(Algorithm.SLH_DSA_SHAKE_256S, 5, 29792, 30),
    _slh_dsa(Algorithm.SLH_DSA_SHAKE_256F, 5, 49856, 31),
)

_ROW_OF: Final = {row.algorithm: row for row in (*_CLASSICAL, *_QUANTUM_SAFE_ALONE)}

_COMPOSITES: Final = (
    _composite_kem(
        Algorithm.MLKEM768_ECDH_P256_SHA3_256,
        (Algorithm.ML_KEM_768, Algorithm.EC_P256),
        (128, 65, 51),
        b"MLKEM768-P256",
        59,
        *("mlkem768-p256", "p256-mlkem768", "hybridp256mlkem768"),
        *("p-256+ml-kem-768", "ml-kem-768+p-256"),
    ),
    _composite_kem(
        Algorithm.MLKEM1024_ECDH_P384_SHA3_256,
        (Algorithm.ML_KEM_1024, Algorithm.EC_P384),
        (192, 97, 64),
        b"MLKEM1024-P384",
        63,
        *("mlkem1024-p384", "p384-mlkem1024", "hybridp384mlkem1024"),
        *("p-384+ml-kem-1024", "ml-kem-1024+p-384"),
    ),
    _composite_kem(
        Algorithm.MLKEM768_X25519_SHA3_256,
        (Algorithm.ML_KEM_768, Algorithm.X25519),
        (128, 32, 32),
        bytes.fromhex("5c2e2f2f5e5c"),
        58,
        *("mlkem768-x25519", "x25519-mlkem768", "x25519+ml-kem-768"),
    ),
    _composite_signature(
        Algorithm.MLDSA44_ECDSA_P256_SHA256,
        (Algorithm.ML_DSA_44, Algorithm.EC_P256),
        51,
        HashAlgorithm.SHA_256,
        40,
        *("mldsa44-p256", "p256-mldsa44", "hybridp256mldsa44", "p-256+ml-dsa-44"),
    ),
    _composite_signature(
        Algorithm.MLDSA65_ECDSA_P256_SHA512,
        (Algorithm.ML_DSA_65, Algorithm.EC_P256),
        51,
        HashAlgorithm.SHA_512,
        45,
        *("mldsa65-p256", "p256-mldsa65", "hybridp256mldsa65", "p-256+ml-dsa-65"),
        *("p-256+ml-dsa", "ml-dsa+p-256"),
    ),
    _composite_signature(
        Algorithm.MLDSA87_ECDSA_P384_SHA512,
        (Algorithm.ML_DSA_87, Algorithm.EC_P384),
        64,
        HashAlgorithm.SHA_512,
        49,
        *("mldsa87-p384", "p384-mldsa87", "hybridp384mldsa87", "p-384+ml-dsa-87"),
    ),
    _composite_signature(
        Algorithm.MLDSA65_ED25519_SHA512,
        (Algorithm.ML_DSA_65, Algorithm.ED25519),
        32,
        HashAlgorithm.SHA_512,
        48,
        *("mldsa65-ed25519", "ed25519-mldsa65", "ed25519+ml-dsa-65"),
    ),
)

_ROWS: Final = (*_CLASSICAL, *_QUANTUM_SAFE_ALONE, *_COMPOSITES)

ALGORITHMS: Final = {row.algorithm: row for row in _ROWS}
"""Every row by its algorithm, in the order that lists are shown in."""


def _folded(name: str) -> str:
    """Return a name without case, and without blanks round a plus sign."""
    return "+".join(part.strip() for part in name.lower().split("+"))


_BY_NAME: Final = {
    name: row.algorithm
    for row in _ROWS
    for name in (row.algorithm.value.lower(), *row.aliases)
}

_NOT_OFFERED: Final = (
    *("MLKEM768-RSA2048-SHA3-256", "MLKEM768-RSA3072-SHA3-256"),
    *("MLKEM768-RSA4096-SHA3-256", "MLKEM768-ECDH-P384-SHA3-256"),
    *("MLKEM768-ECDH-brainpoolP256r1-SHA3-256", "MLKEM1024-RSA3072-SHA3-256"),
    *("MLKEM1024-ECDH-brainpoolP384r1-SHA3-256", "MLKEM1024-X448-SHA3-256"),
    *("MLKEM1024-ECDH-P521-SHA3-256", "MLDSA44-RSA2048-PSS-SHA256"),
    *("MLDSA44-RSA2048-PKCS15-SHA256", "MLDSA44-Ed25519-SHA512"),
    *("MLDSA65-RSA3072-PSS-SHA512", "MLDSA65-RSA3072-PKCS15-SHA512"),
    *("MLDSA65-RSA4096-PSS-SHA512", "MLDSA65-RSA4096-PKCS15-SHA512"),
    *("MLDSA65-ECDSA-P384-SHA512", "MLDSA65-ECDSA-brainpoolP256r1-SHA512"),
    *("MLDSA87-ECDSA-brainpoolP384r1-SHA512", "MLDSA87-Ed448-SHAKE256"),
    *("MLDSA87-RSA3072-PSS-SHA512", "MLDSA87-RSA4096-PSS-SHA512"),
    "MLDSA87-ECDSA-P521-SHA512",
)
"""Composites that the drafts define and that have no row."""

_NO_ML_DSA_135: Final = "FIPS 204 has ML-DSA-44, ML-DSA-65 and ML-DSA-87 only"
_REASONS: Final = {
    "ml-dsa-135": _NO_ML_DSA_135,
    "mldsa135": _NO_ML_DSA_135,
    "ml-dsa135": _NO_ML_DSA_135,
    "hybridp256mlkem512": "the drafts have no composite of ML-KEM-512",
    **dict.fromkeys(
        map(str.lower, _NOT_OFFERED), "this composite of the drafts is not offered"
    ),
}
"""What is wrong with names that users have met elsewhere."""


def spec(algorithm: Algorithm) -> AlgorithmSpec:
    """Return the row of an algorithm."""
    return ALGORITHMS[algorithm]


def parse_algorithm(name: str) -> Algorithm:
    """
    Return the algorithm that a name stands for, in any case and accepted spelling.

    Raises:
        UnknownAlgorithmError: No row has this name; the message lists those that may
            have been meant.

    Example:
        >>> parse_algorithm("secp256r1").value
        'EC-P256'
        >>> parse_algorithm("P-256 + ML-KEM-768").value
        'MLKEM768-ECDH-P256-SHA3-256'
    """
    folded = _folded(name)
    try:
        return _BY_NAME[folded]
    except KeyError:
        reason = _REASONS.get(folded, "it is not known")
        raise UnknownAlgorithmError(
            f"algorithm {name[:64]!r}: {reason}; there are {_alike(folded)}.",
            field="algorithm",
        ) from None


def _alike(folded: str) -> str:
    """Return the names of the same start, or all."""
    bare = "".join(filter(str.isalnum, folded))
    same = [
        algorithm
        for algorithm in ALGORITHMS
        if "".join(filter(str.isalnum, algorithm.lower()))[:5] == bare[:5]
    ]
    return ", ".join(same or ALGORITHMS)

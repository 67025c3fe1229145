# SPDX-License-Identifier: MIT
"""The table of algorithms."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from hsm_core.algorithms.names import (
    Algorithm,
    Cost,
    Family,
    HashAlgorithm,
    KeyUsage,
    SignatureScheme,
    WrapMechanism,
)
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP, AlgorithmSpec

__all__ = [
    "ALGORITHMS",
    "spec",
]


SIGN: Final = frozenset({KeyUsage.SIGN, KeyUsage.VERIFY})
CRYPT: Final = frozenset({KeyUsage.ENCRYPT, KeyUsage.DECRYPT})
WRAP: Final = frozenset({KeyUsage.WRAP, KeyUsage.UNWRAP})
DERIVE: Final = frozenset({KeyUsage.DERIVE})
ENCAPSULATE: Final = frozenset({KeyUsage.ENCAPSULATE, KeyUsage.DECAPSULATE})

KEM: Final = ENCAPSULATE | CRYPT | WRAP
"""Usages of a key-encapsulation mechanism, which also seals messages and keys."""


_EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
_SHA2 = (HashAlgorithm.SHA_256, HashAlgorithm.SHA_384, HashAlgorithm.SHA_512)


def _rsa(
    algorithm: Algorithm, bits: int, strength: int, *aliases: str
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.RSA,
        standard="FIPS 186-5, RFC 8017",
        strength_bits=strength,
        usages=SIGN | CRYPT | WRAP,
        default_usages=SIGN,
        schemes=(SignatureScheme.RSASSA_PSS, SignatureScheme.RSASSA_PKCS1_V1_5),
        hashes=_SHA2,
        verify_hashes=_SHA2,
        modulus_bits=bits,
        wrap_mechanisms=(WrapMechanism.RSA_OAEP_AES_KWP,),
        envelope_kind=RSAES_OAEP,
        oid="1.2.840.113549.1.1.1",
        signature_bytes=bits // 8,
        generate_cost=Cost.SLOW,
        aliases=(f"rsa{bits}", *aliases),
    )


def _ecdsa(
    algorithm: Algorithm,
    strength: int,
    coordinate_bytes: int,
    paired: HashAlgorithm,
    curve_oid: str,
    jwk_curve: str,
    *aliases: str,
    curves: str = "SP 800-186",
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ECDSA,
        standard=f"FIPS 186-5, {curves}, SP 800-56A (ECDH)",
        oid=_EC_PUBLIC_KEY,
        curve_oid=curve_oid,
        jwk_curve=jwk_curve,
        strength_bits=strength,
        usages=SIGN | DERIVE,
        default_usages=SIGN,
        schemes=(SignatureScheme.ECDSA,),
        hashes=(paired,),
        verify_hashes=_SHA2,
        coordinate_bytes=coordinate_bytes,
        public_bytes=1 + 2 * coordinate_bytes,
        private_bytes=coordinate_bytes,
        # SEQUENCE of two INTEGERs with a leading zero each; two-byte lengths from 128.
        signature_bytes=2 * (coordinate_bytes + 3)
        + (3 if coordinate_bytes > 61 else 2),
        shared_secret_bytes=coordinate_bytes,
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
        strength_bits=strength,
        usages=SIGN,
        default_usages=SIGN,
        schemes=(SignatureScheme.EDDSA,),
        public_bytes=key_bytes,
        private_bytes=key_bytes,
        signature_bytes=2 * key_bytes,
        oid=oid,
        jwk_curve=algorithm.value,
        aliases=aliases,
    )


PUBLIC_KEY: Final = (
    _rsa(Algorithm.RSA_2048, 2048, 112, "rsa"),
    _rsa(Algorithm.RSA_3072, 3072, 128),
    _rsa(Algorithm.RSA_4096, 4096, 152),
    _ecdsa(
        Algorithm.EC_P256,
        128,
        32,
        HashAlgorithm.SHA_256,
        *("1.2.840.10045.3.1.7", "P-256"),
        *("p256", "p-256", "secp256r1", "nistp256", "prime256v1"),
    ),
    _ecdsa(
        Algorithm.EC_P384,
        192,
        48,
        HashAlgorithm.SHA_384,
        *("1.3.132.0.34", "P-384"),
        *("p384", "p-384", "secp384r1", "nistp384"),
    ),
    _ecdsa(
        Algorithm.EC_P521,
        256,
        66,
        HashAlgorithm.SHA_512,
        *("1.3.132.0.35", "P-521"),
        *("p521", "p-521", "secp521r1", "nistp521"),
    ),
    _ecdsa(
        Algorithm.EC_SECP256K1,
        128,
        32,
        HashAlgorithm.SHA_256,
        *("1.3.132.0.10", "secp256k1"),
        *("secp256k1", "p256k1", "k256", "es256k"),
        curves="SEC 2, RFC 8812",
    ),
    _eddsa(Algorithm.ED25519, 128, 32, "1.3.101.112", "eddsa", "ed-25519"),
    _eddsa(Algorithm.ED448, 224, 57, "1.3.101.113", "ed-448"),
    AlgorithmSpec(
        algorithm=Algorithm.X25519,
        family=Family.ECDH,
        standard="RFC 7748, SP 800-186",
        strength_bits=128,
        usages=DERIVE,
        default_usages=DERIVE,
        public_bytes=32,
        private_bytes=32,
        shared_secret_bytes=32,
        oid="1.3.101.110",
        jwk_curve=Algorithm.X25519.value,
        aliases=("x-25519", "curve25519"),
    ),
)


_STRENGTH_BITS: Final = {1: 128, 2: 128, 3: 192, 5: 256}
"""Classical security strength of each NIST security category, in bits."""


def _ml_kem(
    algorithm: Algorithm,
    category: int,
    public_bytes: int,
    ciphertext_bytes: int,
    oid_arc: int,
    k: int,
    eta1: int,
) -> AlgorithmSpec:
    short = algorithm.value.rpartition("-")[2]
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ML_KEM,
        standard="FIPS 203, RFC 9935",
        category=category,
        strength_bits=_STRENGTH_BITS[category],
        usages=KEM,
        default_usages=ENCAPSULATE | CRYPT,
        public_bytes=public_bytes,
        private_bytes=64,
        expanded_bytes=768 * k + 96,
        exists_without_seed=algorithm is Algorithm.ML_KEM_512,
        wrap_mechanisms=(WrapMechanism.KEM_AES_KWP,),
        envelope_kind=KEM_ENVELOPE,
        lattice=(k, eta1),
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
    lattice: tuple[int, int, int],
) -> AlgorithmSpec:
    rows, columns, eta = lattice
    short = algorithm.value.rpartition("-")[2]
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ML_DSA,
        standard="FIPS 204, RFC 9881",
        category=category,
        strength_bits=_STRENGTH_BITS[category],
        usages=SIGN,
        default_usages=SIGN,
        schemes=(SignatureScheme.ML_DSA,),
        public_bytes=public_bytes,
        private_bytes=32,
        expanded_bytes=128
        + 32 * ((rows + columns) * (2 * eta).bit_length() + 13 * rows),
        lattice=lattice,
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
        strength_bits=_STRENGTH_BITS[category],
        usages=SIGN,
        default_usages=SIGN,
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


QUANTUM_SAFE: Final = (
    _ml_kem(Algorithm.ML_KEM_512, 1, 800, 768, 1, 2, 3),
    _ml_kem(Algorithm.ML_KEM_768, 3, 1184, 1088, 2, 3, 2),
    _ml_kem(Algorithm.ML_KEM_1024, 5, 1568, 1568, 3, 4, 2),
    _ml_dsa(Algorithm.ML_DSA_44, 2, 1312, 2420, 17, (4, 4, 2)),
    _ml_dsa(Algorithm.ML_DSA_65, 3, 1952, 3309, 18, (6, 5, 4)),
    _ml_dsa(Algorithm.ML_DSA_87, 5, 2592, 4627, 19, (8, 7, 2)),
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


_AEAD_USE_LIMIT: Final = 9 * 2**32 // 10
"""Encryptions per key with random 96-bit nonces, a tenth below SP 800-38D, 8.3."""


def _aead(
    algorithm: Algorithm,
    standard: str,
    category: int,
    key_bytes: int,
    envelope_kind: int,
    *aliases: str,
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.AEAD,
        envelope_kind=envelope_kind,
        standard=standard,
        category=category,
        strength_bits=8 * key_bytes,
        usages=CRYPT,
        default_usages=CRYPT,
        key_bytes=key_bytes,
        use_limit=_AEAD_USE_LIMIT,
        aliases=aliases,
    )


def _aes(algorithm: Algorithm, category: int, key_bytes: int) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.AES,
        standard="FIPS 197, SP 800-38A, SP 800-38D",
        category=category,
        strength_bits=8 * key_bytes,
        usages=CRYPT,
        default_usages=CRYPT,
        key_bytes=key_bytes,
        aliases=(f"aes-{8 * key_bytes}-raw",),
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
        usages=WRAP,
        default_usages=WRAP,
        wrap_mechanisms=(WrapMechanism.AES_KWP, WrapMechanism.AES_KW),
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
        usages=DERIVE,
        default_usages=DERIVE,
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
        1,
        *("aes256gcm", "aes-256-gcm", "aes"),
    ),
    _aead(Algorithm.AES_128_GCM, "FIPS 197, SP 800-38D", 1, 16, 4, "aes128gcm"),
    _aead(
        Algorithm.CHACHA20_POLY1305,
        "RFC 8439",
        5,
        32,
        5,
        *("chacha20poly1305", "chacha20", "chachapoly"),
    ),
)

MACS: Final = (
    _hmac(Algorithm.HMAC_SHA_256, 32, "hmacsha256", "hmac-sha256", "hs256"),
    _hmac(Algorithm.HMAC_SHA_384, 48, "hmacsha384", "hmac-sha384", "hs384"),
    _hmac(Algorithm.HMAC_SHA_512, 64, "hmacsha512", "hmac-sha512", "hs512"),
)

RAW_CIPHERS: Final = (
    _aes(Algorithm.AES_256, 5, 32),
    _aes(Algorithm.AES_128, 1, 16),
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


_COMPOSITE_ARC: Final = "1.3.6.1.5.5.7.6"
_KEM_DRAFT: Final = "draft-ietf-lamps-pq-composite-kem-18"
_SIGNATURE_DRAFT: Final = "draft-ietf-lamps-pq-composite-sigs-19"

_ROW_OF: Final = {row.algorithm: row for row in (*PUBLIC_KEY, *QUANTUM_SAFE)}


def _composite(
    algorithm: Algorithm,
    components: tuple[Algorithm, Algorithm],
    private_bytes: int,
    oid_arc: int,
    *aliases: str,
    label: bytes = b"",
    hashed: HashAlgorithm | None = None,
) -> AlgorithmSpec:
    """
    Build the row of a composite.

    Args:
        algorithm: A KEM, or with *hashed* a signature.

        components: Post-quantum and traditional algorithm.

        private_bytes: Length of the traditional half of a private key.

        oid_arc: Last arc of the object identifier.

        aliases: Other spellings.

        label: Of a KEM; a signature's is made of its name.

        hashed: Pre-hash of a signature.
    """
    first, second = (_ROW_OF[component] for component in components)
    draft = _SIGNATURE_DRAFT if hashed else _KEM_DRAFT
    common = AlgorithmSpec(
        algorithm=algorithm,
        family=Family.COMPOSITE_SIGNATURE if hashed else Family.COMPOSITE_KEM,
        standard=f"{draft}; FIPS 20{4 if hashed else 3}",
        category=first.category,
        strength_bits=second.strength_bits,
        usages=first.usages,
        default_usages=first.default_usages,
        public_bytes=first.public_bytes + second.public_bytes,
        private_bytes=first.private_bytes + private_bytes,
        shared_secret_bytes=first.shared_secret_bytes,
        wrap_mechanisms=first.wrap_mechanisms,
        envelope_kind=first.envelope_kind,
        max_context_bytes=first.max_context_bytes,
        oid=f"{_COMPOSITE_ARC}.{oid_arc}",
        label=label or f"COMPSIG-{algorithm}".encode(),
        components=components,
        draft=draft,
        aliases=aliases,
    )
    if hashed is None:
        size = first.ciphertext_bytes + second.public_bytes
        return replace(common, ciphertext_bytes=size)
    return replace(
        common,
        schemes=(SignatureScheme.COMPOSITE_ML_DSA,),
        hashes=(hashed,),
        verify_hashes=(hashed,),
        signature_bytes=first.signature_bytes + second.signature_bytes,
    )


COMPOSITES: Final = (
    _composite(
        Algorithm.MLKEM768_ECDH_P256_SHA3_256,
        (Algorithm.ML_KEM_768, Algorithm.EC_P256),
        51,
        59,
        *("mlkem768-p256", "p256-mlkem768", "hybridp256mlkem768"),
        *("p-256+ml-kem-768", "ml-kem-768+p-256"),
        label=b"MLKEM768-P256",
    ),
    _composite(
        Algorithm.MLKEM1024_ECDH_P384_SHA3_256,
        (Algorithm.ML_KEM_1024, Algorithm.EC_P384),
        64,
        63,
        *("mlkem1024-p384", "p384-mlkem1024", "hybridp384mlkem1024"),
        *("p-384+ml-kem-1024", "ml-kem-1024+p-384"),
        label=b"MLKEM1024-P384",
    ),
    _composite(
        Algorithm.MLKEM768_X25519_SHA3_256,
        (Algorithm.ML_KEM_768, Algorithm.X25519),
        32,
        58,
        *("mlkem768-x25519", "x25519-mlkem768", "x25519+ml-kem-768"),
        label=bytes.fromhex("5c2e2f2f5e5c"),
    ),
    _composite(
        Algorithm.MLDSA44_ECDSA_P256_SHA256,
        (Algorithm.ML_DSA_44, Algorithm.EC_P256),
        51,
        40,
        *("mldsa44-p256", "p256-mldsa44", "hybridp256mldsa44", "p-256+ml-dsa-44"),
        hashed=HashAlgorithm.SHA_256,
    ),
    _composite(
        Algorithm.MLDSA65_ECDSA_P256_SHA512,
        (Algorithm.ML_DSA_65, Algorithm.EC_P256),
        51,
        45,
        *("mldsa65-p256", "p256-mldsa65", "hybridp256mldsa65", "p-256+ml-dsa-65"),
        *("p-256+ml-dsa", "ml-dsa+p-256"),
        hashed=HashAlgorithm.SHA_512,
    ),
    _composite(
        Algorithm.MLDSA87_ECDSA_P384_SHA512,
        (Algorithm.ML_DSA_87, Algorithm.EC_P384),
        64,
        49,
        *("mldsa87-p384", "p384-mldsa87", "hybridp384mldsa87", "p-384+ml-dsa-87"),
        hashed=HashAlgorithm.SHA_512,
    ),
    _composite(
        Algorithm.MLDSA65_ED25519_SHA512,
        (Algorithm.ML_DSA_65, Algorithm.ED25519),
        32,
        48,
        *("mldsa65-ed25519", "ed25519-mldsa65", "ed25519+ml-dsa-65"),
        hashed=HashAlgorithm.SHA_512,
    ),
)


_ROWS: Final = (
    *CIPHERS,
    *PUBLIC_KEY,
    *MACS,
    *RAW_CIPHERS,
    *KEY_WRAPS,
    *KEY_DERIVATIONS,
    *QUANTUM_SAFE,
    *COMPOSITES,
)

ALGORITHMS: Final = {row.algorithm: row for row in _ROWS}
"""Algorithm table, in display order."""


def spec(algorithm: Algorithm) -> AlgorithmSpec:
    """Return the row of an algorithm."""
    return ALGORITHMS[algorithm]

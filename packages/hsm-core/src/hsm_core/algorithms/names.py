# SPDX-License-Identifier: MIT
"""Names of algorithms, families, usages and formats, as in their standards."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "AESMode",
    "Algorithm",
    "CiphertextEncoding",
    "Cost",
    "DerivationFunction",
    "Family",
    "HashAlgorithm",
    "KeyFormat",
    "KeyUsage",
    "SignatureEncoding",
    "SignatureScheme",
    "WrapMechanism",
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
    EC_SECP256K1 = "EC-secp256k1"
    ED25519 = "Ed25519"
    ED448 = "Ed448"
    X25519 = "X25519"
    HMAC_SHA_256 = "HMAC-SHA-256"
    HMAC_SHA_384 = "HMAC-SHA-384"
    HMAC_SHA_512 = "HMAC-SHA-512"
    AES_256 = "AES-256"
    AES_128 = "AES-128"
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
    AES = "AES"
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
    """Permitted use of a key; enforced at every use."""

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
    """Signature scheme."""

    RSASSA_PSS = "RSASSA-PSS"
    RSASSA_PKCS1_V1_5 = "RSASSA-PKCS1-v1_5"
    ECDSA = "ECDSA"
    EDDSA = "EdDSA"
    ML_DSA = "ML-DSA"
    SLH_DSA = "SLH-DSA"
    COMPOSITE_ML_DSA = "Composite-ML-DSA"


class SignatureEncoding(StrEnum):
    """
    Encoding of an ECDSA signature.

    ``der`` is the SEQUENCE of RFC 3279; ``p1363`` is r ‖ s at fixed length, which JWS
    uses (RFC 7518, section 3.4). Other schemes have one encoding only.
    """

    DER = "der"
    P1363 = "p1363"


class CiphertextEncoding(StrEnum):
    """``envelope`` names key and version; ``raw`` is RSAES-OAEP's bare output."""

    ENVELOPE = "envelope"
    RAW = "raw"


class AESMode(StrEnum):
    """
    Mode of operation of AES (SP 800-38A, SP 800-38D).

    ``CBC`` takes whole blocks, ``CBC-PKCS7`` pads (RFC 5652, section 6.3). ``GCM`` ends
    with a tag of 128 bits.
    """

    CBC = "CBC"
    CBC_PKCS7 = "CBC-PKCS7"
    CTR = "CTR"
    GCM = "GCM"


class DerivationFunction(StrEnum):
    """
    Function that makes a key of a shared secret.

    ``HKDF`` is RFC 5869. ``X9.63`` is ANSI X9.63's, with SHA-2 (SEC 1, section 3.6.1).
    ``none`` takes the last bytes of the secret as they are, which are not uniform: only
    for programs that can't do better (PKCS#11's CKD_NULL).
    """

    HKDF = "HKDF"
    X963 = "X9.63"
    NONE = "none"


class KeyFormat(StrEnum):
    """
    Format of a private or symmetric key.

    ``pkcs8`` is OneAsymmetricKey, DER, not encrypted (RFC 5958); ``seed`` the bare seed
    of ML-KEM (64 bytes, d ‖ z) or ML-DSA (32 bytes); ``raw`` the bare symmetric key.
    """

    PKCS8 = "pkcs8"
    SEED = "seed"
    RAW = "raw"


class WrapMechanism(StrEnum):
    """
    Mechanism of wrapping a key for transport.

    ``AES-KW`` and ``AES-KWP`` are those of SP 800-38F (RFC 3394, RFC 5649).
    ``RSA-OAEP+AES-KWP`` is PKCS#11's CKM_RSA_AES_KEY_WRAP. ``KEM+AES-KWP`` is the same
    with a key that ML-KEM or a composite of it encapsulates.
    """

    AES_KW = "AES-KW"
    AES_KWP = "AES-KWP"
    RSA_OAEP_AES_KWP = "RSA-OAEP+AES-KWP"
    KEM_AES_KWP = "KEM+AES-KWP"


class Cost(StrEnum):
    """Cost class: quick work runs at once, slow work on the bounded pool."""

    QUICK = "quick"
    SLOW = "slow"

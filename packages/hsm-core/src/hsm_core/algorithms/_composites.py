# SPDX-License-Identifier: MIT
"""Rows of the hybrids: a post-quantum and a traditional algorithm joined, by draft."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms import _usages as usages
from hsm_core.algorithms._public_key import PUBLIC_KEY
from hsm_core.algorithms._quantum_safe import QUANTUM_SAFE
from hsm_core.algorithms.names import Algorithm, Family, HashAlgorithm, SignatureScheme
from hsm_core.algorithms.specs import AlgorithmSpec

__all__ = [
    "COMPOSITES",
]

_COMPOSITE_ARC: Final = "1.3.6.1.5.5.7.6"
_KEM_DRAFT: Final = "draft-ietf-lamps-pq-composite-kem-18"
_SIGNATURE_DRAFT: Final = "draft-ietf-lamps-pq-composite-sigs-19"

_ROW_OF: Final = {row.algorithm: row for row in (*PUBLIC_KEY, *QUANTUM_SAFE)}


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
        usages=usages.KEM,
        default_usages=usages.ENCAPSULATE | usages.CRYPT,
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
        usages=usages.SIGN,
        default_usages=usages.SIGN,
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


COMPOSITES: Final = (
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

# SPDX-License-Identifier: MIT
"""Rows of the post-quantum algorithms of NIST: ML-KEM, ML-DSA and SLH-DSA."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms import _usages as usages
from hsm_core.algorithms.names import Algorithm, Cost, Family, SignatureScheme
from hsm_core.algorithms.specs import AlgorithmSpec

__all__ = [
    "QUANTUM_SAFE",
]

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
        usages=usages.KEM,
        default_usages=usages.ENCAPSULATE | usages.CRYPT,
        public_bytes=public_bytes,
        private_bytes=64,
        expanded_bytes=768 * k + 96,
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
        usages=usages.SIGN,
        default_usages=usages.SIGN,
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
        usages=usages.SIGN,
        default_usages=usages.SIGN,
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

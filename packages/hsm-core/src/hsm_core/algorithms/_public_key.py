# SPDX-License-Identifier: MIT
"""Rows of the public-key algorithms that a quantum computer would break."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms import _usages as usages
from hsm_core.algorithms.names import (
    Algorithm,
    Cost,
    Family,
    HashAlgorithm,
    SignatureScheme,
)
from hsm_core.algorithms.specs import AlgorithmSpec

__all__ = [
    "PUBLIC_KEY",
]

_EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
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
        usages=usages.SIGN | usages.CRYPT | usages.WRAP,
        default_usages=usages.SIGN,
        schemes=(SignatureScheme.RSASSA_PSS, SignatureScheme.RSASSA_PKCS1_V1_5),
        hashes=_SHA2,
        verify_hashes=_SHA2,
        modulus_bits=bits,
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
    derives: bool = True,
) -> AlgorithmSpec:
    return AlgorithmSpec(
        algorithm=algorithm,
        family=Family.ECDSA,
        standard=f"FIPS 186-5, {curves}" + (", SP 800-56A (ECDH)" if derives else ""),
        oid=_EC_PUBLIC_KEY,
        curve_oid=curve_oid,
        jwk_curve=jwk_curve,
        category=0,
        strength_bits=strength,
        usages=usages.SIGN | usages.DERIVE if derives else usages.SIGN,
        default_usages=usages.SIGN,
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
        usages=usages.SIGN,
        default_usages=usages.SIGN,
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
        derives=False,
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
        category=0,
        strength_bits=128,
        usages=usages.DERIVE,
        default_usages=usages.DERIVE,
        public_bytes=32,
        private_bytes=32,
        shared_secret_bytes=32,
        oid="1.3.101.110",
        jwk_curve=Algorithm.X25519.value,
        aliases=("x-25519", "curve25519"),
    ),
)

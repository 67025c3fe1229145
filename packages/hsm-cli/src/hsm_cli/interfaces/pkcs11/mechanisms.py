# SPDX-License-Identifier: MIT
"""Mechanisms of the token, and the functions that use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hsm_cli.interfaces.pkcs11 import (
    ciphers,
    derivation,
    digests,
    generation,
    signing,
    wrapping,
)
from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError

_SIGN: Final = ck.CKF_SIGN | ck.CKF_VERIFY
_ENCRYPT: Final = ck.CKF_ENCRYPT | ck.CKF_DECRYPT
_WRAP: Final = ck.CKF_WRAP | ck.CKF_UNWRAP
_CURVES: Final = ck.CKF_EC_F_P | ck.CKF_EC_NAMEDCURVE | ck.CKF_EC_UNCOMPRESS
_PAIR: Final = ck.CKF_GENERATE_KEY_PAIR

_RSA_BITS: Final = (2048, 4096)
_EC_BITS: Final = (256, 521)
_AES_BYTES: Final = (16, 32)

_INFO: Final[Mapping[int, tuple[int, int, int]]] = {
    ck.CKM_RSA_PKCS_KEY_PAIR_GEN: (*_RSA_BITS, _PAIR),
    **dict.fromkeys(
        (
            ck.CKM_RSA_PKCS,
            ck.CKM_SHA256_RSA_PKCS,
            ck.CKM_SHA384_RSA_PKCS,
            ck.CKM_SHA512_RSA_PKCS,
            ck.CKM_RSA_PKCS_PSS,
            ck.CKM_SHA256_RSA_PKCS_PSS,
            ck.CKM_SHA384_RSA_PKCS_PSS,
            ck.CKM_SHA512_RSA_PKCS_PSS,
        ),
        (*_RSA_BITS, _SIGN),
    ),
    ck.CKM_RSA_PKCS_OAEP: (*_RSA_BITS, _ENCRYPT),
    ck.CKM_EC_KEY_PAIR_GEN: (*_EC_BITS, _PAIR | _CURVES),
    **dict.fromkeys(
        (
            ck.CKM_ECDSA,
            ck.CKM_ECDSA_SHA256,
            ck.CKM_ECDSA_SHA384,
            ck.CKM_ECDSA_SHA512,
        ),
        (*_EC_BITS, _SIGN | _CURVES),
    ),
    ck.CKM_ECDH1_DERIVE: (255, 521, ck.CKF_DERIVE | _CURVES),
    ck.CKM_EC_EDWARDS_KEY_PAIR_GEN: (255, 448, _PAIR | ck.CKF_EC_NAMEDCURVE),
    ck.CKM_EDDSA: (255, 448, _SIGN | ck.CKF_EC_NAMEDCURVE),
    ck.CKM_EC_MONTGOMERY_KEY_PAIR_GEN: (255, 255, _PAIR | ck.CKF_EC_NAMEDCURVE),
    ck.CKM_ML_DSA_KEY_PAIR_GEN: (1312, 2592, _PAIR),
    ck.CKM_ML_DSA: (1312, 2592, _SIGN),
    ck.CKM_SLH_DSA_KEY_PAIR_GEN: (32, 64, _PAIR),
    ck.CKM_SLH_DSA: (32, 64, _SIGN),
    ck.CKM_ML_KEM_KEY_PAIR_GEN: (800, 1568, _PAIR),
    ck.CKM_AES_KEY_GEN: (*_AES_BYTES, ck.CKF_GENERATE),
    **dict.fromkeys(ciphers.EMBEDDED_ONLY, (*_AES_BYTES, _ENCRYPT)),
    **dict.fromkeys(wrapping.WRAPPING, (*_AES_BYTES, _WRAP)),
    ck.CKM_GENERIC_SECRET_KEY_GEN: (32, 64, ck.CKF_GENERATE),
    ck.CKM_HKDF_KEY_GEN: (32, 64, ck.CKF_GENERATE),
    ck.CKM_SHA256_HMAC: (32, 32, _SIGN),
    ck.CKM_SHA256_HMAC_GENERAL: (32, 32, _SIGN),
    ck.CKM_SHA384_HMAC: (48, 48, _SIGN),
    ck.CKM_SHA384_HMAC_GENERAL: (48, 48, _SIGN),
    ck.CKM_SHA512_HMAC: (64, 64, _SIGN),
    ck.CKM_SHA512_HMAC_GENERAL: (64, 64, _SIGN),
    **dict.fromkeys(digests.DIGESTS, (0, 0, ck.CKF_DIGEST)),
}
"""Smallest and largest key, and flags, of each mechanism."""


def mechanism_types(*, is_embedded: bool) -> tuple[int, ...]:
    """
    Return all mechanisms of a token.

    Args:
        is_embedded: Whether its HSM is in this process.
    """
    left_out = frozenset() if is_embedded else ciphers.EMBEDDED_ONLY
    return tuple(kind for kind in _INFO if kind not in left_out)


def mechanism_info(kind: int, *, is_embedded: bool) -> tuple[int, int, int]:
    """
    Return the smallest and largest key, in the unit of the mechanism, and flags.

    Args:
        kind: CKM_….

        is_embedded: Whether the HSM of the token is in this process.

    Raises:
        CryptokiError: There is no such mechanism.
    """
    if kind not in mechanism_types(is_embedded=is_embedded):
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    return _INFO[kind]


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    **digests.FUNCTIONS,
    **signing.FUNCTIONS,
    **ciphers.FUNCTIONS,
    **generation.FUNCTIONS,
    **wrapping.FUNCTIONS,
    **derivation.FUNCTIONS,
}
"""Functions by name."""

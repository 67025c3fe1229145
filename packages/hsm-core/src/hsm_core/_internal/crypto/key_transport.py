# SPDX-License-Identifier: MIT
"""
Key wrapping for transport, by mechanism.

::

    AES-KW, AES-KWP     the wrapped key
    RSA-OAEP+AES-KWP    RSAES-OAEP(key) ‖ AES-KWP(key, wrapped key)
    KEM+AES-KWP         encapsulation ‖ AES-KWP(key, wrapped key)

*key* is an AES-256 key of this one transport: drawn at random for RSA, and for a KEM
``HKDF-SHA-256(secret, no salt, length_prefixed(label, algorithm, encapsulation))``.

Standard:
    SP 800-38F (RFC 3394, RFC 5649); CKM_RSA_AES_KEY_WRAP of PKCS#11 3.0, section
    2.1.21; FIPS 203 or the composite's draft; RFC 5869. Label and encoding of the
    last mechanism are our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_core._internal.lib.encoding import length_prefixed
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    HashAlgorithm,
    WrapMechanism,
    spec,
)
from hsm_core.errors import (
    DecryptionError,
    InvalidInputError,
    UnsupportedOperationError,
)
from hsm_core.protocols import Entropy, KeyHandle, OAEPParameters

if TYPE_CHECKING:
    from hsm_core._internal.crypto.registry import CryptoRegistry

_LABEL: Final = b"FerroHSM KEM key wrap 1"
_KEY_BYTES: Final = 32
_M: Final = WrapMechanism


def check_mechanism(
    row: AlgorithmSpec,
    mechanism: WrapMechanism | None,
    hash: HashAlgorithm | None = None,
    mgf_hash: HashAlgorithm | None = None,
) -> WrapMechanism:
    """
    Return *mechanism*, or the algorithm's default.

    Raises:
        UnsupportedOperationError: The algorithm does not support the mechanism or any,
            or hashes are given and it is not RSA.
    """
    offered = row.wrap_mechanisms
    if not offered:
        raise UnsupportedOperationError(
            f"{row.algorithm} keys can't wrap keys.", algorithm=row.algorithm.value
        )
    if mechanism is not None and mechanism not in offered:
        raise UnsupportedOperationError(
            f"mechanism: {row.algorithm} keys support {', '.join(offered)}.",
            algorithm=row.algorithm.value,
            field="mechanism",
        )
    for field, value in (("hash", hash), ("mgf_hash", mgf_hash)):
        if value is not None and not row.modulus_bits:
            raise UnsupportedOperationError(
                f"{field} applies to RSA-OAEP only.", field=field
            )
    return mechanism or offered[0]


def wrap_key(
    crypto: CryptoRegistry,
    entropy: Entropy,
    wrapping: KeyHandle,
    mechanism: WrapMechanism,
    data: bytes,
    oaep: OAEPParameters,
) -> bytes:
    """
    Wrap a key.

    Args:
        crypto: Who loads AES-256-KW and HKDF-SHA-256.

        entropy: Where the AES key beside RSA comes from.

        wrapping: The wrapping key; its public half is enough for RSA and KEMs.

        mechanism: One that its algorithm has.

        data: What to wrap.

        oaep: For RSA only.

    Raises:
        InputSizeError: AES-KW can't wrap what is not 16 bytes or more in steps of 8.
    """
    if mechanism in {_M.AES_KW, _M.AES_KWP}:
        return wrapping.wrap(data, padded=mechanism is _M.AES_KWP)
    if mechanism is _M.RSA_OAEP_AES_KWP:
        key = entropy.random_bytes(_KEY_BYTES)
        start = wrapping.encrypt(key, oaep)
    else:
        secret, start = wrapping.encapsulate()
        key = _transport_key(crypto, wrapping.algorithm, secret, start)
    return start + crypto.load(Algorithm.AES_256_KW, key).wrap(data, padded=True)


def unwrap_key(
    crypto: CryptoRegistry,
    wrapping: KeyHandle,
    mechanism: WrapMechanism,
    wrapped: bytes,
    oaep: OAEPParameters,
) -> bytes:
    """
    Return what `wrap_key` was given.

    Raises:
        DecryptionError: Anything is wrong; it is not said what.
    """
    if mechanism in {_M.AES_KW, _M.AES_KWP}:
        return _unwrap(wrapping, wrapped, padded=mechanism is _M.AES_KWP)
    row = spec(wrapping.algorithm)
    size = row.modulus_bits // 8 or row.ciphertext_bytes
    start, rest = wrapped[:size], wrapped[size:]
    if len(start) != size:
        raise DecryptionError
    if mechanism is _M.RSA_OAEP_AES_KWP:
        key = wrapping.decrypt(start, oaep)
        if len(key) != _KEY_BYTES:
            raise DecryptionError
    else:
        secret = wrapping.decapsulate(start)
        key = _transport_key(crypto, wrapping.algorithm, secret, start)
    return _unwrap(crypto.load(Algorithm.AES_256_KW, key), rest, padded=True)


def _unwrap(handle: KeyHandle, wrapped: bytes, *, padded: bool) -> bytes:
    try:
        return handle.unwrap(wrapped, padded=padded)
    except InvalidInputError:
        raise DecryptionError from None


def _transport_key(
    crypto: CryptoRegistry, algorithm: Algorithm, secret: bytes, encapsulation: bytes
) -> bytes:
    info = length_prefixed(_LABEL, algorithm.value.encode(), encapsulation)
    derivation = crypto.load(Algorithm.HKDF_SHA_256, secret)
    return derivation.derive(b"", info, _KEY_BYTES)

# SPDX-License-Identifier: MIT
"""Mechanisms with their parameters, as they travel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.wire import CallReader


class PSSParameters(msgspec.Struct, frozen=True):
    """CK_RSA_PKCS_PSS_PARAMS."""

    hash: int
    mgf: int
    salt_bytes: int


class OAEPParameters(msgspec.Struct, frozen=True):
    """CK_RSA_PKCS_OAEP_PARAMS."""

    hash: int
    mgf: int
    source: int
    label: bytes


class ECDHParameters(msgspec.Struct, frozen=True):
    """CK_ECDH1_DERIVE_PARAMS."""

    kdf: int
    shared: bytes
    public: bytes


class GCMParameters(msgspec.Struct, frozen=True):
    """CK_GCM_PARAMS, in its form of 48 bytes."""

    iv: bytes
    iv_bits: int
    aad: bytes
    tag_bits: int


class CTRParameters(msgspec.Struct, frozen=True):
    """CK_AES_CTR_PARAMS."""

    bits: int
    block: bytes


class EdDSAParameters(msgspec.Struct, frozen=True):
    """CK_EDDSA_PARAMS."""

    prehash: bool
    context: bytes


class SignContext(msgspec.Struct, frozen=True):
    """CK_SIGN_ADDITIONAL_CONTEXT."""

    hedge: int
    context: bytes


Parameter: TypeAlias = (
    PSSParameters
    | OAEPParameters
    | ECDHParameters
    | GCMParameters
    | CTRParameters
    | EdDSAParameters
    | SignContext
    | bytes
    | int
    | None
)
"""Parameter of a mechanism; None if there is none."""


class Mechanism(msgspec.Struct, frozen=True):
    """
    Mechanism of a call.

    Attributes:
        kind: Its number, CKM_….
    """

    kind: int
    parameter: Parameter = None


def _pss(reader: CallReader) -> Parameter:
    return PSSParameters(reader.ulong(), reader.ulong(), reader.ulong())


def _oaep(reader: CallReader) -> Parameter:
    source = (reader.ulong(), reader.ulong(), reader.ulong())
    return OAEPParameters(*source, reader.block())


def _ecdh(reader: CallReader) -> Parameter:
    return ECDHParameters(reader.ulong(), reader.block(), reader.block())


def _gcm(reader: CallReader) -> Parameter:
    iv, iv_bits = reader.block(), reader.ulong()
    return GCMParameters(iv, iv_bits, reader.block(), reader.ulong())


def _ctr(reader: CallReader) -> Parameter:
    return CTRParameters(reader.ulong(), reader.block())


def _eddsa(reader: CallReader) -> Parameter:
    return EdDSAParameters(bool(reader.byte()), reader.block())


def _context(reader: CallReader) -> Parameter:
    return SignContext(reader.ulong(), reader.block())


def _ulong(reader: CallReader) -> Parameter:
    return reader.ulong()


def _bytes(reader: CallReader) -> Parameter:
    return reader.block()


_WITH: Final[dict[int, Callable[[CallReader], Parameter]]] = {
    ck.CKM_RSA_PKCS_OAEP: _oaep,
    ck.CKM_ECDH1_DERIVE: _ecdh,
    ck.CKM_ECDH1_COFACTOR_DERIVE: _ecdh,
    ck.CKM_AES_GCM: _gcm,
    ck.CKM_AES_CTR: _ctr,
    ck.CKM_EDDSA: _eddsa,
    ck.CKM_ML_DSA: _context,
    ck.CKM_SLH_DSA: _context,
    **dict.fromkeys(
        (
            ck.CKM_RSA_PKCS_PSS,
            ck.CKM_SHA1_RSA_PKCS_PSS,
            ck.CKM_SHA224_RSA_PKCS_PSS,
            ck.CKM_SHA256_RSA_PKCS_PSS,
            ck.CKM_SHA384_RSA_PKCS_PSS,
            ck.CKM_SHA512_RSA_PKCS_PSS,
        ),
        _pss,
    ),
    **dict.fromkeys((ck.CKM_AES_CBC, ck.CKM_AES_CBC_PAD), _bytes),
    **dict.fromkeys(
        (
            ck.CKM_SHA_1_HMAC_GENERAL,
            ck.CKM_SHA224_HMAC_GENERAL,
            ck.CKM_SHA256_HMAC_GENERAL,
            ck.CKM_SHA384_HMAC_GENERAL,
            ck.CKM_SHA512_HMAC_GENERAL,
            ck.CKM_AES_CMAC_GENERAL,
        ),
        _ulong,
    ),
}
"""Mechanisms that have a parameter, with the reader of it."""

_WITHOUT: Final = frozenset(
    {
        ck.CKM_RSA_PKCS_KEY_PAIR_GEN,
        ck.CKM_RSA_PKCS,
        ck.CKM_SHA1_RSA_PKCS,
        ck.CKM_SHA224_RSA_PKCS,
        ck.CKM_SHA256_RSA_PKCS,
        ck.CKM_SHA384_RSA_PKCS,
        ck.CKM_SHA512_RSA_PKCS,
        ck.CKM_EC_KEY_PAIR_GEN,
        ck.CKM_EC_EDWARDS_KEY_PAIR_GEN,
        ck.CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
        ck.CKM_ML_KEM_KEY_PAIR_GEN,
        ck.CKM_ML_DSA_KEY_PAIR_GEN,
        ck.CKM_SLH_DSA_KEY_PAIR_GEN,
        ck.CKM_ECDSA,
        ck.CKM_ECDSA_SHA1,
        ck.CKM_ECDSA_SHA224,
        ck.CKM_ECDSA_SHA256,
        ck.CKM_ECDSA_SHA384,
        ck.CKM_ECDSA_SHA512,
        ck.CKM_GENERIC_SECRET_KEY_GEN,
        ck.CKM_HKDF_KEY_GEN,
        ck.CKM_AES_KEY_GEN,
        ck.CKM_AES_CMAC,
        ck.CKM_AES_KEY_WRAP,
        ck.CKM_AES_KEY_WRAP_PAD,
        ck.CKM_AES_KEY_WRAP_KWP,
        ck.CKM_SHA_1,
        ck.CKM_SHA_1_HMAC,
        ck.CKM_SHA224,
        ck.CKM_SHA224_HMAC,
        ck.CKM_SHA256,
        ck.CKM_SHA256_HMAC,
        ck.CKM_SHA384,
        ck.CKM_SHA384_HMAC,
        ck.CKM_SHA512,
        ck.CKM_SHA512_HMAC,
        ck.CKM_SHA512_224,
        ck.CKM_SHA512_256,
    }
)
"""Mechanisms without a parameter."""

BARE: Final = {kind: Mechanism(kind) for kind in _WITHOUT}
"""Mechanisms without a parameter, by number."""

_OPTIONAL: Final = frozenset({ck.CKM_EDDSA, ck.CKM_ML_DSA, ck.CKM_SLH_DSA})
"""Mechanisms after whose number some clients send nothing in place of a parameter."""

_KEY_BYTES: Final = 8
_NULL: Final = 0xFFFF_FFFF


def read_mechanism(reader: CallReader, *, is_flagged: bool) -> Mechanism | None:
    """
    Read a mechanism.

    Args:
        reader: Place of the mechanism.

        is_flagged: Whether a flag precedes a parameter, as p11-kit does from 0.25.6 on;
            before, an absent parameter is an absent block.

    Returns:
        None for a NULL pointer, which cancels the operation.

    Raises:
        CryptokiError: The mechanism is unknown, so that its parameter can't be read.
    """
    kind = reader.uint32()
    if kind == _NULL:
        return None
    bare = BARE.get(kind)
    if bare is not None:
        if not is_flagged:
            reader.block()
        return bare
    read = _WITH.get(kind)
    if read is None:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    if kind in _OPTIONAL and reader.left == _KEY_BYTES:
        return Mechanism(kind)
    if is_flagged and not reader.byte():
        return Mechanism(kind)
    return Mechanism(kind, read(reader))

# SPDX-License-Identifier: MIT
"""Mechanisms of the token, and the calls that use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.parameters import Mechanism
from hsm_cli.interfaces.pkcs11.sessions import OperationKind
from hsm_core.algorithms import (
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.operations import Sign

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.sessions import Session

_SIGNING: Final = {
    ck.CKM_SHA256_RSA_PKCS: (Family.RSA, HashAlgorithm.SHA_256, (2048, 4096)),
    ck.CKM_ECDSA: (Family.ECDSA, None, (256, 521)),
    ck.CKM_ECDSA_SHA256: (Family.ECDSA, HashAlgorithm.SHA_256, (256, 521)),
}
_HASHES: Final = {one.digest_bytes: one for one in HashAlgorithm}


def mechanism_types() -> tuple[int, ...]:
    """Return all mechanisms."""
    return tuple(_SIGNING)


def mechanism_info(kind: int) -> tuple[int, int, int]:
    """Return the smallest and largest key, and flags."""
    if kind not in _SIGNING:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    return *_SIGNING[kind][2], ck.CKF_SIGN


def sign_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin a signature."""
    if mechanism is None:
        session.end(OperationKind.SIGN)
        return
    if mechanism.kind not in _SIGNING:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    key = session.key(handle, ck.CKA_SIGN)
    if key.spec.family is not _SIGNING[mechanism.kind][0]:
        raise CryptokiError(ck.CKR_KEY_TYPE_INCONSISTENT)
    session.begin(OperationKind.SIGN, (mechanism.kind, key), key)


def sign(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Sign."""
    kind, key = session.active(OperationKind.SIGN)
    with session.finishing(OperationKind.SIGN):
        room(capacity, key.spec.modulus_bits // 8 or 2 * key.spec.coordinate_bytes)
        return session.hsm.execute(_operation(kind, key, data)).signature


def _operation(kind: int, key: KeyObject, data: bytes) -> Sign:
    family, hash_algorithm, _ = _SIGNING[kind]
    if family is Family.RSA:
        scheme = SignatureScheme.RSASSA_PKCS1_V1_5
        return Sign(key_id=key.key_id, message=data, scheme=scheme, hash=hash_algorithm)
    raw = SignatureEncoding.P1363
    if hash_algorithm is not None:
        return Sign(key_id=key.key_id, message=data, encoding=raw, hash=hash_algorithm)
    if len(data) not in _HASHES:
        raise CryptokiError(ck.CKR_DATA_LEN_RANGE)
    found = _HASHES[len(data)]
    return Sign(key_id=key.key_id, digest=data, encoding=raw, hash=found)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_SignInit": sign_init,
    "C_Sign": sign,
}
"""Functions by name."""

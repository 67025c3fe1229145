# SPDX-License-Identifier: MIT
"""Wrapping and unwrapping of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.creation import creation
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.generation import (
    added,
    require,
    require_key_type,
    secret_algorithm,
)
from hsm_cli.interfaces.pkcs11.objects import require_no_login
from hsm_core.algorithms import Family, WrapMechanism
from hsm_core.errors import DecryptionError, InputSizeError
from hsm_core.operations import ExportKey, ImportKey

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session
    from hsm_cli.interfaces.pkcs11.wire import Template

WRAPPING: Final[Mapping[int, WrapMechanism]] = {
    ck.CKM_AES_KEY_WRAP: WrapMechanism.AES_KW,
    ck.CKM_AES_KEY_WRAP_PAD: WrapMechanism.AES_KWP,
    ck.CKM_AES_KEY_WRAP_KWP: WrapMechanism.AES_KWP,
}
"""Mechanisms that wrap keys."""

_CHECK_BYTES: Final = 8
_SPARE_BYTES: Final = 128


def wrap_key(
    session: Session,
    mechanism: Mechanism | None,
    wrapping: int,
    handle: int,
    capacity: int | None,
) -> bytes:
    """Return a key, wrapped by another."""
    if mechanism is None:
        raise CryptokiError(ck.CKR_ARGUMENTS_BAD)
    chosen = _chosen(mechanism)
    holder = _holder(session, wrapping, ck.CKA_WRAP, ck.CKR_WRAPPING_KEY_HANDLE_INVALID)
    if holder.spec.family is not Family.KEY_WRAP:
        raise CryptokiError(ck.CKR_WRAPPING_KEY_TYPE_INCONSISTENT)
    holder.require_mechanism(mechanism.kind)
    key = session.key(handle)
    # Imported again as a key that decrypts, it would reveal the keys that it wraps.
    if key.object_class == ck.CKO_PUBLIC_KEY or key.spec.family is Family.KEY_WRAP:
        raise CryptokiError(ck.CKR_KEY_NOT_WRAPPABLE)
    require_no_login(key)
    if key.get(ck.CKA_EXTRACTABLE) is not True:
        raise CryptokiError(ck.CKR_KEY_UNEXTRACTABLE)
    if capacity is None or key.spec.key_bytes:
        room(capacity, _length(key))
    operation = ExportKey(
        key_id=key.key_id,
        wrapping_key_id=holder.key_id,
        version=key.version,
        mechanism=chosen,
    )
    try:
        made = session.hsm.execute(operation)
    except InputSizeError:
        raise CryptokiError(
            ck.CKR_KEY_SIZE_RANGE,
            "CKM_AES_KEY_WRAP needs a key of a multiple of 8 bytes. Use "
            "CKM_AES_KEY_WRAP_KWP.",
        ) from None
    holder.require_version(made.wrapping_version)
    room(capacity, len(made.wrapped))
    return made.wrapped


def unwrap_key(
    session: Session,
    mechanism: Mechanism | None,
    unwrapping: int,
    wrapped: bytes,
    found: Template,
) -> int:
    """Import a secret key that was wrapped for this HSM."""
    if mechanism is None:
        raise CryptokiError(ck.CKR_ARGUMENTS_BAD)
    chosen = _chosen(mechanism)
    invalid = ck.CKR_UNWRAPPING_KEY_HANDLE_INVALID
    holder = _holder(session, unwrapping, ck.CKA_UNWRAP, invalid)
    if holder.spec.family is not Family.KEY_WRAP:
        raise CryptokiError(ck.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT)
    holder.require_mechanism(mechanism.kind)
    require(found, ck.CKA_CLASS, ck.CKO_SECRET_KEY)
    key_type = require_key_type(found)
    length = len(wrapped) - _CHECK_BYTES
    require(found, ck.CKA_VALUE_LEN, length)
    wanted = creation(ck.CKO_SECRET_KEY, found)
    algorithm = secret_algorithm(key_type, length, wanted)
    session.require_user()
    if wanted.is_token:
        session.require_writable()
    operation = ImportKey(
        algorithm=algorithm,
        wrapping_key_id=holder.key_id,
        wrapping_version=holder.version,
        wrapped=wrapped,
        mechanism=chosen,
    )
    try:
        return added(session, wanted, operation)[0].handle
    except DecryptionError:
        raise CryptokiError(ck.CKR_WRAPPED_KEY_INVALID) from None


def _chosen(mechanism: Mechanism) -> WrapMechanism:
    if mechanism.kind not in WRAPPING:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    if mechanism.parameter is not None:
        raise CryptokiError(
            ck.CKR_MECHANISM_PARAM_INVALID,
            "Key wrapping takes no IV: it has a fixed one.",
        )
    return WRAPPING[mechanism.kind]


def _holder(session: Session, handle: int, usage: int, invalid: int) -> KeyObject:
    found = session.key(handle, invalid)
    found.require_usage(usage)
    require_no_login(found)
    return found


def _length(key: KeyObject) -> int:
    """Return the length of a wrapped key; of a private key a bound."""
    row = key.spec
    if row.key_bytes:
        return -(-row.key_bytes // _CHECK_BYTES) * _CHECK_BYTES + _CHECK_BYTES
    # PKCS#8 of RSA holds nine numbers, as long together as five moduli.
    size = 5 * row.modulus_bits // 8 or row.private_bytes + row.public_bytes
    return size + _SPARE_BYTES


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_WrapKey": wrap_key,
    "C_UnwrapKey": unwrap_key,
}
"""Functions by name."""

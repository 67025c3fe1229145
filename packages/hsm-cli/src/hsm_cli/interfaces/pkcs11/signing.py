# SPDX-License-Identifier: MIT
"""Signatures and MACs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.sessions import OperationKind
from hsm_cli.interfaces.pkcs11.signature_schemes import SCHEMES, Scheme

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session

MOST_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Data that is collected for one operation."""


class Signing:
    """
    State of a signature or its verification.

    Data is hashed as it comes where the scheme signs a digest, else collected.

    Args:
        key: The key.

        scheme: What the mechanism does.

        parameter: Parameter of the mechanism.

    Raises:
        CryptokiError: The parameter is not for this key.
    """

    def __init__(self, key: KeyObject, scheme: Scheme, parameter: Any) -> None:
        self.key = key
        self.scheme = scheme
        self.parameter = parameter
        self.size = scheme.size(key, parameter)
        self.is_multipart = False
        self._hasher = hashlib.new(scheme.hash_name) if scheme.hash_name else None
        self._collected = bytearray()

    @property
    def collects(self) -> bool:
        """Whether parts are kept, as they are not hashed."""
        return self._hasher is None

    def add(self, data: bytes) -> None:
        """
        Add a part of the message.

        Raises:
            CryptokiError: There is too much of it.
        """
        if self._hasher is not None:
            self._hasher.update(data)
            return
        if len(self._collected) + len(data) > MOST_MESSAGE_BYTES:
            raise CryptokiError(
                ck.CKR_DATA_LEN_RANGE,
                f"This mechanism takes up to {MOST_MESSAGE_BYTES} bytes.",
            )
        self._collected += data

    def data(self) -> bytes:
        """Return the digest, or everything that was collected."""
        if self._hasher is not None:
            return self._hasher.digest()
        return bytes(self._collected)

    def sign(self, session: Session) -> bytes:
        """Sign in the HSM."""
        return self.scheme.sign(session.hsm, self.key, self.parameter, self.data())

    def verify(self, session: Session, signature: bytes) -> None:
        """Verify in the HSM."""
        if len(signature) != self.size:
            raise CryptokiError(ck.CKR_SIGNATURE_LEN_RANGE)
        self.scheme.verify(
            session.hsm, self.key, self.parameter, self.data(), signature
        )


def _begin(
    session: Session, kind: OperationKind, mechanism: Mechanism | None, handle: int
) -> None:
    if mechanism is None:
        session.end(kind)
        return
    is_signing = kind is OperationKind.SIGN
    scheme = SCHEMES.get(mechanism.kind)
    if scheme is None:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    key = session.key(handle)
    expected = ck.CKO_PRIVATE_KEY if is_signing else ck.CKO_PUBLIC_KEY
    if key.object_class not in {expected, ck.CKO_SECRET_KEY} or not scheme.fits(key):
        raise CryptokiError(ck.CKR_KEY_TYPE_INCONSISTENT)
    key = session.key(handle, ck.CKA_SIGN if is_signing else ck.CKA_VERIFY)
    session.begin(kind, Signing(key, scheme, mechanism.parameter), key)


def sign_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin a signature."""
    _begin(session, OperationKind.SIGN, mechanism, handle)


def sign(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Sign data in one part."""
    operation: Signing = session.active(OperationKind.SIGN)
    with session.finishing(OperationKind.SIGN):
        _require_one_part(operation)
        room(capacity, operation.size)
        operation.add(data)
        return operation.sign(session)


def sign_update(session: Session, data: bytes) -> None:
    """Add a part."""
    _update(session, OperationKind.SIGN, data)


def sign_final(session: Session, capacity: int | None) -> bytes:
    """Sign all parts."""
    operation: Signing = session.active(OperationKind.SIGN)
    with session.finishing(OperationKind.SIGN):
        room(capacity, operation.size)
        return operation.sign(session)


def verify_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin a verification."""
    _begin(session, OperationKind.VERIFY, mechanism, handle)


def verify(session: Session, data: bytes, signature: bytes) -> None:
    """Verify a signature of data in one part."""
    operation: Signing = session.active(OperationKind.VERIFY)
    with session.finishing(OperationKind.VERIFY):
        _require_one_part(operation)
        operation.add(data)
        operation.verify(session, signature)


def verify_update(session: Session, data: bytes) -> None:
    """Add a part."""
    _update(session, OperationKind.VERIFY, data)


def verify_final(session: Session, signature: bytes) -> None:
    """Verify a signature of all parts."""
    operation: Signing = session.active(OperationKind.VERIFY)
    with session.finishing(OperationKind.VERIFY):
        operation.verify(session, signature)


def _update(session: Session, kind: OperationKind, data: bytes) -> None:
    operation: Signing = session.active(kind)
    try:
        if not operation.scheme.takes_parts:
            raise CryptokiError(ck.CKR_FUNCTION_NOT_SUPPORTED)
        if operation.collects:
            session.hold(kind, len(data))
        operation.add(data)
    except CryptokiError:
        session.end(kind)
        raise
    operation.is_multipart = True


def _require_one_part(operation: Signing) -> None:
    """Refuse C_Sign after C_SignUpdate: a message has one part or many."""
    if operation.is_multipart:
        raise CryptokiError(ck.CKR_OPERATION_ACTIVE)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_SignInit": sign_init,
    "C_Sign": sign,
    "C_SignUpdate": sign_update,
    "C_SignFinal": sign_final,
    "C_VerifyInit": verify_init,
    "C_Verify": verify,
    "C_VerifyUpdate": verify_update,
    "C_VerifyFinal": verify_final,
}
"""Functions by name."""

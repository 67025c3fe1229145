# SPDX-License-Identifier: MIT
"""Signatures and MACs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.key_operations import KeyOperation, add_part, begin
from hsm_cli.interfaces.pkcs11.sessions import OperationKind
from hsm_cli.interfaces.pkcs11.signature_schemes import SCHEMES, Scheme

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session


class Signing(KeyOperation):
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
        super().__init__(key, scheme)
        self.scheme = scheme
        self.parameter = parameter
        self.size = scheme.size(key, parameter)
        self._hasher = hashlib.new(scheme.hash_name) if scheme.hash_name else None
        self.collects = self._hasher is None

    def add(self, data: bytes) -> None:
        """Add a part of the message; see `KeyOperation.add`."""
        if self._hasher is None:
            super().add(data)
        else:
            self._hasher.update(data)

    def all_parts(self) -> bytes:
        """Return the digest, or everything that was collected."""
        if self._hasher is not None:
            return self._hasher.digest()
        return bytes(self._collected)

    def one_part(self, data: bytes) -> bytes:
        """
        Return the digest of the whole message, or the message itself.

        Raises:
            CryptokiError: Parts of it have come before.
        """
        self.require_one_part()
        if self._hasher is None:
            return data
        self._hasher.update(data)
        return self._hasher.digest()

    def sign(self, session: Session, data: bytes) -> bytes:
        """Sign in the HSM."""
        return self.scheme.sign(session.hsm, self.key, self.parameter, data)

    def verify(self, session: Session, data: bytes, signature: bytes) -> None:
        """Verify in the HSM."""
        if len(signature) != self.size:
            raise CryptokiError(ck.CKR_SIGNATURE_LEN_RANGE)
        hsm = self.key.executor(session.hsm)
        self.scheme.verify(hsm, self.key, self.parameter, data, signature)


def sign_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin a signature."""
    begin(session, OperationKind.SIGN, mechanism, handle, schemes=SCHEMES, make=Signing)


def sign(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Sign data in one part."""
    operation: Signing = session.active(OperationKind.SIGN)
    if not operation.is_multipart:
        room(capacity, operation.size)
    session.end(OperationKind.SIGN)
    return operation.sign(session, operation.one_part(data))


def sign_update(session: Session, data: bytes) -> None:
    """Add a part."""
    add_part(session, OperationKind.SIGN, data)


def sign_final(session: Session, capacity: int | None) -> bytes:
    """Sign all parts."""
    operation: Signing = session.active(OperationKind.SIGN)
    with session.finishing(OperationKind.SIGN):
        room(capacity, operation.size)
        return operation.sign(session, operation.all_parts())


def verify_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin a verification."""
    begin(
        session, OperationKind.VERIFY, mechanism, handle, schemes=SCHEMES, make=Signing
    )


def verify(session: Session, data: bytes, signature: bytes) -> None:
    """Verify a signature of data in one part."""
    operation: Signing = session.active(OperationKind.VERIFY)
    session.end(OperationKind.VERIFY)
    operation.verify(session, operation.one_part(data), signature)


def verify_update(session: Session, data: bytes) -> None:
    """Add a part."""
    add_part(session, OperationKind.VERIFY, data)


def verify_final(session: Session, signature: bytes) -> None:
    """Verify a signature of all parts."""
    operation: Signing = session.active(OperationKind.VERIFY)
    with session.finishing(OperationKind.VERIFY):
        operation.verify(session, operation.all_parts(), signature)


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

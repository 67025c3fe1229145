# SPDX-License-Identifier: MIT
"""Operations with a key in one or more parts: how they begin and take data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.sessions import OperationKind

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session

MOST_DATA_BYTES: Final = 64 * 1024 * 1024
"""Data that is collected for one operation."""

_NEEDS: Final = {
    OperationKind.SIGN: (ck.CKO_PRIVATE_KEY, ck.CKA_SIGN),
    OperationKind.VERIFY: (ck.CKO_PUBLIC_KEY, ck.CKA_VERIFY),
    OperationKind.ENCRYPT: (ck.CKO_PUBLIC_KEY, ck.CKA_ENCRYPT),
    OperationKind.DECRYPT: (ck.CKO_PRIVATE_KEY, ck.CKA_DECRYPT),
}
"""Class of the key of a pair, and its usage."""


class KeyScheme(Protocol):
    """
    Part of a mechanism that all operations with a key share.

    Attributes:
        takes_parts: Whether the data may come in parts.
    """

    takes_parts: bool

    def fits(self, key: KeyObject) -> bool:
        """Return whether a key is of the right type."""
        ...


S = TypeVar("S", bound=KeyScheme)


class KeyOperation:
    """
    State of an operation.

    Args:
        key: The key.

        scheme: Its mechanism.

    Attributes:
        is_multipart: Whether a part has come by a call of its own.
    """

    collects = True
    """Whether data is kept until the end."""

    def __init__(self, key: KeyObject, scheme: KeyScheme) -> None:
        self.key = key
        self.takes_parts = scheme.takes_parts
        self.is_multipart = False
        self._collected = bytearray()

    def add(self, data: bytes) -> None:
        """
        Add a part.

        Raises:
            CryptokiError: There is too much of it.
        """
        require_length(len(self._collected) + len(data))
        self._collected += data

    def require_one_part(self) -> None:
        """
        Check that the data has not begun in parts, where it must come in one.

        Raises:
            CryptokiError: It has.
        """
        if self.is_multipart:
            raise CryptokiError(ck.CKR_OPERATION_ACTIVE)


def require_length(length: int) -> None:
    """
    Check the length of all data of an operation.

    Raises:
        CryptokiError: It is too long.
    """
    if length > MOST_DATA_BYTES:
        raise CryptokiError(
            ck.CKR_DATA_LEN_RANGE,
            f"An operation takes at most {MOST_DATA_BYTES} bytes.",
        )


def begin(
    session: Session,
    kind: OperationKind,
    mechanism: Mechanism | None,
    handle: int,
    *,
    schemes: Mapping[int, S],
    make: Callable[[KeyObject, S, Any], KeyOperation],
) -> None:
    """
    Begin an operation with a key; a NULL mechanism ends the active one.

    Args:
        session: Session of the program.

        kind: Kind of the operation.

        mechanism: Mechanism of the call.

        handle: Handle of the key.

        schemes: Mechanisms of this kind.

        make: Makes the state; it checks the parameter.

    Raises:
        CryptokiError: The mechanism, its parameter or the key can't be used.
    """
    if mechanism is None:
        session.end(kind)
        return
    scheme = schemes.get(mechanism.kind)
    if scheme is None:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    object_class, usage = _NEEDS[kind]
    key = session.key(handle)
    if key.object_class not in {object_class, ck.CKO_SECRET_KEY}:
        raise CryptokiError(ck.CKR_KEY_TYPE_INCONSISTENT)
    if not scheme.fits(key):
        raise CryptokiError(ck.CKR_KEY_TYPE_INCONSISTENT)
    operation = make(key, scheme, mechanism.parameter)
    key.require_usage(usage)
    key.require_mechanism(mechanism.kind)
    session.begin(kind, operation, key)


def add_part(session: Session, kind: OperationKind, data: bytes) -> None:
    """
    Add a part to the active operation, which a refusal ends.

    Raises:
        CryptokiError: There is none, it takes no parts, or there is too much data.
    """
    operation: KeyOperation = session.active(kind)
    try:
        if not operation.takes_parts:
            raise CryptokiError(ck.CKR_FUNCTION_NOT_SUPPORTED)
        if operation.collects:
            session.hold(kind, len(data))
        operation.add(data)
    except CryptokiError:
        session.end(kind)
        raise
    operation.is_multipart = True

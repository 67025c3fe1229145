# SPDX-License-Identifier: MIT
"""Session of a program, with its active operations."""

from __future__ import annotations

from enum import IntEnum, auto
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import BufferTooSmallError, CryptokiError
from hsm_cli.interfaces.pkcs11.objects import KeyObject

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.application import Application
    from hsm_core.protocols import HSM


class OperationKind(IntEnum):
    """Kind of an operation; a session has at most one of each."""

    FIND = auto()
    ENCRYPT = auto()
    DECRYPT = auto()
    DIGEST = auto()
    SIGN = auto()
    SIGN_RECOVER = auto()
    VERIFY = auto()
    VERIFY_RECOVER = auto()
    MESSAGE_ENCRYPT = auto()
    MESSAGE_DECRYPT = auto()
    MESSAGE_SIGN = auto()
    MESSAGE_VERIFY = auto()


_CANCELLED: Final = {
    ck.CKF_FIND_OBJECTS: OperationKind.FIND,
    ck.CKF_ENCRYPT: OperationKind.ENCRYPT,
    ck.CKF_DECRYPT: OperationKind.DECRYPT,
    ck.CKF_DIGEST: OperationKind.DIGEST,
    ck.CKF_SIGN: OperationKind.SIGN,
    ck.CKF_SIGN_RECOVER: OperationKind.SIGN_RECOVER,
    ck.CKF_VERIFY: OperationKind.VERIFY,
    ck.CKF_VERIFY_RECOVER: OperationKind.VERIFY_RECOVER,
    ck.CKF_MESSAGE_ENCRYPT: OperationKind.MESSAGE_ENCRYPT,
    ck.CKF_MESSAGE_DECRYPT: OperationKind.MESSAGE_DECRYPT,
    ck.CKF_MESSAGE_SIGN: OperationKind.MESSAGE_SIGN,
    ck.CKF_MESSAGE_VERIFY: OperationKind.MESSAGE_VERIFY,
}
"""Kinds of operations by the flags of C_SessionCancel."""


class Session:
    """
    Session of an application.

    Args:
        handle: Its number.

        application: The application that it belongs to.

        is_writable: Whether it may create and change token objects.
    """

    def __init__(
        self, handle: int, application: Application, *, is_writable: bool
    ) -> None:
        self.handle = handle
        self.application = application
        self.is_writable = is_writable
        self._operations: dict[OperationKind, Any] = {}
        self._unconfirmed: list[OperationKind] = []
        self._held: dict[OperationKind, int] = {}

    @property
    def hsm(self) -> HSM:
        """HSM for the program; its errors are returned as the call's."""
        return self.application.hsm

    def begin(
        self, kind: OperationKind, operation: object, key: KeyObject | None = None
    ) -> None:
        """
        Make an operation active.

        Args:
            kind: Its kind.

            operation: Its state.

            key: The key that it uses. A key with CKA_ALWAYS_AUTHENTICATE needs another
                login before the operation goes on.

        Raises:
            CryptokiError: One of this kind is active.
        """
        if kind in self._operations:
            raise CryptokiError(ck.CKR_OPERATION_ACTIVE)
        self._operations[kind] = operation
        if key is not None and key.needs_login:
            self._unconfirmed.append(kind)

    def active(self, kind: OperationKind) -> Any:
        """
        Return the active operation of a kind.

        Raises:
            CryptokiError: There is none, or its key needs a login first.
        """
        operation = self._operations.get(kind)
        if operation is None:
            raise CryptokiError(ck.CKR_OPERATION_NOT_INITIALIZED)
        if kind in self._unconfirmed:
            raise CryptokiError(ck.CKR_USER_NOT_LOGGED_IN)
        return operation

    def end(self, kind: OperationKind) -> None:
        """End the operation of a kind, if there is one."""
        self._operations.pop(kind, None)
        if kind in self._unconfirmed:
            self._unconfirmed.remove(kind)
        if self._held:
            self.application.memory.give(self._held.pop(kind, 0))

    def end_all(self) -> None:
        """End all operations."""
        for kind in list(self._operations):
            self.end(kind)

    def held(self, kind: OperationKind) -> int:
        """Return how many bytes an operation holds."""
        return self._held.get(kind, 0)

    def hold(self, kind: OperationKind, length: int) -> None:
        """
        Take memory for a part of an operation, which its end gives back.

        Raises:
            CryptokiError: Programs hold too much.
        """
        self.application.memory.take(length)
        self._held[kind] = self._held.get(kind, 0) + length

    def finishing(self, kind: OperationKind) -> Finishing:
        """End an operation after its last call, also if the call fails."""
        return Finishing(self, kind)

    def cancel(self, flags: int) -> None:
        """End the operations that are named by flags of mechanisms."""
        for flag, kind in _CANCELLED.items():
            if flags & flag:
                self.end(kind)

    def require_unconfirmed(self) -> None:
        """
        Check that an operation waits for a login.

        Raises:
            CryptokiError: None does.
        """
        if not self._unconfirmed:
            raise CryptokiError(ck.CKR_OPERATION_NOT_INITIALIZED)

    def confirm(self) -> None:
        """Let the operation go on that began last of those that wait for a login."""
        self._unconfirmed.pop()

    def key(self, handle: int, invalid: int = ck.CKR_KEY_HANDLE_INVALID) -> KeyObject:
        """
        Return a key.

        Args:
            handle: Its object handle.

            invalid: CK_RV for a handle that names none.

        Raises:
            CryptokiError: It is no key that the program can see.
        """
        found = self.application.inventory.find_object(handle, invalid)
        if not isinstance(found, KeyObject):
            raise CryptokiError(invalid)
        return found

    def require_user(self) -> None:
        """
        Check that the user is logged in, if the token needs it.

        Raises:
            CryptokiError: Nobody is.
        """
        if not self.application.sees_private:
            raise CryptokiError(ck.CKR_USER_NOT_LOGGED_IN)

    def require_writable(self) -> None:
        """
        Check that the session may change token objects.

        Raises:
            CryptokiError: It is read-only.
        """
        if not self.is_writable:
            raise CryptokiError(ck.CKR_SESSION_READ_ONLY)


class Finishing:
    """
    Context that ends an operation, except if the program's buffer was too small.

    Args:
        session: The session.

        kind: Kind of the operation.
    """

    __slots__ = ("_kind", "_session")

    def __init__(self, session: Session, kind: OperationKind) -> None:
        self._session = session
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        raised: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if raised is not BufferTooSmallError:
            self._session.end(self._kind)

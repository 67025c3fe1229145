# SPDX-License-Identifier: MIT
"""Encryption and decryption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.cipher_schemes import CIPHERS, ENCRYPTING, CipherScheme
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.key_operations import (
    KeyOperation,
    add_part,
    begin,
    require_length,
)
from hsm_cli.interfaces.pkcs11.sessions import OperationKind

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.objects import KeyObject
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session

EMBEDDED_ONLY: Final = frozenset(
    {ck.CKM_AES_CBC, ck.CKM_AES_CBC_PAD, ck.CKM_AES_CTR, ck.CKM_AES_GCM}
)
"""Mechanisms whose operations have no route, so that a server does not have them."""


class Ciphering(KeyOperation):
    """
    State of an encryption or decryption.

    All parts are collected and go to the HSM as one: a use of a key has one record.

    Args:
        key: The key.

        scheme: What the mechanism does.

        parameter: Parameter of the mechanism.

        encrypts: Whether it encrypts.
    """

    def __init__(
        self, key: KeyObject, scheme: CipherScheme, parameter: Any, *, encrypts: bool
    ) -> None:
        scheme.check(key, parameter)
        super().__init__(key, scheme)
        self.scheme = scheme
        self._parameter = parameter
        self._encrypts = encrypts
        self._last = b""
        self._result: bytes | None = None

    def add(self, data: bytes) -> None:
        """
        Add a part; see `KeyOperation.add`.

        Raises:
            CryptokiError: The result of the parts before it was computed already.
        """
        if self._result is not None:
            raise CryptokiError(ck.CKR_OPERATION_ACTIVE)
        super().add(data)

    def finish(self, session: Session, data: bytes, capacity: int | None) -> bytes:
        """
        Return the result for everything and *data*, which is the last part.

        Raises:
            BufferTooSmallError: The program has too little room. What was computed
                nevertheless, as its length is known only then, is kept for a call
                with the same data.
        """
        if self._result is None or data != self._last:
            length = len(self._collected) + len(data)
            require_length(length)
            if capacity is None or self._encrypts:
                room(capacity, self.scheme.room(self.key, length, self._encrypts))
            work = self.scheme.encrypt if self._encrypts else self.scheme.decrypt
            hsm = self.key.executor(session.hsm)
            whole = bytes(self._collected) + data
            self._result = work(hsm, self.key, self._parameter, whole)
            self._last = data
        room(capacity, len(self._result))
        return self._result


def _begin(
    session: Session, kind: OperationKind, mechanism: Mechanism | None, handle: int
) -> None:
    encrypts = kind is OperationKind.ENCRYPT
    is_embedded = session.application.access.is_embedded
    if mechanism and mechanism.kind in EMBEDDED_ONLY and not is_embedded:
        raise CryptokiError(
            ck.CKR_MECHANISM_INVALID,
            "This mechanism requires an embedded HSM (--embedded).",
        )
    begin(
        session,
        kind,
        mechanism,
        handle,
        schemes=ENCRYPTING if encrypts else CIPHERS,
        make=partial(Ciphering, encrypts=encrypts),
    )


def _whole(
    session: Session, kind: OperationKind, data: bytes, capacity: int | None
) -> bytes:
    operation: Ciphering = session.active(kind)
    with session.finishing(kind):
        operation.require_one_part()
        if capacity is not None:  # a result without room is kept
            session.hold(kind, max(0, len(data) - session.held(kind)))
        return operation.finish(session, data, capacity)


def _update(
    session: Session, kind: OperationKind, data: bytes, capacity: int | None
) -> bytes:
    room(capacity, 0)
    add_part(session, kind, data)
    return b""


def _final(session: Session, kind: OperationKind, capacity: int | None) -> bytes:
    operation: Ciphering = session.active(kind)
    with session.finishing(kind):
        return operation.finish(session, b"", capacity)


def encrypt_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin an encryption."""
    _begin(session, OperationKind.ENCRYPT, mechanism, handle)


def encrypt(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Encrypt data in one part."""
    return _whole(session, OperationKind.ENCRYPT, data, capacity)


def encrypt_update(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Add a part; the whole ciphertext is returned at the end."""
    return _update(session, OperationKind.ENCRYPT, data, capacity)


def encrypt_final(session: Session, capacity: int | None) -> bytes:
    """Encrypt all parts."""
    return _final(session, OperationKind.ENCRYPT, capacity)


def decrypt_init(session: Session, mechanism: Mechanism | None, handle: int) -> None:
    """Begin a decryption."""
    _begin(session, OperationKind.DECRYPT, mechanism, handle)


def decrypt(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Decrypt a ciphertext in one part."""
    return _whole(session, OperationKind.DECRYPT, data, capacity)


def decrypt_update(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Add a part; the whole plaintext is returned at the end."""
    return _update(session, OperationKind.DECRYPT, data, capacity)


def decrypt_final(session: Session, capacity: int | None) -> bytes:
    """Decrypt all parts."""
    return _final(session, OperationKind.DECRYPT, capacity)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_EncryptInit": encrypt_init,
    "C_Encrypt": encrypt,
    "C_EncryptUpdate": encrypt_update,
    "C_EncryptFinal": encrypt_final,
    "C_DecryptInit": decrypt_init,
    "C_Decrypt": decrypt,
    "C_DecryptUpdate": decrypt_update,
    "C_DecryptFinal": decrypt_final,
}
"""Functions by name."""

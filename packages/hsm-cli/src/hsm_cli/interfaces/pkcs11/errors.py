# SPDX-License-Identifier: MIT
"""Errors of PKCS#11 calls, and the return values of the HSM's errors."""

from __future__ import annotations

from typing import Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_core import errors
from hsm_core.errors import HSMError


class CryptokiError(Exception):
    """
    Failed call.

    Args:
        rv: The CK_RV that the program gets; not CKR_OK.

        reason: Sentence for the log; never a secret.
    """

    def __init__(self, rv: int, reason: str = "") -> None:
        super().__init__(reason)
        self.rv = rv
        self.reason = reason


class BufferTooSmallError(CryptokiError):
    """
    Answer to a size query, or to a call whose buffer is too small.

    The operation stays active, as the program calls again with a larger buffer.

    Args:
        length: Bytes that the program must make room for.
    """

    def __init__(self, length: int) -> None:
        super().__init__(ck.CKR_BUFFER_TOO_SMALL)
        self.length = length


def room(capacity: int | None, length: int) -> None:
    """
    Check the program's buffer before anything is done.

    Raises:
        BufferTooSmallError: *capacity* is None, for a size query, or below *length*.
    """
    if capacity is None or capacity < length:
        raise BufferTooSmallError(length)


_RETURN_VALUES: Final[tuple[tuple[type[HSMError], int], ...]] = (
    (errors.ApprovalRequiredError, ck.CKR_FUNCTION_REJECTED),
    (errors.AccessDeniedError, ck.CKR_FUNCTION_REJECTED),
    (errors.AuthenticationError, ck.CKR_USER_NOT_LOGGED_IN),
    (errors.KeyNotFoundError, ck.CKR_KEY_HANDLE_INVALID),
    (errors.KeyUsageError, ck.CKR_KEY_FUNCTION_NOT_PERMITTED),
    (errors.KeyStateError, ck.CKR_KEY_FUNCTION_NOT_PERMITTED),
    (errors.UseLimitError, ck.CKR_KEY_FUNCTION_NOT_PERMITTED),
    (errors.SignatureMismatchError, ck.CKR_SIGNATURE_INVALID),
    (errors.MacMismatchError, ck.CKR_SIGNATURE_INVALID),
    (errors.DecryptionError, ck.CKR_ENCRYPTED_DATA_INVALID),
    (errors.UnknownAlgorithmError, ck.CKR_MECHANISM_INVALID),
    (errors.UnsupportedOperationError, ck.CKR_MECHANISM_INVALID),
    (errors.InputSizeError, ck.CKR_DATA_LEN_RANGE),
    (errors.InvalidInputError, ck.CKR_ARGUMENTS_BAD),
    (errors.ConflictError, ck.CKR_FUNCTION_FAILED),
    (errors.IntegrityError, ck.CKR_DEVICE_ERROR),
    (errors.OverloadedError, ck.CKR_FUNCTION_FAILED),
    (errors.StorageFullError, ck.CKR_DEVICE_MEMORY),
    (errors.AlgorithmUnavailableError, ck.CKR_MECHANISM_INVALID),
    (errors.UnavailableError, ck.CKR_DEVICE_ERROR),
    (errors.StoreLockedError, ck.CKR_DEVICE_ERROR),
    (errors.ConfigurationError, ck.CKR_USER_NOT_LOGGED_IN),
)
"""Return values by class of error; the first class that matches counts."""


def rv_of(error: HSMError) -> int:
    """Return the CK_RV of an error of the HSM."""
    for kind, rv in _RETURN_VALUES:
        if isinstance(error, kind):
            return rv
    return ck.CKR_FUNCTION_FAILED

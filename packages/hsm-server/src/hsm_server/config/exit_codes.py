# SPDX-License-Identifier: MIT
"""Exit statuses of the server, looked up along the MRO of an error."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from hsm_core import errors
from hsm_core.errors import ConfigurationError, HSMError


class ExitCode(IntEnum):
    """Exit statuses of ``hsm-server``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNSAFE_FILE_MODE = 3
    WRONG_MASTER_KEY = 4
    WRONG_AUDIT_KEY = 5
    AUDIT_TAMPERED = 6
    LOCKED = 7
    KEYS_DAMAGED = 8
    LISTEN = 9
    STORE_MISMATCH = 10
    SELF_TEST_FAILED = 11


class ListenError(ConfigurationError):
    """The address or the TLS files are not usable."""


EXIT_CODES: Final[dict[type[HSMError], ExitCode]] = {
    HSMError: ExitCode.FAILED,
    errors.InvalidInputError: ExitCode.USAGE,
    ConfigurationError: ExitCode.USAGE,
    ListenError: ExitCode.LISTEN,
    errors.UnsafeFileModeError: ExitCode.UNSAFE_FILE_MODE,
    errors.WrongMasterKeyError: ExitCode.WRONG_MASTER_KEY,
    errors.WrongAuditKeyError: ExitCode.WRONG_AUDIT_KEY,
    errors.AuditTamperedError: ExitCode.AUDIT_TAMPERED,
    errors.StoreLockedError: ExitCode.LOCKED,
    errors.KeyRingTamperedError: ExitCode.KEYS_DAMAGED,
    errors.KeyTamperedError: ExitCode.KEYS_DAMAGED,
    errors.StoreMismatchError: ExitCode.STORE_MISMATCH,
    errors.SelfTestFailedError: ExitCode.SELF_TEST_FAILED,
    errors.EntropyUnavailableError: ExitCode.SELF_TEST_FAILED,
}
"""Exit status by the nearest class of the error's MRO."""


def exit_code_of(error: HSMError) -> ExitCode:
    """Return the exit status that an error at start leads to."""
    return next(EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES)

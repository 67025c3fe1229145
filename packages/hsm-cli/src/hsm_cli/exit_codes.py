# SPDX-License-Identifier: MIT
"""
Exit codes of hsm-cli, by error.

An error without an entry gets the code of its nearest ancestor in the table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from hsm_client.waiting import ApprovalEndedError
from hsm_core import errors


class BatchFailedError(errors.HSMError):
    """Some items of a batch failed; the others succeeded."""

    code: ClassVar[str] = "batch_failed"


class FileDiffersError(errors.VerificationError):
    """A file does not match the payload of an approval request."""

    code: ClassVar[str] = "file_differs"


class PolicyDiffersError(errors.VerificationError):
    """A tested policy would change recorded decisions."""

    code: ClassVar[str] = "policy_differs"


class ExitCode(IntEnum):
    """Every exit code of hsm-cli."""

    OK = 0
    OTHER = 1
    INVALID_INPUT = 2
    DENIED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    VERIFICATION_FAILED = 6
    INTEGRITY = 7
    UNAVAILABLE = 8
    TRANSPORT = 9
    OUTCOME_UNKNOWN = 10
    APPROVAL_REQUIRED = 11
    BATCH_FAILED = 12
    APPROVAL_ENDED = 13
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141

    @property
    def meaning(self) -> str:
        """Meaning for the reference, one sentence."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    ExitCode.OK: "Success.",
    ExitCode.OTHER: "Other error, such as output that can't be written.",
    ExitCode.INVALID_INPUT: "The command line, a file or a setting is invalid.",
    ExitCode.DENIED: "The credential was rejected, or the policy denies the request.",
    ExitCode.NOT_FOUND: "No such key or version, or you may not see it.",
    ExitCode.CONFLICT: (
        "Conflict: the key's state or usages do not allow it, or the name is taken."
    ),
    ExitCode.VERIFICATION_FAILED: (
        "A signature, MAC or file does not match, a ciphertext can't be decrypted, or "
        "a tested policy would change decisions."
    ),
    ExitCode.INTEGRITY: "Integrity check of a stored key or the audit log failed.",
    ExitCode.UNAVAILABLE: "The HSM is temporarily unavailable; retry later.",
    ExitCode.TRANSPORT: (
        "The server is unreachable or not trusted, or its response is invalid."
    ),
    ExitCode.OUTCOME_UNKNOWN: (
        "A change was sent, but its response was lost; retry with the same idempotency "
        "key."
    ),
    ExitCode.APPROVAL_REQUIRED: (
        "Approval is required, or was not granted within the waiting time."
    ),
    ExitCode.BATCH_FAILED: "Some items of a batch failed; see their output lines.",
    ExitCode.APPROVAL_ENDED: (
        "The approval was denied, cancelled or consumed, or has expired."
    ),
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C.",
    ExitCode.OUTPUT_CLOSED: "The reader of standard output closed the pipe.",
}

EXIT_CODES: Final[dict[type[errors.HSMError], ExitCode]] = {
    errors.HSMError: ExitCode.OTHER,
    errors.InvalidInputError: ExitCode.INVALID_INPUT,
    errors.ConfigurationError: ExitCode.INVALID_INPUT,
    errors.AuthenticationError: ExitCode.DENIED,
    errors.AccessDeniedError: ExitCode.DENIED,
    errors.ApprovalNotFoundError: ExitCode.NOT_FOUND,
    errors.KeyNotFoundError: ExitCode.NOT_FOUND,
    errors.ConflictError: ExitCode.CONFLICT,
    errors.VerificationError: ExitCode.VERIFICATION_FAILED,
    errors.DecryptionError: ExitCode.VERIFICATION_FAILED,
    errors.IntegrityError: ExitCode.INTEGRITY,
    errors.UnavailableError: ExitCode.UNAVAILABLE,
    errors.TransportError: ExitCode.TRANSPORT,
    errors.OutcomeUnknownError: ExitCode.OUTCOME_UNKNOWN,
    errors.ApprovalRequiredError: ExitCode.APPROVAL_REQUIRED,
    BatchFailedError: ExitCode.BATCH_FAILED,
    ApprovalEndedError: ExitCode.APPROVAL_ENDED,
}
"""Exit codes by error family."""


def exit_code(error: errors.HSMError) -> ExitCode:
    """Return the exit code of an error: its own, or that of its nearest ancestor."""
    family = type(error).__mro__
    return next(EXIT_CODES[ancestor] for ancestor in family if ancestor in EXIT_CODES)

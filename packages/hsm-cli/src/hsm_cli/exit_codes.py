# SPDX-License-Identifier: MIT
"""
Which exit code stands for which error.

The table is looked up along the error's ancestors, so that a new error has the code of
the family it belongs to.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from hsm_core import errors


class BatchFailedError(errors.HSMError):
    """Some items of a batch failed; the others were done."""

    code: ClassVar[str] = "batch_failed"


class ApprovalEndedError(errors.HSMError):
    """The approval that was waited for, or named, came to an end."""

    code: ClassVar[str] = "approval_ended"


class FileDiffersError(errors.VerificationError):
    """A file is not what is to be signed."""

    code: ClassVar[str] = "file_differs"


class PolicyDiffersError(errors.VerificationError):
    """A policy that was tried would have answered requests otherwise."""

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
        """One sentence for the reference."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    ExitCode.OK: "It was done.",
    ExitCode.OTHER: "Anything else, such as output that can't be written.",
    ExitCode.INVALID_INPUT: "The command line, a file or a setting is not valid.",
    ExitCode.DENIED: "The credential was refused, or the policy does not allow it.",
    ExitCode.NOT_FOUND: "There is no such key or version, as far as you may know.",
    ExitCode.CONFLICT: "Not in the present state: wrong state or usage, name taken.",
    ExitCode.VERIFICATION_FAILED: (
        "A signature or MAC does not match, a ciphertext can't be opened, or a policy "
        "that was tried would change answers."
    ),
    ExitCode.INTEGRITY: "A stored key or the audit trail was tampered with.",
    ExitCode.UNAVAILABLE: "The HSM can't do it now; it may succeed later.",
    ExitCode.TRANSPORT: (
        "The server could not be reached or trusted, or its answer not be read."
    ),
    ExitCode.OUTCOME_UNKNOWN: (
        "A change was sent and its answer lost; repeat with the same idempotency key."
    ),
    ExitCode.APPROVAL_REQUIRED: (
        "Other people must approve it first, or have not done so while it waited."
    ),
    ExitCode.BATCH_FAILED: "Some items of a batch failed; their lines say why.",
    ExitCode.APPROVAL_ENDED: (
        "The approval that it waited for, or that was named, was denied, cancelled or "
        "used up, or has expired."
    ),
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C.",
    ExitCode.OUTPUT_CLOSED: "The reader of standard output went away.",
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

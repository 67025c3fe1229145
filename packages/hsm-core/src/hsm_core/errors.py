# SPDX-License-Identifier: MIT
"""
Every error that hsm-core raises on purpose.

::

    HSMError
    ├── InvalidInputError (ValueError)
    │   ├── InputSizeError
    │   │   └── PayloadTooLargeError
    │   ├── MalformedError
    │   ├── UnknownAlgorithmError
    │   └── UnsupportedOperationError
    ├── AuthenticationError
    ├── AccessDeniedError (PermissionError)
    ├── ApprovalRequiredError
    ├── ApprovalNotFoundError (LookupError)
    ├── KeyNotFoundError (LookupError)
    ├── ConflictError
    │   ├── GenerationConflictError
    │   ├── IdempotencyConflictError
    │   ├── KeyStateError
    │   ├── KeyUsageError
    │   ├── LeaseHeldError
    │   ├── LeaseLostError
    │   ├── NameTakenError
    │   ├── OperationAbortedError
    │   ├── PreconditionFailedError
    │   ├── UseLimitError
    │   └── VaultConflictError
    ├── VerificationError
    │   ├── SignatureMismatchError
    │   └── MacMismatchError
    ├── DecryptionError
    ├── IntegrityError
    │   ├── ApprovalTamperedError
    │   ├── AuditTamperedError
    │   ├── KeyRingTamperedError
    │   ├── KeyTamperedError
    │   ├── LedgerTamperedError
    │   └── StoreMismatchError
    ├── UnavailableError
    │   ├── AlgorithmUnavailableError
    │   ├── AuditUnavailableError
    │   ├── DeadlineExceededError
    │   ├── EntropyUnavailableError
    │   ├── HSMLockedError
    │   ├── OutcomeUnknownError
    │   ├── OverloadedError
    │   │   ├── RateLimitedError
    │   │   └── TooManyApprovalsError
    │   ├── SelfTestFailedError
    │   ├── StoreUnavailableError
    │   │   └── StorageFullError
    │   └── TransportError
    └── ConfigurationError
        ├── StoreLockedError
        ├── UnsafeFileModeError
        ├── WrongAuditKeyError
        └── WrongMasterKeyError

A message is for people: a full sentence that names the field and the limit, and
never holds key bytes, tokens or plaintext. What a program needs is in ``code`` and
in ``facts``, which travel over the wire.
"""

from __future__ import annotations

from typing import ClassVar, Self, TypeAlias

__all__ = [
    "AccessDeniedError",
    "AlgorithmUnavailableError",
    "ApprovalNotFoundError",
    "ApprovalRequiredError",
    "ApprovalTamperedError",
    "AuditTamperedError",
    "AuditUnavailableError",
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "DeadlineExceededError",
    "DecryptionError",
    "EntropyUnavailableError",
    "Fact",
    "GenerationConflictError",
    "HSMError",
    "HSMLockedError",
    "IdempotencyConflictError",
    "InputSizeError",
    "IntegrityError",
    "InvalidInputError",
    "KeyNotFoundError",
    "KeyRingTamperedError",
    "KeyStateError",
    "KeyTamperedError",
    "KeyUsageError",
    "LeaseHeldError",
    "LeaseLostError",
    "LedgerTamperedError",
    "MacMismatchError",
    "MalformedError",
    "NameTakenError",
    "OperationAbortedError",
    "OutcomeUnknownError",
    "OverloadedError",
    "PayloadTooLargeError",
    "PreconditionFailedError",
    "RateLimitedError",
    "SelfTestFailedError",
    "SignatureMismatchError",
    "StorageFullError",
    "StoreLockedError",
    "StoreMismatchError",
    "StoreUnavailableError",
    "TooManyApprovalsError",
    "TransportError",
    "UnavailableError",
    "UnknownAlgorithmError",
    "UnsafeFileModeError",
    "UnsupportedOperationError",
    "UseLimitError",
    "VaultConflictError",
    "VerificationError",
    "WrongAuditKeyError",
    "WrongMasterKeyError",
    "error_classes",
]

Fact: TypeAlias = str | int
"""One machine-readable fact about an error; never a secret."""


class HSMError(Exception):
    """
    Base of every error that hsm-core raises on purpose.

    Args:
        message: One sentence for people. Empty means the class's own sentence.

        facts: Machine-readable facts, which become ``facts`` and travel over the wire.

    Attributes:
        code: Stable machine name, part of the wire format.
        facts: Names and values, such as ``field`` and ``limit``.
    """

    code: ClassVar[str] = "internal"
    sentence: ClassVar[str] = "The operation failed."

    def __init__(self, message: str = "", /, **facts: Fact) -> None:
        super().__init__(message or self.sentence)
        self.facts: dict[str, Fact] = facts

    @classmethod
    def from_wire(cls, message: str, facts: dict[str, Fact]) -> Self:
        """Rebuild an error that came over the wire, whatever its own arguments are."""
        error = cls.__new__(cls)
        HSMError.__init__(error, message, **facts)
        return error


class InvalidInputError(HSMError, ValueError):
    """An argument breaks a rule; ``facts["field"]`` names it where there is one."""

    code: ClassVar[str] = "invalid_input"
    sentence: ClassVar[str] = "The request is not valid."


class InputSizeError(InvalidInputError):
    """
    A byte string or number lies outside its limits.

    Args:
        field: Name of the argument.

        actual: Length received, in *unit*.

        minimum: Smallest length allowed, in *unit*.

        maximum: Largest length allowed, in *unit*.

        unit: What is counted.
    """

    code: ClassVar[str] = "input_size"

    def __init__(
        self,
        field: str,
        *,
        actual: int,
        minimum: int = 0,
        maximum: int,
        unit: str = "bytes",
    ) -> None:
        wanted = (
            f"{maximum}" if minimum == maximum else f"between {minimum} and {maximum}"
        )
        super().__init__(
            f"{field} must be {wanted} {unit}, got {actual}.",
            field=field,
            actual=actual,
            minimum=minimum,
            maximum=maximum,
        )


class PayloadTooLargeError(InputSizeError):
    """A body or a payload is longer than the settings allow."""

    code: ClassVar[str] = "payload_too_large"


class MalformedError(InvalidInputError):
    """Bytes that should be JSON, base64, a token or a blob are not."""

    code: ClassVar[str] = "malformed"
    sentence: ClassVar[str] = "The request could not be read."


class UnknownAlgorithmError(InvalidInputError):
    """No algorithm of the table has this name."""

    code: ClassVar[str] = "unknown_algorithm"


class UnsupportedOperationError(InvalidInputError):
    """The algorithm has no such operation, or not with these parameters."""

    code: ClassVar[str] = "unsupported_operation"


class AuthenticationError(HSMError):
    """The credential is missing, malformed, forged or expired; it is not said which."""

    code: ClassVar[str] = "authentication_failed"
    sentence: ClassVar[str] = "Authentication failed."


class AccessDeniedError(HSMError, PermissionError):
    """The caller is known, but no rule lets them do this."""

    code: ClassVar[str] = "access_denied"
    sentence: ClassVar[str] = "The policy does not allow this."


class ApprovalRequiredError(HSMError):
    """
    Other people must agree first; ``facts["approval_id"]`` names the approval.

    ``facts`` hold its ``digest`` and ``expires_at`` (RFC 3339). Whoever asked sends the
    same operation again when they have agreed.

    Attributes:
        approval: What they are asked, an ``operations.ApprovalInfo``; None where the
            HSM did not tell.
    """

    code: ClassVar[str] = "approval_required"
    sentence: ClassVar[str] = "This needs the approval of other people."

    approval: object | None = None


class ApprovalNotFoundError(HSMError, LookupError):
    """There is no such approval, or the caller may not know of it."""

    code: ClassVar[str] = "approval_not_found"
    sentence: ClassVar[str] = "There is no such approval."


class KeyNotFoundError(HSMError, LookupError):
    """There is no such key or version, or the caller may not know of it."""

    code: ClassVar[str] = "key_not_found"
    sentence: ClassVar[str] = "There is no such key."


class ConflictError(HSMError):
    """The request is valid, but not in the present state of things."""

    code: ClassVar[str] = "conflict"


class GenerationConflictError(ConflictError):
    """The key was changed by somebody else while this operation was prepared."""

    code: ClassVar[str] = "generation_conflict"
    sentence: ClassVar[str] = "The key was changed meanwhile; try again."


class IdempotencyConflictError(ConflictError):
    """The idempotency key was used before, for another request."""

    code: ClassVar[str] = "idempotency_conflict"
    sentence: ClassVar[str] = "This idempotency key was used for another request."


class PreconditionFailedError(ConflictError):
    """The key is not at the generation that the caller named; nothing was done."""

    code: ClassVar[str] = "precondition_failed"
    sentence: ClassVar[str] = (
        "The key was changed since it was looked at; nothing was done."
    )


class KeyStateError(ConflictError):
    """The key version is in a state that does not allow the operation."""

    code: ClassVar[str] = "wrong_state"


class KeyUsageError(ConflictError):
    """The key was not created for this usage."""

    code: ClassVar[str] = "usage_not_allowed"


class NameTakenError(ConflictError):
    """Another key has this name."""

    code: ClassVar[str] = "name_taken"
    sentence: ClassVar[str] = "Another key has this name."


class OperationAbortedError(ConflictError):
    """Recovery has marked this operation as aborted, so it can't commit any more."""

    code: ClassVar[str] = "operation_aborted"
    sentence: ClassVar[str] = "The operation was aborted by recovery."


class UseLimitError(ConflictError):
    """
    The key's material has protected as much as it may; rotate the key.

    ``facts`` name the ``version``, its ``uses`` and the ``limit``.
    """

    code: ClassVar[str] = "use_limit"


class VerificationError(HSMError):
    """A check was made and its answer is no."""

    code: ClassVar[str] = "verification_failed"


class SignatureMismatchError(VerificationError):
    """The signature is not one of this key over this message."""

    code: ClassVar[str] = "signature_mismatch"
    sentence: ClassVar[str] = "The signature does not match."


class MacMismatchError(VerificationError):
    """The MAC is not one of this key over this message."""

    code: ClassVar[str] = "mac_mismatch"
    sentence: ClassVar[str] = "The MAC does not match."


class DecryptionError(HSMError):
    """The ciphertext could not be opened; there is no detail on purpose."""

    code: ClassVar[str] = "decryption_failed"
    sentence: ClassVar[str] = "The ciphertext could not be decrypted."


class IntegrityError(HSMError):
    """Something stored was changed by other means than ours."""

    code: ClassVar[str] = "integrity"


class AuditTamperedError(IntegrityError):
    """
    The trail is damaged.

    ``facts`` name the first bad record as ``seq`` and the ``reason``.
    """

    code: ClassVar[str] = "audit_tampered"


class KeyRingTamperedError(IntegrityError):
    """The sealed key ring is damaged; no key can be opened."""

    code: ClassVar[str] = "key_ring_tampered"
    sentence: ClassVar[str] = "The key ring is damaged."


class KeyTamperedError(IntegrityError):
    """The key's document or a sealed blob was edited, swapped or lost."""

    code: ClassVar[str] = "key_tampered"
    sentence: ClassVar[str] = "The stored key was tampered with."


class StoreMismatchError(IntegrityError):
    """The key store is empty, and the trail knows one; or something in it differs."""

    code: ClassVar[str] = "store_mismatch"
    sentence: ClassVar[str] = "The key store is not the one that the trail knows."


class ApprovalTamperedError(IntegrityError):
    """The stored form of an approval is not what the HSM wrote."""

    code: ClassVar[str] = "approval_tampered"
    sentence: ClassVar[str] = "The stored approval was changed by others."


class LedgerTamperedError(IntegrityError):
    """The retention ledger is not the one that the trail knows, or was changed."""

    code: ClassVar[str] = "ledger_tampered"
    sentence: ClassVar[str] = "The retention ledger was changed by others."


class UnavailableError(HSMError):
    """The HSM can't do this now; the same request may succeed later."""

    code: ClassVar[str] = "unavailable"


class AlgorithmUnavailableError(UnavailableError):
    """No provider on this machine serves the algorithm."""

    code: ClassVar[str] = "algorithm_unavailable"


class HSMLockedError(UnavailableError):
    """
    The store is not the one that the trail knows; only recovery goes on.

    Status, views of the trail, verification and recovery operations are served.
    """

    code: ClassVar[str] = "hsm_locked"
    sentence: ClassVar[str] = (
        "The HSM is locked: its key store is not the one that its trail knows."
    )


class AuditUnavailableError(UnavailableError):
    """The trail can't be written, so nothing is done and nothing is answered."""

    code: ClassVar[str] = "audit_unavailable"
    sentence: ClassVar[str] = "The audit trail can't be written."


class DeadlineExceededError(UnavailableError):
    """The request was not begun before its deadline; nothing was done."""

    code: ClassVar[str] = "deadline_exceeded"
    sentence: ClassVar[str] = "The request's deadline has passed."


class EntropyUnavailableError(UnavailableError):
    """The operating system's random generator failed its health test."""

    code: ClassVar[str] = "entropy_unavailable"
    sentence: ClassVar[str] = "The random generator is not healthy."


class OutcomeUnknownError(UnavailableError):
    """
    The change may have been made, but its outcome could not be recorded or heard.

    ``facts["operation_id"]`` finds it: the same request with the same idempotency key
    gives the answer, without doing it twice.
    """

    code: ClassVar[str] = "outcome_unknown"


class OverloadedError(UnavailableError):
    """Too many requests are waiting already; nothing was done."""

    code: ClassVar[str] = "overloaded"
    sentence: ClassVar[str] = "Too many requests are waiting; try again later."


class RateLimitedError(OverloadedError):
    """
    The caller has asked for too much in too short a time; nothing was done.

    ``facts`` name the ``limit`` and ``retry_after_seconds``.
    """

    code: ClassVar[str] = "rate_limited"
    sentence: ClassVar[str] = "Too many requests; try again later."


class SelfTestFailedError(UnavailableError):
    """A self-test failed; the algorithm gives no output, or the HSM does not open."""

    code: ClassVar[str] = "self_test_failed"


class TooManyApprovalsError(OverloadedError):
    """The caller has too many open requests for approval; ``facts`` name the limit."""

    code: ClassVar[str] = "too_many_approvals"
    sentence: ClassVar[str] = "You have too many open requests for approval."


class StoreUnavailableError(UnavailableError):
    """The key store can't be read or written."""

    code: ClassVar[str] = "store_unavailable"
    sentence: ClassVar[str] = "The key store is not available."


class StorageFullError(StoreUnavailableError):
    """There is no room left; nothing was changed."""

    code: ClassVar[str] = "storage_full"
    sentence: ClassVar[str] = "There is no room left in the key store."


class TransportError(UnavailableError):
    """The HSM could not be reached, or its answer could not be read."""

    code: ClassVar[str] = "transport"


class LeaseHeldError(ConflictError):
    """Another holder has the name; ``facts`` may tell until when."""

    code: ClassVar[str] = "lease_held"
    sentence: ClassVar[str] = "Another holder has this lease."


class LeaseLostError(ConflictError):
    """The lease was released, has expired, or has gone to another holder."""

    code: ClassVar[str] = "lease_lost"
    sentence: ClassVar[str] = "The lease is lost."


class VaultConflictError(ConflictError):
    """An object in a remote vault is not as its caller expected."""

    code: ClassVar[str] = "vault_conflict"
    sentence: ClassVar[str] = "The object in the vault was changed meanwhile."


class ConfigurationError(HSMError):
    """A setting is missing, malformed or refused; the HSM does not start."""

    code: ClassVar[str] = "configuration"


class StoreLockedError(ConfigurationError):
    """Another process writes this store or trail."""

    code: ClassVar[str] = "store_locked"


class UnsafeFileModeError(ConfigurationError):
    """Other users could read or write a file that must be ours alone."""

    code: ClassVar[str] = "unsafe_file_mode"


class WrongAuditKeyError(ConfigurationError):
    """The HMAC key is not the one that this trail was written with."""

    code: ClassVar[str] = "wrong_audit_key"
    sentence: ClassVar[str] = "The HMAC key does not belong to this audit trail."


class WrongMasterKeyError(ConfigurationError):
    """The master key is not the one that this store was sealed with."""

    code: ClassVar[str] = "wrong_master_key"
    sentence: ClassVar[str] = "The master key does not belong to this key store."


def error_classes() -> dict[str, type[HSMError]]:
    """Return every public error class by its code."""
    named = (globals()[name] for name in __all__)
    classes = (c for c in named if isinstance(c, type) and issubclass(c, HSMError))
    return {cls.code: cls for cls in classes}

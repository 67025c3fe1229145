# SPDX-License-Identifier: MIT
"""
Errors of hsm-core.

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

Messages are full sentences that name the field and the limit; they never contain key
bytes, tokens or plaintext. Programs read ``code`` and ``facts``, which are sent over
the wire.
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
"""Machine-readable fact about an error; never a secret."""


class HSMError(Exception):
    """
    Base class of all hsm-core errors.

    Args:
        message: Message, a full sentence. Empty means the default sentence of the
            class.

        facts: Machine-readable facts, sent over the wire as ``facts``.

    Attributes:
        code: Stable error code, part of the wire format.
        facts: Names and values, such as ``field`` and ``limit``.
    """

    code: ClassVar[str] = "internal"
    sentence: ClassVar[str] = "The operation failed."

    def __init__(self, message: str = "", /, **facts: Fact) -> None:
        super().__init__(message or self.sentence)
        self.facts: dict[str, Fact] = facts

    @classmethod
    def from_wire(cls, message: str, facts: dict[str, Fact]) -> Self:
        """Rebuild an error received over the wire."""
        error = cls.__new__(cls)
        HSMError.__init__(error, message, **facts)
        return error


class InvalidInputError(HSMError, ValueError):
    """An argument is invalid; ``facts["field"]`` names the field, if any."""

    code: ClassVar[str] = "invalid_input"
    sentence: ClassVar[str] = "The request is not valid."


class InputSizeError(InvalidInputError):
    """
    The length of a byte string or the value of a number is out of range.

    Args:
        field: Name of the argument.

        actual: Length received, in *unit*.

        minimum: Smallest length allowed, in *unit*.

        maximum: Largest length allowed, in *unit*.

        unit: Unit of the limits; empty for none.
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
            f"{field} must be {f'{wanted} {unit}'.rstrip()}, got {actual}.",
            field=field,
            actual=actual,
            minimum=minimum,
            maximum=maximum,
        )


class PayloadTooLargeError(InputSizeError):
    """A body or payload exceeds the configured limit."""

    code: ClassVar[str] = "payload_too_large"


class MalformedError(InvalidInputError):
    """Input is not well-formed JSON, base64, token or blob."""

    code: ClassVar[str] = "malformed"
    sentence: ClassVar[str] = "The request could not be read."


class UnknownAlgorithmError(InvalidInputError):
    """The algorithm name is unknown."""

    code: ClassVar[str] = "unknown_algorithm"


class UnsupportedOperationError(InvalidInputError):
    """The algorithm does not support the operation or its parameters."""

    code: ClassVar[str] = "unsupported_operation"


class AuthenticationError(HSMError):
    """The credential is missing, malformed, forged or expired; no detail is given."""

    code: ClassVar[str] = "authentication_failed"
    sentence: ClassVar[str] = "Authentication failed."


class AccessDeniedError(HSMError, PermissionError):
    """The caller is authenticated, but the policy does not allow the operation."""

    code: ClassVar[str] = "access_denied"
    sentence: ClassVar[str] = "The policy does not allow this."


class ApprovalRequiredError(HSMError):
    """
    Other people must approve first; ``facts["approval_id"]`` names the approval.

    ``facts`` hold its ``digest`` and ``expires_at`` (RFC 3339). The requester sends the
    same operation again once it is approved.

    Attributes:
        approval: Approval request, an ``operations.ApprovalInfo``; None if not
            disclosed.
    """

    code: ClassVar[str] = "approval_required"
    sentence: ClassVar[str] = "Approval by other people is required."

    approval: object | None = None


class ApprovalNotFoundError(HSMError, LookupError):
    """The approval does not exist, or the caller may not see it."""

    code: ClassVar[str] = "approval_not_found"
    sentence: ClassVar[str] = "There is no such approval."


class KeyNotFoundError(HSMError, LookupError):
    """The key or version does not exist, or the caller may not see it."""

    code: ClassVar[str] = "key_not_found"
    sentence: ClassVar[str] = "There is no such key."


class ConflictError(HSMError):
    """The request conflicts with the current state."""

    code: ClassVar[str] = "conflict"


class GenerationConflictError(ConflictError):
    """The key was changed by another request during this operation."""

    code: ClassVar[str] = "generation_conflict"
    sentence: ClassVar[str] = "The key was changed by another request. Try again."


class IdempotencyConflictError(ConflictError):
    """The idempotency key was already used for a different request."""

    code: ClassVar[str] = "idempotency_conflict"
    sentence: ClassVar[str] = (
        "The idempotency key was already used for a different request."
    )


class PreconditionFailedError(ConflictError):
    """The key does not have the expected generation; nothing was done."""

    code: ClassVar[str] = "precondition_failed"
    sentence: ClassVar[str] = (
        "The key has a different generation than expected; nothing was done. Read the "
        "key again."
    )


class KeyStateError(ConflictError):
    """The state of the key version does not allow the operation."""

    code: ClassVar[str] = "wrong_state"


class KeyUsageError(ConflictError):
    """The key was not created for this usage."""

    code: ClassVar[str] = "usage_not_allowed"


class NameTakenError(ConflictError):
    """Another key already has this name."""

    code: ClassVar[str] = "name_taken"
    sentence: ClassVar[str] = "Another key already has this name."


class OperationAbortedError(ConflictError):
    """Recovery aborted the operation, so it can't commit."""

    code: ClassVar[str] = "operation_aborted"
    sentence: ClassVar[str] = (
        "The operation was aborted by recovery. Send it again with a new idempotency "
        "key."
    )


class UseLimitError(ConflictError):
    """
    The key material reached its use limit; rotate the key.

    ``facts`` name the ``version``, its ``uses`` and the ``limit``.
    """

    code: ClassVar[str] = "use_limit"


class VerificationError(HSMError):
    """A verification failed."""

    code: ClassVar[str] = "verification_failed"


class SignatureMismatchError(VerificationError):
    """The signature is not valid for this key and message."""

    code: ClassVar[str] = "signature_mismatch"
    sentence: ClassVar[str] = "The signature does not match."


class MacMismatchError(VerificationError):
    """The MAC is not valid for this key and message."""

    code: ClassVar[str] = "mac_mismatch"
    sentence: ClassVar[str] = "The MAC does not match."


class DecryptionError(HSMError):
    """The ciphertext could not be decrypted; no detail is given on purpose."""

    code: ClassVar[str] = "decryption_failed"
    sentence: ClassVar[str] = "The ciphertext could not be decrypted."


class IntegrityError(HSMError):
    """Stored data was altered outside the HSM."""

    code: ClassVar[str] = "integrity"


class AuditTamperedError(IntegrityError):
    """
    The audit log is damaged.

    ``facts`` name the first bad record as ``seq`` and the ``reason``.
    """

    code: ClassVar[str] = "audit_tampered"


class KeyRingTamperedError(IntegrityError):
    """The sealed key ring is damaged; no key can be unsealed."""

    code: ClassVar[str] = "key_ring_tampered"
    sentence: ClassVar[str] = "The key ring is damaged."


class KeyTamperedError(IntegrityError):
    """A key's document or sealed blob was altered, swapped or lost."""

    code: ClassVar[str] = "key_tampered"
    sentence: ClassVar[str] = "The stored key failed its integrity check."


class StoreMismatchError(IntegrityError):
    """The key store is empty or does not match the audit log."""

    code: ClassVar[str] = "store_mismatch"
    sentence: ClassVar[str] = "The key store does not match the audit log."


class ApprovalTamperedError(IntegrityError):
    """A stored approval was altered outside the HSM."""

    code: ClassVar[str] = "approval_tampered"
    sentence: ClassVar[str] = "The stored approval failed its integrity check."


class LedgerTamperedError(IntegrityError):
    """The retention ledger does not match the audit log, or was altered."""

    code: ClassVar[str] = "ledger_tampered"
    sentence: ClassVar[str] = "The retention ledger failed its integrity check."


class UnavailableError(HSMError):
    """The HSM is temporarily unable to serve the request; retry later."""

    code: ClassVar[str] = "unavailable"


class AlgorithmUnavailableError(UnavailableError):
    """No installed provider implements the algorithm."""

    code: ClassVar[str] = "algorithm_unavailable"


class HSMLockedError(UnavailableError):
    """
    The store does not match the audit log; only recovery is possible.

    Status, audit queries, verification and recovery operations are served.
    """

    code: ClassVar[str] = "hsm_locked"
    sentence: ClassVar[str] = (
        "The HSM is locked: its key store does not match its audit log. Run recovery."
    )


class AuditUnavailableError(UnavailableError):
    """The audit log can't be written, so no operation is executed."""

    code: ClassVar[str] = "audit_unavailable"
    sentence: ClassVar[str] = "The audit log can't be written."


class DeadlineExceededError(UnavailableError):
    """The deadline passed before execution began; nothing was done."""

    code: ClassVar[str] = "deadline_exceeded"
    sentence: ClassVar[str] = "The request's deadline has passed; nothing was done."


class EntropyUnavailableError(UnavailableError):
    """The operating system's random generator failed its health test."""

    code: ClassVar[str] = "entropy_unavailable"
    sentence: ClassVar[str] = "The system's random generator failed its health test."


class OutcomeUnknownError(UnavailableError):
    """
    The change may have been made, but its outcome was not recorded or received.

    ``facts["operation_id"]`` identifies it. The same request with the same idempotency
    key returns the result and is not executed twice.
    """

    code: ClassVar[str] = "outcome_unknown"


class OverloadedError(UnavailableError):
    """Too many requests are queued; nothing was done."""

    code: ClassVar[str] = "overloaded"
    sentence: ClassVar[str] = "Too many requests are queued. Try again later."


class RateLimitedError(OverloadedError):
    """
    The caller exceeded a rate limit; nothing was done.

    ``facts`` name the ``limit`` and ``retry_after_seconds``.
    """

    code: ClassVar[str] = "rate_limited"
    sentence: ClassVar[str] = "Too many requests. Try again later."


class SelfTestFailedError(UnavailableError):
    """A self-test failed; the algorithm is disabled, or the HSM does not open."""

    code: ClassVar[str] = "self_test_failed"


class TooManyApprovalsError(OverloadedError):
    """The caller has too many open approval requests; ``facts`` name the limit."""

    code: ClassVar[str] = "too_many_approvals"
    sentence: ClassVar[str] = (
        "Too many open approval requests. Cancel some or wait for decisions."
    )


class StoreUnavailableError(UnavailableError):
    """The store of keys or approvals can't be read or written."""

    code: ClassVar[str] = "store_unavailable"
    sentence: ClassVar[str] = "The store of keys or approvals is not available."


class StorageFullError(StoreUnavailableError):
    """The storage is full; nothing was changed."""

    code: ClassVar[str] = "storage_full"
    sentence: ClassVar[str] = "The store of keys or approvals is full."


class TransportError(UnavailableError):
    """The HSM could not be reached, or its response could not be read."""

    code: ClassVar[str] = "transport"


class LeaseHeldError(ConflictError):
    """Another holder has the lease; ``facts`` may name its expiry."""

    code: ClassVar[str] = "lease_held"
    sentence: ClassVar[str] = "The lease is held by another node."


class LeaseLostError(ConflictError):
    """The lease was released, expired, or taken by another holder."""

    code: ClassVar[str] = "lease_lost"
    sentence: ClassVar[str] = "The lease was lost."


class VaultConflictError(ConflictError):
    """An object in a remote vault does not have the expected version."""

    code: ClassVar[str] = "vault_conflict"
    sentence: ClassVar[str] = "The object in the vault was changed by another writer."


class ConfigurationError(HSMError):
    """A setting is missing or invalid; the HSM does not start."""

    code: ClassVar[str] = "configuration"


class StoreLockedError(ConfigurationError):
    """Another process has the store or audit log open for writing."""

    code: ClassVar[str] = "store_locked"


class UnsafeFileModeError(ConfigurationError):
    """A file that must be private is accessible to other users."""

    code: ClassVar[str] = "unsafe_file_mode"


class WrongAuditKeyError(ConfigurationError):
    """The HMAC key does not match the audit log."""

    code: ClassVar[str] = "wrong_audit_key"
    sentence: ClassVar[str] = (
        "The HMAC key does not match this audit log. Pass the key that it was created "
        "with."
    )


class WrongMasterKeyError(ConfigurationError):
    """The root key does not match the key store."""

    code: ClassVar[str] = "wrong_master_key"
    sentence: ClassVar[str] = (
        "The root key does not match this key store. Pass the key that it was "
        "created with."
    )


def error_classes() -> dict[str, type[HSMError]]:
    """Return every public error class by its code."""
    named = (globals()[name] for name in __all__)
    classes = (c for c in named if isinstance(c, type) and issubclass(c, HSMError))
    return {cls.code: cls for cls in classes}

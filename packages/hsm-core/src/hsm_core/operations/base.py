# SPDX-License-Identifier: MIT
"""Operations: immutable requests that state effect and result type; field types."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Generic, TypeAlias, TypeVar, get_args

from msgspec import Meta

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import KeyId, Line, Record

__all__ = [
    "AlgorithmName",
    "AnyApprovalDigest",
    "ApprovalDigest",
    "ApprovalGeneration",
    "ApprovalReference",
    "Effect",
    "Instant",
    "ItemError",
    "ItemReference",
    "KeyName",
    "KeyReference",
    "MuBytes",
    "NewOwner",
    "Operation",
    "Owner",
    "PerPage",
    "Reason",
    "Sequence53",
    "SignatureContext",
    "Tag",
    "Tags",
    "Text",
    "Usages",
    "Verified",
    "VerifiedBatch",
    "VerifiedItem",
    "VersionNumber",
    "WaitingDays",
    "Why",
    "result_type",
]


R_co = TypeVar("R_co", covariant=True)


class Effect(StrEnum):
    """
    Effect of an operation, which determines its audit records.

    A mutation has an intent record and an outcome record. A use or a view has one
    record. A recovery has one record per affected key, written before it takes effect,
    and one for itself. A read of public facts has none unless it is denied. A consent
    changes an approval and has intent and outcome.
    """

    MUTATION = "mutation"
    USE = "use"
    VIEW = "view"
    RECOVERY = "recovery"
    READ = "read"
    CONSENT = "consent"


class Operation(Record, Generic[R_co], frozen=True, kw_only=True, tag=True):
    """
    Base of every operation; the type argument is the type of its result.

    Attributes:
        effect: Effect, which determines the audit records.
        usage: Required key usage, if the operation uses a key.
        other_keys: Fields with further key IDs; each is resolved and authorized like
            ``key_id``.
        while_locked: Whether a locked HSM serves the operation.
    """

    effect: ClassVar[Effect]
    usage: ClassVar[KeyUsage | None] = None
    other_keys: ClassVar[tuple[str, ...]] = ()
    while_locked: ClassVar[bool] = False


def result_type(operation: type[Operation[R_co]]) -> type[R_co]:
    """Return the type of an operation's result."""
    (base,) = operation.__orig_bases__  # type: ignore[attr-defined]
    (result,) = get_args(base)
    found: type[R_co] = result
    return found


KeyReference: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-z][0-9a-z._-]{0,63}\Z",
        max_length=64,
        description="Key ID (UUID) or unique key name.",
        examples=["3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11", "release-signer"],
    ),
]
KeyName: TypeAlias = Annotated[
    str, Meta(pattern=r"^([0-9a-z][0-9a-z._-]{0,63})?\Z", max_length=64)
]
Tag: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._:/=+@-]{0,63}\Z", max_length=64)
]
Tags: TypeAlias = Annotated[tuple[Tag, ...], Meta(max_length=32)]
Owner: TypeAlias = Annotated[str, Meta(max_length=128)]
Usages: TypeAlias = Annotated[tuple[KeyUsage, ...], Meta(max_length=10)]
ItemReference: TypeAlias = Annotated[
    str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
SignatureContext: TypeAlias = Annotated[bytes, Meta(max_length=255)]
MuBytes: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
AlgorithmName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
VersionNumber: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
PerPage: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Sequence53: TypeAlias = Annotated[int, Meta(ge=0, lt=2**53)]
Text: TypeAlias = Annotated[str, Meta(max_length=1024)]
Reason: TypeAlias = Annotated[
    str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
Why: TypeAlias = Annotated[Line, Meta(min_length=1)]
Instant: TypeAlias = Annotated[
    datetime,
    Meta(
        tz=True,
        description="Date and time with an offset from UTC.",
        examples=["2026-01-31T12:00:00Z"],
    ),
]
WaitingDays: TypeAlias = Annotated[int, Meta(ge=0, le=3650)]
NewOwner: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
ApprovalReference: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z",
        max_length=36,
        description="Approval ID (UUID).",
        examples=["5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"],
    ),
]
ApprovalDigest: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{64}\Z", max_length=64)
]
AnyApprovalDigest: TypeAlias = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{64})?\Z", max_length=64)
]
ApprovalGeneration: TypeAlias = Annotated[int, Meta(ge=0, lt=2**53)]


class Verified(Record, frozen=True, kw_only=True):
    """Valid signature or MAC, made by *version*; an invalid one raises an error."""

    key_id: KeyId
    version: int
    algorithm: Algorithm


class ItemError(Record, frozen=True, kw_only=True):
    """Error of one failed batch item: code and message."""

    code: str
    detail: str


class VerifiedItem(Record, frozen=True, kw_only=True):
    """Answer to one `VerifyItem` or `VerifyMacItem`: a version, or an error."""

    reference: str
    version: int = 0
    error: ItemError | None = None


class VerifiedBatch(Record, frozen=True, kw_only=True):
    """Results of a verification batch, in the order of its items."""

    key_id: KeyId
    algorithm: Algorithm
    items: tuple[VerifiedItem, ...]

# SPDX-License-Identifier: MIT
"""Operations: immutable requests that state effect and result type; field types."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import KeyId, Line, Record

__all__ = [
    "AlgorithmName",
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
    "Route",
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
    "base64_text",
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


class Route(Record, frozen=True):
    """
    REST route of an operation.

    A path parameter or query parameter is a field of the operation; all other fields
    are the members of a JSON body.

    Attributes:
        path: Template below ``/api/v1``, with fields in braces.
        success: Status of a success.
        location: Template of the Location header over fields of the result.
        raw_request: Field that may be the whole body, as ``application/octet-stream``;
            the other fields are then query parameters.
        raw_response: Field of the result that may be the whole answer, if asked for by
            ``Accept: application/octet-stream``.
        events: Whether ``Accept: text/event-stream`` asks for a live view.
        example: All fields of a valid request, as JSON, for the OpenAPI description.
            The examples use keys that a reader can create first: ``release-signer``
            (EC-P256), ``document-key`` (AES-256-GCM), ``webhook-mac`` (HMAC-SHA-256),
            ``mailbox`` (MLKEM768-ECDH-P256-SHA3-256), ``transport`` (RSA-3072 for wrap
            and unwrap) and ``session-root`` (HKDF-SHA-256).
    """

    method: str
    path: str
    success: int = 200
    location: str = ""
    raw_request: str = ""
    raw_response: str = ""
    events: bool = False
    example: Mapping[str, Any] = {}

    @property
    def has_body(self) -> bool:
        """Whether fields travel in a body rather than in the query."""
        return self.method in {"POST", "PUT", "PATCH"}

    @property
    def path_fields(self) -> tuple[str, ...]:
        """Fields of the operation in the path."""
        return tuple(part[1:-1] for part in self.path.split("/") if part[:1] == "{")


def base64_text(data: bytes) -> str:
    """Return bytes as they are in JSON, for an example."""
    return base64.b64encode(data).decode()


class Operation(Record, Generic[R_co], frozen=True, kw_only=True, tag=True):
    """
    Base of every operation; the type argument is the type of its result.

    Attributes:
        effect: Effect, which determines the audit records.
        usage: Required key usage, if the operation uses a key.
        other_keys: Fields with further key IDs; each is resolved and authorized like
            ``key_id``.
        while_locked: Whether a locked HSM serves the operation.
        route: REST route; an internal operation has none.
    """

    effect: ClassVar[Effect]
    usage: ClassVar[KeyUsage | None] = None
    other_keys: ClassVar[tuple[str, ...]] = ()
    while_locked: ClassVar[bool] = False
    route: ClassVar[Route]

    @classmethod
    def names_key(cls) -> bool:
        """Return whether the operation is about one existing key, named by key_id."""
        return "key_id" in cls.required_fields()

    @classmethod
    def required_fields(cls) -> tuple[str, ...]:
        """
        Return the fields without a default.

        ``msgspec.structs.fields`` tells so, too, but resolves all annotations first,
        which takes a hundred times as long at import.
        """
        names, defaults = cls.__struct_fields__, cls.__struct_defaults__
        first = len(names) - len(defaults)
        rest = zip(names[first:], defaults, strict=True)
        return (*names[:first], *(n for n, d in rest if d is msgspec.NODEFAULT))


def result_type(operation: type[Operation[R_co]]) -> type[R_co]:
    """Return the type of an operation's result."""
    found: type[R_co] = _result_type(operation)
    return found


@cache
def _result_type(operation: Any) -> Any:
    (base,) = operation.__orig_bases__
    (result,) = get_args(base)
    return result


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


class Verified(Record, frozen=True, kw_only=True):
    """Valid signature or MAC, made by *version*; an invalid one raises an error."""

    repr_fields: ClassVar = ("key_id", "version", "algorithm")

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

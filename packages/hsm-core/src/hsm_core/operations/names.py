# SPDX-License-Identifier: MIT
"""Field types of operations: names, numbers, texts, instants."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import Meta

from hsm_core.algorithms import KeyUsage
from hsm_core.model import Line

__all__ = [
    "AlgorithmName",
    "AnyApprovalDigest",
    "ApprovalDigest",
    "ApprovalGeneration",
    "ApprovalReference",
    "Instant",
    "ItemReference",
    "KeyName",
    "KeyReference",
    "MuBytes",
    "NewOwner",
    "Owner",
    "PerPage",
    "Reason",
    "Sequence53",
    "SignatureContext",
    "Tag",
    "Tags",
    "Text",
    "Usages",
    "VersionNumber",
    "WaitingDays",
    "Why",
]

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

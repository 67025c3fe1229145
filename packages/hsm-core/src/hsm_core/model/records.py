# SPDX-License-Identifier: MIT
"""Base of all records, and common field types."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

__all__ = [
    "CertificateNames",
    "CertificateText",
    "Line",
    "ParameterValue",
    "Parameters",
    "Record",
    "Secret",
]


class Record(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Base of all public records."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


Secret: TypeAlias = Annotated[bytes, msgspec.Meta(extra={"secret": True})]
"""Secret bytes for the caller only; never stored, logged or cached."""

Line: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
"""Up to 128 characters without control characters."""

CertificateText: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=1024, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]

CertificateNames: TypeAlias = Annotated[
    tuple[CertificateText, ...], msgspec.Meta(max_length=64)
]

ParameterValue: TypeAlias = str | int | list[str]

Parameters: TypeAlias = dict[str, ParameterValue]
"""Parameter names and lengths that rules can match; never payloads."""

# SPDX-License-Identifier: MIT
"""Base of all records, and common field types."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

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
    """
    Base of all public records.

    Attributes:
        repr_fields: Fields in the ``repr``. Results for people name public facts here;
            requests and payloads name none, so that nothing leaks into a log.
    """

    repr_fields: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        """Return the type, and the fields of *repr_fields* that are not empty."""
        values = ((name, getattr(self, name)) for name in self.repr_fields)
        facts = "".join(f" {name}={value}" for name, value in values if value)
        return f"<{type(self).__name__}{facts}>"


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

# SPDX-License-Identifier: MIT
"""Message authentication codes, one or many at a time."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import KeyId, Record
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import ItemReference, KeyReference, VersionNumber
from hsm_core.operations.results import ItemError, Verified, VerifiedBatch

__all__ = [
    "ComputeMac",
    "ComputeMacBatch",
    "Mac",
    "MacBatch",
    "MacInput",
    "MacItem",
    "VerifyMac",
    "VerifyMacBatch",
    "VerifyMacItem",
]


class Mac(Record, frozen=True, kw_only=True):
    """A message authentication code of full length."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    mac: bytes


class MacItem(Record, frozen=True, kw_only=True):
    """Answer to one `MacInput`: a MAC, or an error."""

    reference: str
    mac: bytes = b""
    error: ItemError | None = None


class MacBatch(Record, frozen=True, kw_only=True):
    """MACs of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    items: tuple[MacItem, ...]


class ComputeMac(Operation[Mac], frozen=True, kw_only=True):
    """Compute a MAC with the current version."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    message: bytes


class VerifyMac(Operation[Verified], frozen=True, kw_only=True):
    """
    Verify a full-length MAC; an invalid one raises `MacMismatchError`.

    Attributes:
        version: None tries every version that may verify, newest first.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    message: bytes
    mac: bytes
    version: VersionNumber | None = None


class MacInput(Record, frozen=True, kw_only=True):
    """Message to authenticate."""

    reference: ItemReference = ""
    message: bytes


class VerifyMacItem(Record, frozen=True, kw_only=True):
    """MAC to verify, as in `VerifyMac`."""

    reference: ItemReference = ""
    message: bytes
    mac: bytes


class ComputeMacBatch(Operation[MacBatch], frozen=True, kw_only=True):
    """Compute up to 1,000 MACs with the current version."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    items: Annotated[tuple[MacInput, ...], Meta(min_length=1, max_length=1000)]


class VerifyMacBatch(Operation[VerifiedBatch], frozen=True, kw_only=True):
    """Verify up to 1,000 MACs; each invalid one fails its item. See `VerifyMac`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    items: Annotated[tuple[VerifyMacItem, ...], Meta(min_length=1, max_length=1000)]
    version: VersionNumber | None = None

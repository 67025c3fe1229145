# SPDX-License-Identifier: MIT
"""Results shared by several kinds of operations."""

from __future__ import annotations

from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyId, Record

__all__ = ["ItemError", "Verified", "VerifiedBatch", "VerifiedItem"]


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

# SPDX-License-Identifier: MIT
"""Results that several kinds of operations share."""

from __future__ import annotations

from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyId, Record

__all__ = ["ItemError", "Verified", "VerifiedBatch", "VerifiedItem"]


class Verified(Record, frozen=True, kw_only=True):
    """The signature or MAC is good; *version* made it. A bad one raises."""

    key_id: KeyId
    version: int
    algorithm: Algorithm


class ItemError(Record, frozen=True, kw_only=True):
    """Why one item of a batch failed: the error's code and message."""

    code: str
    detail: str


class VerifiedItem(Record, frozen=True, kw_only=True):
    """Answer to one `VerifyItem` or `VerifyMacItem`: a version, or an error."""

    reference: str
    version: int = 0
    error: ItemError | None = None


class VerifiedBatch(Record, frozen=True, kw_only=True):
    """Checks of a batch, in the order of its items."""

    key_id: KeyId
    algorithm: Algorithm
    items: tuple[VerifiedItem, ...]

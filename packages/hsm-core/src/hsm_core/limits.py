# SPDX-License-Identifier: MIT
"""Largest sizes of payloads, and of what belongs to them."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from hsm_core.model import Record

__all__ = ["CIPHERTEXT_OVERHEAD_BYTES", "Limits"]

CIPHERTEXT_OVERHEAD_BYTES: Final = 4096
"""
Maximum overhead of an envelope over its payload, in bytes, including an encapsulation.
"""


class Limits(Record, frozen=True, kw_only=True):
    """
    Largest sizes the core accepts, in bytes.

    Attributes:
        payload_bytes: Message, plaintext or ciphertext.
        aad_bytes: Additional authenticated data.
    """

    payload_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * 1024
    aad_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024

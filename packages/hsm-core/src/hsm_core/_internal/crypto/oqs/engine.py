# SPDX-License-Identifier: MIT
"""The binding and the library's generator, as families use them."""

from __future__ import annotations

from dataclasses import dataclass

from hsm_core._internal.crypto.oqs.binding import Binding
from hsm_core._internal.crypto.oqs.draws import Draws


@dataclass(frozen=True, slots=True)
class Engine:
    """
    One open library.

    Attributes:
        binding: The module ``oqs``.
        draws: Its random generator.
    """

    binding: Binding
    draws: Draws


def exactly(answer: bytes, size: int) -> bytes:
    """
    Return what the library gave.

    Raises:
        RuntimeError: It is of another length than it must be.
    """
    if len(answer) != size:
        raise RuntimeError(f"liboqs returned {len(answer)} bytes instead of {size}.")
    return answer

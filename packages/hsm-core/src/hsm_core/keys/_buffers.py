# SPDX-License-Identifier: MIT
"""What may hold a message: the type that ``cryptography`` takes."""

from typing import TypeAlias

__all__ = ["Buffer"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes-like object."""

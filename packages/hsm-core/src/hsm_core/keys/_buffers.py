# SPDX-License-Identifier: MIT
"""Buffer type of ``cryptography``."""

from typing import TypeAlias

__all__ = ["Buffer"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes-like object."""

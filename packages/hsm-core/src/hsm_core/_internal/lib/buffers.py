# SPDX-License-Identifier: MIT
"""Byte strings that are written in place, without zeroing or copying."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from io import BytesIO


def written(length: int, write: Callable[[memoryview], None]) -> bytes:
    """
    Return bytes that *write* fills.

    Args:
        length: Of the result, in bytes.

        write: Must write all of the view, which holds anything before; what it raises
            leaves nothing behind.
    """
    whole = BytesIO(_unset_bytes()(length))
    with whole.getbuffer() as view:
        write(view)
    return whole.getvalue()  # hands its buffer over, as nobody else has it


@cache
def _unset_bytes() -> Callable[[int], bytes]:
    """Return what allocates bytes; to zero a megabyte first takes a fifth more time."""
    try:
        import ctypes
    except ImportError:  # Python can be built without it.
        return bytes
    allocate = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
        ("PyBytes_FromStringAndSize", ctypes.pythonapi)
    )

    def unset(length: int) -> bytes:
        found: bytes = allocate(None, length)
        return found

    return unset

# SPDX-License-Identifier: MIT
"""
Sealed memory files: immutable bytes passed between processes as descriptors.

A process that only passes one on never has the content in its memory (memfd_create(2)).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

from hsm_core.errors import SelfTestFailedError

MAX_SEALED_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of sealed content; revocation lists can be long."""

# fcntl(2); Python names them from 3.13 on, and not in every build.
_F_ADD_SEALS: Final = 1033
_F_GET_SEALS: Final = 1034
_ALL_SEALS: Final = 0x0F  # seal, shrink, grow, write

_PROBE: Final = b"self-test"


def seal(name: str, data: bytes) -> int:
    """
    Return the descriptor of a sealed file in memory; the caller closes it.

    Args:
        name: What it is called in ``/proc/PID/fd``.

        data: Its content.

    Raises:
        OSError: There is no room.
        ValueError: It is longer than `MAX_SEALED_BYTES`.
    """
    if len(data) > MAX_SEALED_BYTES:
        raise ValueError(f"The content exceeds {MAX_SEALED_BYTES} bytes.")
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with memoryview(data) as rest:
            written = 0
            while written < len(data):
                written += os.write(descriptor, rest[written:])
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_sealed(descriptor: int) -> bool:
    """Return whether a descriptor is such a file, of a length that is handed on."""
    try:
        seals = fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError:
        return False
    return (
        seals & _ALL_SEALS == _ALL_SEALS
        and os.fstat(descriptor).st_size <= MAX_SEALED_BYTES
    )


def read_sealed(descriptor: int) -> bytes:
    """
    Return the content, wherever others have read up to.

    Raises:
        ValueError: It is no such file.
        OSError: It can't be read.
    """
    if not is_sealed(descriptor):
        raise ValueError("Not a sealed memory file.")
    length = os.fstat(descriptor).st_size
    pieces, at = [], 0
    while at < length:
        pieces.append(os.pread(descriptor, length - at, at))
        at += len(pieces[-1])
    return b"".join(pieces)


def self_test() -> None:
    """
    Seal a file in memory, read it, and try to change it.

    Raises:
        SelfTestFailedError: It holds something else, or can be changed.
    """
    try:
        descriptor = seal("ferrohsm-self-test", _PROBE)
    except OSError as error:
        raise _failure(f"seal raised {type(error).__name__}") from error
    try:
        if not is_sealed(descriptor) or read_sealed(descriptor) != _PROBE:
            raise _failure("wrong content")
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, b"changed", 0)
            raise _failure("accepted a change")
    finally:
        os.close(descriptor)


def _failure(reason: str) -> SelfTestFailedError:
    return SelfTestFailedError(
        f"The self-test of sealed memory files failed: {reason}.", reason=reason
    )

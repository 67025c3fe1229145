# SPDX-License-Identifier: MIT
"""
Randomness of the operating system, with a health test.

``os.urandom`` is getrandom(2), which blocks until the pool is seeded and keeps no state
in this process, so a fork can't repeat it.
"""

from __future__ import annotations

import os
from typing import Final

from hsm_core.errors import EntropyUnavailableError

_BLOCK_BYTES: Final = 16
_FIRST: Final = slice(_BLOCK_BYTES)
_SECOND: Final = slice(_BLOCK_BYTES, 2 * _BLOCK_BYTES)
_REST: Final = slice(2 * _BLOCK_BYTES, None)


class SystemEntropy:
    """
    The operating system's generator.

    Each call draws two 16-byte blocks more than asked for and compares them with each
    other and with the block before (a repetition test as in SP 800-90B, section 4.4.1,
    on blocks). Equal blocks mean a broken generator, and nothing is handed out any
    more.

    Raises:
        EntropyUnavailableError: There is no such generator, or it fails.
    """

    def __init__(self) -> None:
        self._failed = False
        self._last = _drawn(_BLOCK_BYTES)

    def random_bytes(self, length: int, /) -> bytes:
        """Return *length* bytes from getrandom(2)."""
        try:
            drawn = os.urandom(32 + length)
        except (OSError, NotImplementedError) as error:
            raise EntropyUnavailableError from error
        first, second = drawn[_FIRST], drawn[_SECOND]
        # Threads may compare with the same block: each compares with one before it.
        if first == second or first == self._last or self._failed:
            self._failed = True
            raise EntropyUnavailableError
        self._last = second
        return drawn[_REST]


def _drawn(length: int) -> bytes:
    try:
        return os.urandom(length)
    except (OSError, NotImplementedError) as error:
        raise EntropyUnavailableError from error

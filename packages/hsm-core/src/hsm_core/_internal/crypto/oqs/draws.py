# SPDX-License-Identifier: MIT
"""
Keys from seeds, where liboqs only makes random ones.

liboqs draws a new key's seed from a generator that may be replaced
(``OQS_randombytes_custom_algorithm``), for the whole process. Here it is replaced until
one thread has drawn one seed, which takes some microseconds; other threads that draw
meanwhile are given the operating system's randomness.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

_FILL: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
_SYSTEM: Final = b"system"


class _Seed:
    """A seed on its way to one thread."""

    __slots__ = ("rest", "thread", "too_short")

    def __init__(self, seed: bytes) -> None:
        self.rest = seed
        self.thread = threading.get_ident()
        self.too_short = False


class Draws:
    """
    The generator of a library.

    Args:
        native: The library.

    Attributes:
        undisturbed: Held while nobody may replace the generator, for what would be
            worthless if its randomness were not the library's own.

    Raises:
        AttributeError: The library has no replaceable generator.
    """

    def __init__(self, native: ctypes.CDLL) -> None:
        self.undisturbed = threading.Lock()
        self._current: _Seed | None = None
        self._callback = _FILL(self._fill)
        self._replace = native["OQS_randombytes_custom_algorithm"]
        self._replace.argtypes = [_FILL]
        self._replace.restype = None
        self._restore = native["OQS_randombytes_switch_algorithm"]
        self._restore.argtypes = [ctypes.c_char_p]
        self._restore.restype = ctypes.c_int

    def from_seed(self, seed: bytes, make: Callable[[], T]) -> T:
        """
        Return what *make* makes when it is given *seed* for its randomness.

        Raises:
            RuntimeError: It has not drawn the seed wholly, or more at once.
        """
        self.undisturbed.acquire()
        drawn = self._current = _Seed(seed)
        try:
            self._replace(self._callback)
            made = make()
        finally:
            self._end(drawn)
        if drawn.rest or drawn.too_short:
            raise RuntimeError("liboqs did not use the given seed.")
        return made

    def _end(self, drawn: _Seed) -> None:
        """Give the library its own generator back, unless that is done."""
        if self._current is drawn:
            restored = self._restore(_SYSTEM)
            self._current = None
            self.undisturbed.release()
            if restored != 0:
                raise RuntimeError("liboqs no longer uses the given random generator.")

    def _fill(self, target: int, size: int) -> None:
        """Fill memory of the library: with the seed for its thread, else at random."""
        drawn = self._current
        if drawn is None or drawn.thread != threading.get_ident():
            ctypes.memmove(target, os.urandom(size), size)
            return
        if size > len(drawn.rest):
            drawn.too_short = True
            ctypes.memmove(target, os.urandom(size), size)
            return
        ctypes.memmove(target, drawn.rest, size)
        drawn.rest = drawn.rest[size:]
        if not drawn.rest:
            self._end(drawn)

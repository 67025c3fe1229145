# SPDX-License-Identifier: MIT
"""Memory for data that programs send in parts, which all of them share."""

from __future__ import annotations

import threading
from typing import Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError

MOST_OF_ALL: Final = 256 * 1024 * 1024
"""Bytes that all programs hold at a time."""

MOST_OF_ONE: Final = 64 * 1024 * 1024
"""Bytes that one application holds at a time, in all its sessions."""

_lock = threading.Lock()
_held = 0


class PartMemory:
    """Bytes that an application holds. Other applications use the same memory."""

    def __init__(self) -> None:
        self._held = 0

    def take(self, length: int) -> None:
        """
        Take memory for a part.

        Raises:
            CryptokiError: The application, or all together, would hold too much.
        """
        global _held
        with _lock:
            if self._held + length > MOST_OF_ONE or _held + length > MOST_OF_ALL:
                raise CryptokiError(
                    ck.CKR_DEVICE_MEMORY,
                    f"Multi-part operations hold at most {MOST_OF_ONE} bytes for each "
                    f"program, and {MOST_OF_ALL} bytes for all.",
                )
            self._held += length
            _held += length

    def give(self, length: int) -> None:
        """Give memory back."""
        global _held
        with _lock:
            self._held -= length
            _held -= length

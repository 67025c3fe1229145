# SPDX-License-Identifier: MIT
"""Use counter interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = [
    "UseCounters",
]


class UseCounters(Protocol):
    """
    Where the counters of key materials lie: small values by material id.

    Nothing in it is trusted: values are authenticated by who writes them.
    Implementers promise that `put` is atomic, and durable when it returns. Safe for
    many threads.
    """

    def get(self, material_id: str, /) -> bytes | None:
        """
        Return the value of a material, or None if there is none.

        Raises:
            StoreUnavailableError: It can't be read.
        """
        ...

    def put(self, material_id: str, value: bytes, /) -> None:
        """
        Replace the value of a material.

        Raises:
            StorageFullError: There is no room; the old value is still there.
            StoreUnavailableError: It can't be written.
        """
        ...

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """
        Store the first value of a material whose key has not been committed yet.

        It may become durable later than when this returns, but not later than the
        next commit of the key store.

        Raises:
            StorageFullError: There is no room.
            StoreUnavailableError: It can't be written.
        """
        self.put(material_id, value)

    def discard(self, material_id: str, /) -> None:
        """
        Delete the value of a material that was destroyed, if there is one.

        Raises:
            StoreUnavailableError: It can't be deleted.
        """
        ...

    def material_ids(self) -> Sequence[str]:
        """
        Return every material that has a value; for start-up, not for requests.

        Raises:
            StoreUnavailableError: They can't be read.
        """
        ...

# SPDX-License-Identifier: MIT
"""What all methods of a session need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import msgspec

from hsm_core.operations import Operation
from hsm_core.protocols import HSM

__all__ = ["SessionBase"]


class _Page(Protocol):
    @property
    def next_cursor(self) -> str: ...


P = TypeVar("P", bound=_Page)


class SessionBase:
    """Holds the HSM."""

    def __init__(self, hsm: HSM) -> None:
        self._hsm = hsm

    def _pages(self, first: Operation[P]) -> Iterator[P]:
        """Give the pages of a list, from the one that an operation asks for."""
        operation = first
        while True:
            page = self._hsm.execute(operation)
            yield page
            if not page.next_cursor:
                return
            operation = msgspec.structs.replace(operation, cursor=page.next_cursor)

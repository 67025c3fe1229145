# SPDX-License-Identifier: MIT
"""Base class of sessions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import msgspec

from hsm_core.operations import Operation
from hsm_core.protocols import HSM

R = TypeVar("R")


class _Page(Protocol):
    @property
    def next_cursor(self) -> str: ...


P = TypeVar("P", bound=_Page)


class Accompanied:
    """
    An HSM to which the same goes beside every operation that says nothing else.

    Args:
        hsm: What executes them.

        approval_id: The approval that they are to be done under.

        expected_generation: The generation that their key must be at.
    """

    def __init__(
        self, hsm: HSM, *, approval_id: str = "", expected_generation: int = 0
    ) -> None:
        self._hsm = hsm
        self._approval_id = approval_id
        self._expected_generation = expected_generation

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation; see `HSM.execute`."""
        return self._hsm.execute(
            operation,
            idempotency_key=idempotency_key,
            approval_id=approval_id or self._approval_id,
            expected_generation=expected_generation or self._expected_generation,
        )


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

# SPDX-License-Identifier: MIT
"""What all instruments have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

Family = TypeVar("Family", Counter, Histogram)


class Children(dict[tuple[str, ...], Family], Generic[Family]):
    """
    The children of a family by their labels; to look one up takes as long as to count.

    Args:
        family: Whose they are.

        first: Labels of those that are there from the beginning, with 0.
    """

    def __init__(self, family: Family, *first: tuple[str, ...]) -> None:
        super().__init__()
        self._family: Family = family
        for labels in first:
            self[labels]

    def __missing__(self, labels: tuple[str, ...]) -> Family:
        """Return the child with labels that were not asked for before."""
        child: Family = self._family.labels(*labels)
        self[labels] = child
        return child


class Instruments:
    """
    Some of the instruments of a server; `Metrics` has all of them.

    Attributes:
        registry: Where they are, of this object alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)

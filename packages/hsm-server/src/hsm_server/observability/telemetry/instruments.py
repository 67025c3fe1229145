# SPDX-License-Identifier: MIT
"""Base of all instruments."""

from __future__ import annotations

from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

Family = TypeVar("Family", Counter, Histogram)


class Children(dict[tuple[str, ...], Family], Generic[Family]):
    """
    Children of a family by label values; lookup is as fast as counting.

    Args:
        family: The family.

        first: Label values present from the start, with value 0.
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
    Group of instruments; `Metrics` has all of them.

    Attributes:
        registry: Registry of this object alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)

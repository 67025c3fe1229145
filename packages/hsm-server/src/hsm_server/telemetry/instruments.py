# SPDX-License-Identifier: MIT
"""What all instruments have in common."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

__all__ = ["Instruments"]


class Instruments:
    """
    Some of the instruments of a server; `Metrics` has all of them.

    Attributes:
        registry: Where they are, of this object alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)

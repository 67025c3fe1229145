# SPDX-License-Identifier: MIT
"""Leases in memory."""

from __future__ import annotations

import threading

from hsm_core._internal.stores.lease_rules import LeaseRule, RuledLeases
from hsm_core.protocols import Clock, Lease


class MemoryLeases(RuledLeases):
    """
    Leases in a dictionary.

    Args:
        clock: Tells when a lease has expired.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._lock = threading.Lock()
        self._found: dict[str, Lease] = {}

    def __repr__(self) -> str:
        return "<MemoryLeases>"

    def _change(self, name: str, rule: LeaseRule) -> Lease | None:
        with self._lock:
            wanted = rule(self._found.get(name))
            if wanted is not None:
                self._found[name] = wanted
            return wanted

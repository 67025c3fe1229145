# SPDX-License-Identifier: MIT
"""
Healing: reopens a store after a failed write, and settles the changes.

Until then all changes are refused, because the stored state is unknown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.settlement import settle
from hsm_core.protocols import AuditDraft, AuditLog, AuditTicket


class Healer:
    """
    Settles changes with an unknown outcome. Thread-safe.

    Args:
        inventory: Over the store.

        audit: The trail.
    """

    def __init__(self, inventory: KeyRepository, audit: AuditLog) -> None:
        self._inventory = inventory
        self._audit = audit
        self._unsettled: dict[str, AuditDraft] = {}
        self._outcomes: dict[str, AuditDraft | None] = {}
        self._lock = threading.Lock()

    @property
    def is_needed(self) -> bool:
        """Whether a change is unsettled, or the store unavailable."""
        return bool(self._unsettled) or not self._inventory.store.available

    def note(self, intent: AuditDraft) -> None:
        """Remember a change whose outcome is unknown."""
        with self._lock:
            self._unsettled[intent.operation_id] = intent

    def heal(self, wait: Callable[[AuditTicket], None] | None = None) -> None:
        """
        Reopen the store if needed, and settle unsettled changes.

        Does nothing if nothing failed.

        Args:
            wait: Waits for the trail; None is its own limit for each record.

        Raises:
            HSMError: Store or audit log is still unusable; try again later.
        """
        if not self.is_needed:
            return
        with self._inventory.committing:
            store = self._inventory.store
            if not store.available:
                store.reopen()
                # While it was closed, what lies there may have become anything.
                self._inventory.census.doubt()
            for operation_id, intent in list(self._unsettled.items()):
                self._settle(operation_id, intent, wait)

    def _settle(
        self,
        operation_id: str,
        intent: AuditDraft,
        wait: Callable[[AuditTicket], None] | None,
    ) -> None:
        # It is counted once, however often it must be tried to record it.
        if operation_id not in self._outcomes:
            self._outcomes[operation_id] = settle(self._inventory, intent)
        outcome = self._outcomes[operation_id]
        if outcome is None:
            self._inventory.names.doubt()  # Its key's name is not known now.
        if outcome is not None:
            ticket = self._audit.append([outcome], durable=True, reserved=True)
            ticket.wait() if wait is None else wait(ticket)
        with self._lock:
            self._unsettled.pop(operation_id, None)
            self._outcomes.pop(operation_id, None)

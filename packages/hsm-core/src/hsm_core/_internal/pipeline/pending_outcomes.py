# SPDX-License-Identifier: MIT
"""Outcomes that the trail lacks: each is recorded as soon as that is possible."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core.protocols import AuditDraft, AuditLog, AuditTicket


@dataclass(frozen=True, slots=True)
class _Owed:
    """An outcome that is not known to be durable; its ticket once it is appended."""

    draft: AuditDraft
    ticket: AuditTicket | None = None


class PendingOutcomes:
    """
    Keeps the outcomes that are due, by operation id.

    Args:
        inventory: Knows the set digest, and holds the lock of all commits.

        audit: The trail.
    """

    def __init__(self, inventory: KeyRepository, audit: AuditLog) -> None:
        self._inventory = inventory
        self._audit = audit
        self._owed: dict[str, _Owed] = {}

    def __contains__(self, operation_id: str) -> bool:
        return operation_id in self._owed

    def append(self, outcome: AuditDraft) -> AuditTicket:
        """
        Append an outcome, for which there is room kept back.

        It is owed until `settle`, or until something later is.

        Raises:
            AuditUnavailableError: It can't be appended now.
        """
        self.owe(outcome)
        ticket = self._append(outcome)
        self._owed[outcome.operation_id] = _Owed(outcome, ticket)
        return ticket

    def owe(self, outcome: AuditDraft) -> None:
        """Remember an outcome that can't be appended now."""
        self._owed[outcome.operation_id] = _Owed(outcome)

    def settle(self, operation_id: str) -> None:
        """Forget an outcome, which is durable."""
        self._owed.pop(operation_id, None)

    def ticket(self, operation_id: str) -> AuditTicket | None:
        """Return the ticket of an outcome that is appended and may not be durable."""
        owed = self._owed.get(operation_id)
        return None if owed is None else owed.ticket

    def pay(self) -> None:
        """
        Append the outcomes that could not be appended when they were due.

        Raises:
            AuditUnavailableError: They still can't be.
        """
        if not self._owed:
            return
        with self._inventory.committing:
            for operation_id, owed in list(self._owed.items()):
                if owed.ticket is not None:
                    # Whatever waits for a later record waits for this one too.
                    self._owed.pop(operation_id, None)
                    continue
                draft = owed.draft
                if draft.document_after:
                    digest = self._inventory.set_digest
                    draft = replace(draft, set_digest=digest)
                ticket = self._append(draft)
                self._owed[operation_id] = _Owed(draft, ticket)

    def _append(self, outcome: AuditDraft) -> AuditTicket:
        return self._audit.append([outcome], durable=True, reserved=True)

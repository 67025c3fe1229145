# SPDX-License-Identifier: MIT
"""
Key journal: the journal of key changes, which roll back.

A change whose operation id is in the store was committed. Any other is first marked as
aborted in the store, so that a commit still in flight fails, and then recorded as
aborted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hsm_core._internal.keyring.documents import audited_key, document_digest
from hsm_core._internal.keyring.journal import Journal, intent_of, outcome_of
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import ConflictError, KeyTamperedError
from hsm_core.model import ApprovalDetail, AuditEvent, Integrity, KeyId
from hsm_core.protocols import AuditDraft, AuditLog, KnownKey

REMOVED: Final = "system.approvals-removed"
"""Record kind of a removal of completed approvals."""


def is_of_approvals(event: AuditEvent) -> bool:
    """Return whether an intent is an approval step, or a removal of approvals."""
    return isinstance(event.detail, ApprovalDetail) or event.kind == REMOVED


class KeyJournal(Journal):
    """
    Journal of key changes, with those that a crash interrupted.

    Args:
        inventory: Over the store.

        audit: The audit log.
    """

    def __init__(self, inventory: KeyRepository, audit: AuditLog) -> None:
        super().__init__(audit, inventory.committing)
        self._inventory = inventory
        self._undecided: set[str] = set()
        for event in audit.open_intents():
            if not is_of_approvals(event):
                self.doubt(intent_of(event))

    def set_digest(self) -> str:
        """Return the set digest of keys and approvals."""
        return self._inventory.set_digest

    def decided(self, intent: AuditDraft) -> bool | None:
        """Return whether the store has the operation; None if it can't be trusted."""
        inventory, key_id = self._inventory, KeyId(intent.key_id)
        if inventory.lock.reason or inventory.integrity(key_id) is not Integrity.OK:
            return None
        if key_id:
            inventory.store.refresh(key_id)
        changed = self._changed(intent)
        if changed is None:
            return False
        try:
            inventory.decode(inventory.store.get(changed))
        except KeyTamperedError as error:
            inventory.condemn(changed, error)
            return None
        return True

    def _changed(self, intent: AuditDraft) -> KeyId | None:
        """Return the key that an operation changed; None if it changed none."""
        mark = self._inventory.store.find_operation(intent.operation_id)
        return None if mark is None or mark.aborted else mark.key_id

    def forbid(self, intent: AuditDraft) -> bool:
        """Mark the operation as aborted in the store."""
        try:
            self._inventory.store.abort(intent.operation_id)
        except ConflictError:
            if intent.key_id:
                self._inventory.store.refresh(KeyId(intent.key_id))
            return False
        return True

    def finish(self, intent: AuditDraft, *, committed: bool) -> AuditDraft:
        """Count a committed change, and complete its side effects."""
        outcome = outcome_of(intent, committed=committed)
        changed = self._changed(intent) if committed else None
        if changed is not None:
            outcome = self._count(intent, outcome, changed)
        failpoint("recovery.before_record")
        return outcome

    def _count(
        self, intent: AuditDraft, outcome: AuditDraft, key_id: KeyId
    ) -> AuditDraft:
        inventory = self._inventory
        stored = inventory.store.get(key_id)
        document, digest = inventory.decode(stored), document_digest(stored.document)
        inventory.discard_blobs(document)
        before = None
        if intent.document_before:
            before = KnownKey(key_id, intent.generation, intent.document_before)
        after = KnownKey(key_id, document.generation, digest)
        if document.generation == (before.generation if before else 0) + 1:
            inventory.census.replace(before, after)
        inventory.adopt(inventory.cached(key_id), document, digest)
        return replace(
            outcome,
            key_id=key_id,
            generation=document.generation,
            document_after=digest,
            key=audited_key(document),
        )

    # Healing

    @property
    def needs_healing(self) -> bool:
        """Whether a change is unsettled, or the store unavailable."""
        return bool(self.open) or not self._inventory.store.available

    def heal(self) -> None:
        """
        Reopen the store after a failed write, and settle what can be.

        Until then all changes are refused, because the stored state is unknown.

        Raises:
            HSMError: Store or audit log is still unusable; try again later.
        """
        if not self.needs_healing:
            return
        with self._order:
            store = self._inventory.store
            if not store.available:
                store.reopen()
                # While it was closed, what lies there may have become anything.
                self._inventory.census.doubt()
            self.settle()
            if not self.open.keys() <= self._undecided:
                # The names of their keys are not known now.
                self._inventory.names.doubt()
            self._undecided = set(self.open)

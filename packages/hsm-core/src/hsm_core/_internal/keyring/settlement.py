# SPDX-License-Identifier: MIT
"""
Settlement: finds and records the outcome of interrupted changes.

A change whose operation id is in the store was committed. Any other is first marked as
aborted in the store, so that a commit still in flight fails, and then recorded as
aborted. Either way the audit log gets the missing outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hsm_core._internal.keyring.documents import (
    KeyDocument,
    audited_key,
    document_digest,
)
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import ConflictError, KeyTamperedError
from hsm_core.model import ApprovalDetail, AuditEvent, Integrity, KeyId, Phase
from hsm_core.protocols import (
    AuditDraft,
    AuditLog,
    AuditTicket,
    KnownKey,
    OperationMark,
)

REMOVED: Final = "system.approvals-removed"
"""Record kind of a removal of completed approvals."""

_ABORTED: Final = "recovered-aborted"
_COMMITTED: Final = "recovered-committed"


def recover(inventory: KeyRepository, audit: AuditLog) -> list[AuditEvent]:
    """
    Settle open intents durably, and return those that can't be settled.

    Raises:
        HSMError: Store or trail can't be written; the HSM must not open.
    """
    left = []
    for event in key_intents(audit):
        with inventory.committing:
            draft = settle(inventory, intent_of(event))
            if draft is None:
                left.append(event)
                continue
            failpoint("recovery.before_record")
            audit.append([draft], durable=True, reserved=True).wait()
    return left


def key_intents(audit: AuditLog) -> list[AuditEvent]:
    """Return the open intents of key changes, without those of approvals."""
    return [event for event in audit.open_intents() if not is_of_approvals(event)]


def is_of_approvals(event: AuditEvent) -> bool:
    """Return whether an intent is an approval step, or a removal of approvals."""
    return isinstance(event.detail, ApprovalDetail) or event.kind == REMOVED


def intent_of(event: AuditEvent) -> AuditDraft:
    """Return the draft of an intent record."""
    return AuditDraft(
        phase=event.phase,
        kind=event.kind,
        request_id=event.request_id,
        operation_id=event.operation_id,
        key_id=event.key_id,
        version=event.version,
        generation=event.generation,
        document_before=event.document_before,
        caller=event.caller,
        key=event.key,
        parameters=event.parameters,
        rule=event.rule,
        policy=event.policy,
        demands=event.demands,
        approval_id=event.approval_id,
        approval_signatures=event.approval_signatures,
        digest=event.digest,
    )


def settle(inventory: KeyRepository, intent: AuditDraft) -> AuditDraft | None:
    """
    Determine the outcome of a change, make it final, and count it.

    Callers hold `KeyRepository.committing`.

    Returns:
        Its outcome; None if nobody can tell, because the key was tampered with.

    Raises:
        HSMError: The store can't be read or written.
    """
    key_id = KeyId(intent.key_id)
    if inventory.integrity(key_id) is not Integrity.OK:
        return None
    if key_id:
        inventory.store.refresh(key_id)
    mark = inventory.store.find_operation(intent.operation_id)
    if mark is None:
        mark = _give_up(inventory, intent)
    aborted = replace(intent, phase=Phase.OUTCOME, code=_ABORTED, generation=0)
    if mark is None or mark.aborted or mark.key_id is None:
        return aborted
    try:
        document, digest = _read(inventory, mark.key_id)
    except KeyTamperedError as error:
        inventory.condemn(mark.key_id, error)
        return None
    _count(inventory, intent, document, digest)
    return replace(
        aborted,
        code=_COMMITTED,
        set_digest=inventory.set_digest,
        key_id=document.key_id,
        generation=document.generation,
        document_after=digest,
        key=audited_key(document),
    )


def _give_up(inventory: KeyRepository, intent: AuditDraft) -> OperationMark | None:
    try:
        inventory.store.abort(intent.operation_id)
    except ConflictError:
        # It has landed meanwhile.
        if intent.key_id:
            inventory.store.refresh(KeyId(intent.key_id))
        return inventory.store.find_operation(intent.operation_id)
    return None


def _read(inventory: KeyRepository, key_id: KeyId) -> tuple[KeyDocument, str]:
    stored = inventory.store.get(key_id)
    return inventory.decode(stored), document_digest(stored.document)


def _count(
    inventory: KeyRepository, intent: AuditDraft, document: KeyDocument, digest: str
) -> None:
    """Count a stored change, and complete its side effects."""
    key_id = document.key_id
    before = None
    if intent.document_before:
        before = KnownKey(key_id, intent.generation, intent.document_before)
    after = KnownKey(key_id, document.generation, digest)
    if document.generation == (before.generation if before else 0) + 1:
        inventory.census.replace(before, after)
    inventory.adopt(inventory.cached(key_id), document, digest)
    inventory.discard_blobs(document)


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

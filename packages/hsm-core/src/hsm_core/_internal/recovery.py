# SPDX-License-Identifier: MIT
"""
Recovery: what became of the intents that a crash left open.

An intent whose operation id stands in the store was committed. Any other id is marked
as aborted in the store first, so that a commit that is still on its way somewhere
fails, and only then called aborted. Either way the trail gets the outcome it lacks.
"""

from __future__ import annotations

from dataclasses import replace

from hsm_core._internal.documents import document_digest
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.inventory import Inventory
from hsm_core._internal.views import audited_key
from hsm_core.model import AuditEvent, Phase
from hsm_core.protocols import AuditDraft, AuditLog

__all__ = ["recover"]


def recover(inventory: Inventory, audit: AuditLog) -> int:
    """
    Settle every open intent that can be, durably, and return how many were.

    Raises:
        HSMError: Store or trail can't be written; the HSM must not open.
    """
    settled = 0
    for intent in audit.open_intents():
        if intent.key_id in inventory.unreadable:
            # Nobody can tell what became of it; it stays open until somebody can.
            continue
        draft = _settle(intent, inventory)
        failpoint("recovery.before_record")
        audit.append([draft], durable=True).wait()
        settled += 1
    return settled


def _settle(intent: AuditEvent, inventory: Inventory) -> AuditDraft:
    mark = inventory.store.find_operation(intent.operation_id)
    if mark is None:
        inventory.store.abort(intent.operation_id)
    aborted = AuditDraft(
        phase=Phase.OUTCOME,
        kind=intent.kind,
        code="recovered-aborted",
        request_id=intent.request_id,
        operation_id=intent.operation_id,
        key_id=intent.key_id,
        version=intent.version,
        document_before=intent.document_before,
        caller=intent.caller,
        key=intent.key,
        parameters=intent.parameters,
        rule=intent.rule,
        policy=intent.policy,
        digest=intent.digest,
    )
    if mark is None or mark.aborted or mark.key_id is None:
        return aborted
    document = inventory.reread(mark.key_id)
    return replace(
        aborted,
        code="recovered-committed",
        set_digest=inventory.set_digest,
        key_id=document.key_id,
        generation=document.generation,
        document_after=document_digest(inventory.encode(document)),
        key=audited_key(document),
    )

# SPDX-License-Identifier: MIT
"""
Recovery: what became of the intents that a crash left open.

An intent whose operation id stands in the store was committed. Any other id is marked
as aborted in the store first, so that a commit that is still on its way somewhere
fails, and only then called aborted. Either way the trail gets the outcome it lacks.
"""

from __future__ import annotations

from dataclasses import replace

from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.inventory import Inventory
from hsm_core._internal.views import audited_key
from hsm_core.errors import KeyTamperedError
from hsm_core.model import AuditEvent, Phase
from hsm_core.protocols import AuditDraft, AuditLog

__all__ = ["recover"]


def recover(inventory: Inventory, audit: AuditLog) -> int:
    """
    Settle every open intent, durably, and return how many there were.

    Raises:
        HSMError: Store or trail can't be written; the HSM must not open.
    """
    intents = audit.open_intents()
    for intent in intents:
        draft = _settle(intent, inventory)
        failpoint("recovery.before_record")
        audit.append([draft], durable=True).wait()
    return len(intents)


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
    committed = replace(
        aborted, code="recovered-committed", set_digest=inventory.set_digest
    )
    try:
        document = inventory.document(mark.key_id)
    except KeyTamperedError:
        return committed
    return replace(
        committed,
        key_id=document.key_id,
        generation=document.generation,
        document_after=inventory.digest_of(document.key_id),
        key=audited_key(document),
    )

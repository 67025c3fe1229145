# SPDX-License-Identifier: MIT
"""
Rollback check of approvals: compares the store with the audit log at startup.

If the set digest of all approvals is the recorded one, allowing for steps that a crash
interrupted, nothing more is read. Otherwise the check walks the audit log, and
approvals that differ are unusable until the store is recovered. An authentic approval
that is not in the audit log indicates an older audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec

from hsm_core._internal.approvals.journal import (
    ApprovalAnchor,
    ApprovalJournal,
    ApprovalSetDigest,
    anchor_before,
    anchor_of,
    difference,
    record_sha256,
    removed_by,
)
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.audit.reading import verified_events
from hsm_core._internal.keyring.journal import COMMITTED, REMOVED
from hsm_core.errors import ApprovalNotFoundError, ApprovalTamperedError
from hsm_core.model import ApprovalDetail, Phase
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, AuditLog

ANCHORED = "system.approval-anchored"
"""Kind of the records that restate an approval before older records are pruned."""

FORGOTTEN = "system.approval-forgotten"
"""Kind of the records that discard an approval that failed the rollback check."""


class _Found(msgspec.Struct):
    """What lies in the store: authentic approvals, and ids of the others."""

    anchors: dict[str, ApprovalAnchor] = msgspec.field(default_factory=dict)
    unreadable: set[str] = msgspec.field(default_factory=set)


def compare_approvals(
    register: ApprovalRegister,
    ledger: ApprovalSetDigest,
    steps: ApprovalJournal,
    audit: AuditLog,
    verify: Callable[[int, int], AuditVerification],
    *,
    is_lasting: bool,
) -> str:
    """
    Compare a store with the audit log, and settle interrupted steps.

    Returns:
        Id of an approval that is newer than the audit log; empty if there is none.

    Args:
        register: Over a store that was just opened.

        ledger: Knows the digest that was recorded last.

        steps: Their journal.

        audit: The audit log, open.

        verify: Verifies a range of it.

        is_lasting: Whether the store outlives its process.

    Raises:
        AuditTamperedError: A record is bad.
        UnavailableError: Store or audit log can't be read or written.
    """
    if not is_lasting:
        ledger.adopt({})
        steps.settle()
        register.journal = steps
        return ""
    intents = list(steps.open.values())
    for intent in intents:
        register.store.remove(removed_by(intent))
    found = _read(register)
    landed = [intent for intent in intents if _has_landed(steps, intent)]
    ahead = ""
    if not _is_recorded(ledger, found, landed):
        known, removed = _walk(audit, verify)
        for intent in intents:
            for approval_id in removed_by(intent):
                known.pop(approval_id, None)
        _judge(ledger, found, known, landed)
        heard_of = None if audit.first_seq else known.keys() | removed
        ahead = _ahead(ledger, found, heard_of)
    register.journal = steps
    steps.settle()
    for approval_id, reason in ledger.condemned.items():
        steps.tell(approval_id, reason)
    return ahead


def _read(register: ApprovalRegister) -> _Found:
    found = _Found()
    for approval_id in register.store.approval_ids():
        try:
            approval = register.read(approval_id)
        except ApprovalTamperedError:
            found.unreadable.add(approval_id)
            continue
        except ApprovalNotFoundError:
            continue
        stored = register.store.get(approval_id) or b""
        found.anchors[approval_id] = ApprovalAnchor(
            approval.generation, record_sha256(stored), approval.state
        )
    return found


def _has_landed(steps: ApprovalJournal, intent: AuditDraft) -> bool:
    return intent.kind != REMOVED and steps.decided(intent) is True


def _is_recorded(
    ledger: ApprovalSetDigest, found: _Found, landed: Iterable[AuditDraft]
) -> bool:
    """
    Adopt the stored approvals if their set digest is the recorded one.

    A step that landed without an outcome is in the recorded digest if a later record
    has brought it there, and is not if there was none.
    """
    if found.unreadable:
        return False
    before = dict(found.anchors)
    for intent in landed:
        was = anchor_before(intent)
        if was is None:
            before.pop(intent.approval_id, None)
        else:
            before[intent.approval_id] = was
    for anchors in (found.anchors, before):
        if ledger.sum_of(anchors) == ledger.total:
            ledger.adopt(anchors)
            return True
    return False


def _walk(
    audit: AuditLog, verify: Callable[[int, int], AuditVerification]
) -> tuple[dict[str, ApprovalAnchor], set[str]]:
    """Return what the audit log says of approvals, and which it says were removed."""
    known: dict[str, ApprovalAnchor] = {}
    removed: set[str] = set()
    for event in verified_events(audit, verify, audit.first_seq):
        if event.kind == REMOVED and event.phase is Phase.OUTCOME:
            if event.code in COMMITTED:
                removed.update(removed_by(event))
        elif event.kind == FORGOTTEN:
            removed.add(event.approval_id)
        elif event.phase is not Phase.INTENT and event.code in COMMITTED:
            detail = event.detail
            if isinstance(detail, ApprovalDetail):
                known[event.approval_id] = ApprovalAnchor(
                    detail.generation, detail.record_sha256, detail.state
                )
                removed.discard(event.approval_id)
    return {k: v for k, v in known.items() if k not in removed}, removed


def _judge(
    ledger: ApprovalSetDigest,
    found: _Found,
    known: dict[str, ApprovalAnchor],
    landed: Iterable[AuditDraft],
) -> None:
    """Adopt what the audit log says, and condemn what is not like that."""
    made = {anchor_of(intent) for intent in landed}
    problems = dict.fromkeys(found.unreadable, "edited")
    for approval_id in known.keys() | found.anchors.keys():
        there, wanted = found.anchors.get(approval_id), known.get(approval_id)
        if there == wanted or approval_id in problems:
            continue
        if there is None:
            problems[approval_id] = "missing"
        elif there in made and there.generation == _generation(wanted) + 1:
            continue
        else:
            problems[approval_id] = difference(there, wanted)
    ledger.adopt(known)
    ledger.condemned.update(problems)


def _ahead(
    ledger: ApprovalSetDigest, found: _Found, heard_of: Collection[str] | None
) -> str:
    """Return an authentic approval that is newer than the audit log, if any."""
    # What a pruned audit log has never heard of may have been in the part that is gone.
    for approval_id, problem in sorted(ledger.condemned.items()):
        if approval_id not in found.anchors:
            continue
        is_new = heard_of is not None and approval_id not in heard_of
        if problem == "newer" or (problem == "foreign" and is_new):
            return approval_id
    return ""


def _generation(anchor: ApprovalAnchor | None) -> int:
    return anchor.generation if anchor else 0

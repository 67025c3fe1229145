# SPDX-License-Identifier: MIT
"""Dual control: assembly of the approval parts over a newly opened store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hsm_core._internal.approvals.credentials import CredentialCheck
from hsm_core._internal.approvals.journal import ApprovalJournal
from hsm_core._internal.approvals.maintenance import ApprovalMaintenance
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.approvals.reservations import ApprovalReservations
from hsm_core._internal.approvals.rollback_check import open_consents
from hsm_core._internal.approvals.service import ApprovalService
from hsm_core._internal.approvals.set_digest import ApprovalSetDigest
from hsm_core._internal.approvals.signature_check import SignatureCheck
from hsm_core._internal.approvals.workflow import ApprovalWorkflow
from hsm_core._internal.audit.events import event_of
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.policy import Recogniser
from hsm_core.protocols import (
    ApprovalStore,
    AuditLog,
    CredentialKeys,
)
from hsm_core.settings import ApprovalStoreKind


@dataclass(frozen=True, slots=True)
class DualControl:
    """
    Approval parts used by the rest of the HSM.

    Attributes:
        register: The approvals.
        care: Looks after them.
        consents: What the pipeline asks.
    """

    register: ApprovalRegister
    care: ApprovalMaintenance
    consents: ApprovalWorkflow


def open_dual_control(
    ground: Dependencies,
    store: ApprovalStore,
    ledger: ApprovalSetDigest,
    check_signature: SignatureCheck,
    credential_keys: CredentialKeys | None,
    last_used_at: Callable[[KeyDocument], int],
) -> DualControl:
    """
    Compare the approvals with the trail, settle what a crash left, and begin.

    Args:
        ground: Its keys have the ring, and the lock of all records with set digests;
            their open intents are settled.

        store: Where they lie.

        ledger: Knows the digest that was recorded last.

        check_signature: Checks what approvers sign.

        credential_keys: By which they are known; None where who calls knows them.

        last_used_at: Returns the time of a key's last use, in microseconds since 1970,
            or 0.

    Raises:
        AuditTamperedError: A record is bad.
        UnavailableError: Store or trail can't be read or written.
    """
    settings, policy, audit = ground.settings, ground.policy, ground.audit
    ring, entropy = ground.inventory.ring, ground.entropy
    register = ApprovalRegister(
        store, ring.approval_mac, ground.clock, floor=_newest_time(audit)
    )
    steps = ApprovalJournal(
        ledger, ground.inventory, audit, entropy, policy.policy_hash
    )
    is_lasting = settings.approval_store != ApprovalStoreKind.MEMORY
    ahead = open_consents(
        register, ledger, steps, audit, ground.verify, is_lasting=is_lasting
    )
    users = ApprovalReservations(register, steps)
    known_people = Recogniser(policy, is_on=settings.certificate_identities)
    people = ApprovalService(
        register,
        steps,
        ring,
        policy,
        ground.inventory,
        check_signature=check_signature,
        credentials=CredentialCheck(
            credential_keys, ring.credential_mark, known_people.people
        ),
    )
    consents = ApprovalWorkflow(
        register,
        users,
        people,
        ring,
        entropy,
        policy,
        last_used_at=last_used_at,
        most_open=settings.approval_requests,
    )
    care = ApprovalMaintenance(register, ledger, steps, audit, users)
    if settings.accept_changed_store and ledger.condemned:
        care.forget("accept_changed_store")
    elif ahead and not ground.inventory.lock.reason:
        ground.lock(
            "The audit log is older than the approval store: it has no record of the "
            f"stored state of approval {ahead}.",
            {"reason": "trail_older", "approval_id": ahead},
        )
    care.settle_reserved()
    return DualControl(register, care, consents)


def _newest_time(audit: AuditLog) -> int:
    head = audit.head()
    lines = audit.lines(head.seq, 1) if head.seq >= 0 else []
    return event_of(lines[0], head.seq).time if lines else 0

# SPDX-License-Identifier: MIT
"""Approval maintenance: startup checks, periodic work and recovery."""

from __future__ import annotations

from typing import Final

from hsm_core import operations as ops
from hsm_core._internal.approvals.journal import ApprovalJournal
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.approvals.reservations import (
    ApprovalReservation,
    ApprovalReservations,
)
from hsm_core._internal.approvals.rollback_check import ANCHORED, FORGOTTEN
from hsm_core._internal.approvals.set_digest import ApprovalSetDigest
from hsm_core._internal.audit.events import event_of
from hsm_core.model import ApprovalDetail, ApprovalState, AuditEvent, Caller, Phase
from hsm_core.protocols import ApprovalQuery, AuditDraft, AuditLog

_BLOCK: Final = 1000
_MOST_LOOKED_AT: Final = 100
_DONE: Final = frozenset({"ok", "recovered-committed"})
_RECOVERY: Final = Caller(principal="system.recovery", roles=frozenset())


class ApprovalMaintenance:
    """
    Maintenance of the approvals of an HSM. Thread-safe.

    Args:
        register: The approvals.

        ledger: What was written of them.

        steps: Their witness.

        audit: The trail.

        users: What operations have reserved.
    """

    def __init__(
        self,
        register: ApprovalRegister,
        ledger: ApprovalSetDigest,
        steps: ApprovalJournal,
        audit: AuditLog,
        users: ApprovalReservations,
    ) -> None:
        self._register = register
        self._ledger = ledger
        self._steps = steps
        self._audit = audit
        self._users = users
        self._looked_to: tuple[int, str] | None = None

    def heal(self) -> None:
        """
        Repeat failed writes.

        Raises:
            HSMError: It still can't be.
        """
        store = self._register.store
        if not store.available:
            store.reopen()
        self._steps.pay()
        if self._steps.needs_healing:
            self._steps.heal(store.get)
        self._users.settle_again(self._was_done)

    def expire(self) -> None:
        """
        Store and record the expiry of approvals.

        A bounded number is looked at, newest first; the next call goes on from there.

        Raises:
            HSMError: It can't be.
        """
        states = frozenset({ApprovalState.PENDING, ApprovalState.GRANTED})
        page = self._register.find(
            ApprovalQuery(states=states, limit=_MOST_LOOKED_AT, after=self._looked_to)
        )
        self._looked_to = page.after

    def settle_reserved(self) -> None:
        """
        Settle what operations had reserved that a crash has ended; at the start.

        Raises:
            HSMError: Store or trail can't be used.
        """
        query = ApprovalQuery(states=frozenset({ApprovalState.RESERVED}), limit=1000)
        for entry in self._register.store.find(query):
            approval = self._register.believed(entry.approval_id)
            if approval is not None and approval.state is ApprovalState.RESERVED:
                hold = ApprovalReservation(
                    approval.approval_id, approval.operation_id, _RECOVERY
                )
                # Of one whose key can't be compared yet nobody knows.
                self._users.settle(hold, done=self._was_done(hold))

    def _was_done(self, hold: ApprovalReservation) -> bool | None:
        """Return whether an operation was done, by the audit log; None if unknown."""
        seq, first, began = self._audit.head().seq, self._audit.first_seq, False
        while seq >= first:
            start = max(first, seq - _BLOCK + 1)
            lines = self._audit.lines(start, seq - start + 1)
            if len(lines) <= seq - start:
                return None  # Some are on their way to the disk.
            for number in range(seq, start - 1, -1):
                event = event_of(lines[number - start], number)
                if event.operation_id == hold.operation_id:
                    if event.phase is not Phase.INTENT:
                        return event.code in _DONE
                    began = True
                elif _is_reservation(event, hold):
                    return None if began else False
            seq = start - 1
        return False

    def anchor(self) -> None:
        """
        Restate every approval in the audit log, before old records are pruned.

        Raises:
            HSMError: It can't be read or recorded.
        """
        drafts = []
        for approval_id in self._ledger:
            known = self._ledger.get(approval_id)
            if known is None or approval_id in self._ledger.condemned:
                continue
            drafts.append(
                AuditDraft(
                    phase=Phase.SINGLE,
                    kind=ANCHORED,
                    approval_id=approval_id,
                    policy=self._steps.policy_hash,
                    detail=ApprovalDetail(
                        generation=known.generation,
                        state=known.state,
                        record_sha256=known.sha256,
                    ),
                )
            )
        for start in range(0, len(drafts), _BLOCK):
            self._steps.record(drafts[start : start + _BLOCK])

    def compare(self) -> tuple[str, ...]:
        """
        Compare every approval with its last written state; return those that differ.

        Raises:
            HSMError: They can't be read.
        """
        self._register.check()
        # In this order, for what is added meanwhile must not look as if it were gone.
        known = list(self._ledger)
        there = set(self._register.store.approval_ids())
        for approval_id in known:
            if approval_id not in there and self._ledger.get(approval_id) is not None:
                self._ledger.condemned.setdefault(approval_id, "missing")
                self._steps.tell(approval_id, "missing")
        return tuple(sorted({*self._ledger.condemned, *self._register.tampered}))

    def forget(self, reason: str) -> tuple[str, ...]:
        """
        Discard every approval that differs; keys are not affected.

        Raises:
            HSMError: Store or trail can't be used.
        """
        gone = self.compare()
        for approval_id in gone:
            self._steps.forget(approval_id, FORGOTTEN, reason)
        self._register.store.remove(gone)
        self._register.check()
        return gone

    @property
    def status(self) -> ops.ApprovalStatus:
        """Return the state of the approvals without reading the store again."""
        findings = {*self._ledger.condemned, *self._register.tampered}
        return ops.ApprovalStatus(
            available=self._register.store.available,
            pending=self._ledger.count(ApprovalState.PENDING),
            granted=self._ledger.count(ApprovalState.GRANTED),
            findings=len(findings),
        )


def _is_reservation(event: AuditEvent, hold: ApprovalReservation) -> bool:
    detail = event.detail
    return (
        event.approval_id == hold.approval_id
        and event.phase is Phase.OUTCOME
        and isinstance(detail, ApprovalDetail)
        and detail.state is ApprovalState.RESERVED
        and detail.operation_id == hold.operation_id
    )

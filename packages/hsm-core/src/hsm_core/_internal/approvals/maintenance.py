# SPDX-License-Identifier: MIT
"""Approval maintenance: startup, periodic work, pruning and recovery."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.approvals.journal import (
    ApprovalJournal,
    ApprovalSetDigest,
    FollowedApprovals,
)
from hsm_core._internal.approvals.records import instants_of
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.approvals.rollback_check import (
    ANCHORED,
    FORGOTTEN,
    compare_approvals,
)
from hsm_core._internal.approvals.service import ApprovalService, CredentialCheck
from hsm_core._internal.approvals.signatures import SignatureCheck
from hsm_core._internal.approvals.workflow import ApprovalReservation, ApprovalWorkflow
from hsm_core._internal.audit.reading import RecordSource
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.journal import COMMITTED
from hsm_core._internal.policy.in_force import Recogniser
from hsm_core.errors import HSMError
from hsm_core.model import (
    Approval,
    ApprovalDetail,
    ApprovalState,
    AuditEvent,
    Caller,
    Phase,
)
from hsm_core.protocols import (
    ApprovalQuery,
    ApprovalStore,
    AuditDraft,
    AuditLog,
    CredentialKeys,
)
from hsm_core.settings import ApprovalStoreKind

_BLOCK: Final = 1000
_MOST_LOOKED_AT: Final = 100
_RECOVERY: Final = Caller(principal="system.recovery", roles=frozenset())
_IDLE: Final = 7 * 24 * 3600 * 1_000_000
_DAY: Final = 24 * 3600 * 1_000_000
_BATCH: Final = 256


class ApprovalMaintenance:
    """
    Maintenance of the approvals of an HSM. Thread-safe.

    Args:
        register: The approvals.

        ledger: Their set digest.

        steps: Their journal.

        audit: The audit log.

        consents: Settles reservations of operations.

        others: The same approvals, where other nodes change them too.

    Attributes:
        others: As given.
    """

    def __init__(
        self,
        register: ApprovalRegister,
        ledger: ApprovalSetDigest,
        steps: ApprovalJournal,
        audit: AuditLog,
        consents: ApprovalWorkflow,
        others: FollowedApprovals | None = None,
    ) -> None:
        self._register = register
        self._ledger = ledger
        self._steps = steps
        self._audit = audit
        self._consents = consents
        self.others = others
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
        self._steps.append_pending()
        self._steps.settle()
        self._consents.settle_again(self._was_done)

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
        Settle the reservations of operations that a crash ended; at startup.

        With other nodes, only those that were recorded in this node's log.

        Raises:
            HSMError: Store or audit log can't be used.
        """
        self.settle_reserved_of(self._audit)

    def settle_reserved_of(self, log: RecordSource) -> bool:
        """
        Settle the reservations of operations that a log has; its node is dead.

        Returns:
            Whether none of them is left, to be settled later.

        Args:
            log: The audit log, complete. This node's has the outcomes of its open
                intents.

        Raises:
            HSMError: Store or audit log can't be used.
        """
        log_id = log.log_id if self.others is not None else ""
        holds = list(self._holds(log_id))
        found = _trace(log, holds)
        for hold in holds:
            done = found.get(hold.operation_id)
            if done is None:
                done = self._was_done(hold)  # Unknown if its key can't be compared yet.
            self._consents.settle(hold, done=done)
        return not holds or next(self._holds(log_id), None) is None

    def _holds(self, log_id: str) -> Iterator[ApprovalReservation]:
        for entry in self._register.entries(frozenset({ApprovalState.RESERVED})):
            approval = self._register.believed(entry.approval_id)
            if approval is None or approval.state is not ApprovalState.RESERVED:
                continue
            if approval.log_id == log_id:
                yield ApprovalReservation(
                    approval.approval_id,
                    approval.operation_id,
                    _RECOVERY,
                    approval.generation,
                )

    def _was_done(self, hold: ApprovalReservation) -> bool | None:
        """Return whether an operation was done, by the audit log; None if unknown."""
        return _trace(self._audit, [hold]).get(hold.operation_id)

    def anchor(self) -> None:
        """
        Restate every approval in the audit log, before old records are pruned.

        With other nodes, the feed of changes has them for all.

        Raises:
            HSMError: It can't be read or recorded.
        """
        drafts: list[AuditDraft] = []
        for approval_id in self._ledger if self.others is None else ():
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
        missing = [approval_id for approval_id in known if approval_id not in there]
        if missing and self.others is not None:
            self.others.catch_up()  # Another node may have removed them.
        for approval_id in missing:
            if self._ledger.get(approval_id) is not None:
                self._ledger.condemned.setdefault(approval_id, "missing")
                self._steps.tell(approval_id, "missing")
        return tuple(sorted({*self._ledger.condemned, *self._register.tampered}))

    def forget(self, reason: str) -> tuple[str, ...]:
        """
        Discard every approval that still differs; keys are not affected.

        Raises:
            HSMError: Store or audit log can't be used.
        """
        self._steps.release_restored()
        gone = self.compare()
        for approval_id in gone:
            self._steps.forget(approval_id, FORGOTTEN, reason)
        self._register.store.remove(gone)
        self._register.check()
        return gone

    @property
    def status(self) -> ops.ApprovalStatus:
        """Return the state of the approvals without reading them again."""
        findings = {*self._ledger.condemned, *self._register.tampered}
        return ops.ApprovalStatus(
            available=self._register.store.available,
            pending=self._count(ApprovalState.PENDING),
            granted=self._count(ApprovalState.GRANTED),
            findings=len(findings),
        )

    def _count(self, state: ApprovalState) -> int:
        if self.others is not None:
            with suppress(HSMError):
                return self.others.count(state)
        return self._ledger.count(state)


def _trace(
    audit: RecordSource, holds: Iterable[ApprovalReservation]
) -> dict[str, bool | None]:
    """
    Follow an audit log back to the reservations of approvals.

    Returns:
        Whether each operation was done, by its ID; None if that can't be told yet.
    """
    sought = {hold.operation_id: hold.approval_id for hold in holds}
    found: dict[str, bool | None] = dict.fromkeys(sought, False)
    seq, first = audit.head().seq, audit.first_seq
    while sought and seq >= first:
        start = max(first, seq - _BLOCK + 1)
        lines = audit.lines(start, seq - start + 1)
        if len(lines) <= seq - start:
            # Some are on their way to the disk.
            return found | dict.fromkeys(sought, None)
        for number in range(seq, start - 1, -1):
            event = event_of(lines[number - start], number)
            reserved_for = _reserved_for(event)
            if event.operation_id in sought:
                is_done = event.code in COMMITTED
                if event.phase is Phase.INTENT:
                    found[event.operation_id] = None
                elif event.phase is Phase.OUTCOME or is_done:
                    found[event.operation_id] = is_done
                    del sought[event.operation_id]
                # A refused repetition says nothing of the operation itself.
            elif sought.get(reserved_for) == event.approval_id:
                del sought[reserved_for]
        seq = start - 1
    return found


def _reserved_for(event: AuditEvent) -> str:
    """Return the operation that a record reserves an approval for, or empty."""
    detail = event.detail
    if event.phase is Phase.SINGLE or not isinstance(detail, ApprovalDetail):
        return ""
    return detail.operation_id if detail.state is ApprovalState.RESERVED else ""


def prune_approvals(register: ApprovalRegister, days: int) -> tuple[str, ...]:
    """
    Remove approvals that were closed more than so many days ago.

    Pending, granted and reserved ones stay, however old; so do unauthentic ones. Expiry
    is stored.

    Args:
        register: All approvals.

        days: Age, counted from the end.

    Returns:
        Ids of the approvals that are gone.

    Raises:
        StoreUnavailableError: Some may have been removed.
        OutcomeUnknownError: The same; the store must be reopened.
    """
    closed: dict[str, int] = {}
    instants = {register.opened_at}
    for approval_id in register.store.approval_ids():
        approval = register.current(approval_id)
        if approval is not None:
            _note(approval, register.opened_at, closed, instants)
    age = _Age(register, sorted(instants))
    old = [name for name, end in closed.items() if age.of(end) > days * _DAY]
    for start in range(0, len(old), _BATCH):
        register.remove(old[start : start + _BATCH])
    return tuple(old)


def _note(
    approval: Approval, opened_at: int, closed: dict[str, int], instants: set[int]
) -> None:
    instants.update(at for at in instants_of(approval) if at <= opened_at)
    if approval.closed_at:
        closed[approval.approval_id] = approval.closed_at


class _Age:
    """
    How much time is known to have passed since an instant.

    Args:
        register: Knows the time, and what of it was counted while it was open.

        instants: Known ones, ascending; the last is when the register was made.
    """

    def __init__(self, register: ApprovalRegister, instants: Sequence[int]) -> None:
        self._now = register.time.now()
        self._jumped = max(0, self._now - register.opened_at - register.time.passed())
        self._instants = instants
        jumps = [max(0, later - at - _IDLE) for at, later in pairwise(instants)]
        # What doesn't count after the n-th instant.
        self._uncounted = [0]
        for jump in reversed(jumps):
            self._uncounted.append(self._uncounted[-1] + jump)
        self._uncounted.reverse()

    def of(self, at: int) -> int:
        """Return the age of what happened at one of the instants, or later."""
        place = bisect_right(self._instants, at) - 1
        return self._now - at - self._jumped - self._uncounted[place]


class DualControl(msgspec.Struct, frozen=True):
    """
    Approval parts used by the rest of the HSM.

    Attributes:
        register: The approvals.
        care: Maintains them.
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
    others: FollowedApprovals | None = None,
) -> DualControl:
    """
    Compare the approvals with the audit log, and assemble dual control.

    Args:
        ground: Its keys have the ring, and the lock of all records with set digests;
            their open intents are settled.

        store: Store of the approvals.

        ledger: Knows the digest that was recorded last.

        check_signature: Checks what approvers sign.

        credential_keys: Trusted keys of credentials; None if the caller checks them.

        last_used_at: Returns the time of a key's last use, in microseconds since 1970,
            or 0.

        others: The same approvals, where other nodes change them too; what the changes
            say of them is known.

    Raises:
        AuditTamperedError: A record is bad.
        UnavailableError: Store or audit log can't be read or written.
    """
    settings, policy, audit = ground.settings, ground.policy, ground.audit
    ring, entropy = ground.inventory.ring, ground.entropy
    register = ApprovalRegister(
        store, ring.approval_mac, ground.clock, floor=_newest_time(audit)
    )
    steps = ApprovalJournal(
        ledger, store, ground.inventory, audit, entropy, policy.policy_hash, others
    )
    is_lasting = settings.approval_store != ApprovalStoreKind.MEMORY
    ahead = ""
    if others is not None:
        register.journal = steps
        steps.settle()
    else:
        ahead = compare_approvals(
            register, ledger, steps, audit, ground.verify, is_lasting=is_lasting
        )
    known_people = Recogniser(policy, is_on=settings.certificate_identities)
    people = ApprovalService(
        register,
        steps,
        ring,
        policy,
        ground.inventory,
        check_signature=check_signature,
        credentials=CredentialCheck(
            credential_keys,
            ring.credential_mark,
            known_people.people,
            known_people.token_identities,
        ),
    )
    consents = ApprovalWorkflow(
        register,
        steps,
        people,
        ring,
        entropy,
        policy,
        last_used_at=last_used_at,
        is_done=lambda name: ground.inventory.store.find_operation(name) is not None,
        log_id=audit.log_id if others is not None else "",
        most_open=settings.approval_requests,
    )
    care = ApprovalMaintenance(register, ledger, steps, audit, consents, others)
    if others is not None and settings.accept_changed_store:
        care.compare()
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

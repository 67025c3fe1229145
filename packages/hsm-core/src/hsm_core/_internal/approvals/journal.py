# SPDX-License-Identifier: MIT
"""
Approval journal: the journal of approval steps, which roll back.

The intent names the stored form after the step, so that the store alone decides whether
the step was committed. The outcome records the set digest of all approvals. A removal
of completed approvals is rolled forward.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from hsm_core._internal.keyring.journal import (
    REMOVED,
    Journal,
    interrupted_in,
    is_of_approvals,
    outcome_of,
)
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import (
    ApprovalTamperedError,
    AuditUnavailableError,
    HSMError,
    OutcomeUnknownError,
)
from hsm_core.model import Approval, ApprovalDetail, ApprovalState, AuditEvent, Phase
from hsm_core.protocols import ApprovalStore, AuditDraft, AuditLog, Entropy

_MODULUS: Final = 1 << 256
EXPIRED: Final = "system.approval-expired"
TAMPERED: Final = "system.approval-tampered"
_RESERVED: Final = frozenset(
    {
        "system.approval-used",
        "system.approval-released",
        EXPIRED,
        REMOVED,
    }
)
"""Record kinds that may use the reserved space: they end an approval."""


class ApprovalAnchor(msgspec.Struct, frozen=True):
    """Last written state of an approval: generation, SHA-256 (hex) and state."""

    generation: int
    sha256: str
    state: ApprovalState


class FollowedApprovals(Protocol):
    """Approvals that other nodes of a cluster change too."""

    def catch_up(self) -> None:
        """
        Note every change that is committed, whichever node made it.

        Raises:
            HSMError: They can't be read.
        """
        ...

    def was_made(self, approval_id: str, sha256: str, /) -> bool:
        """
        Return whether an approval ever had this stored form.

        Raises:
            HSMError: The changes can't be read.
        """
        ...

    def count(self, state: ApprovalState, /) -> int:
        """
        Return how many approvals are in a state, by what the store says of them.

        Raises:
            HSMError: It can't be read.
        """
        ...

    def end_transactions(self) -> None:
        """
        Wait for the transactions of this node, and refuse what arrives later of them.

        Raises:
            HSMError: It can't be done now.
        """
        ...


class ApprovalSetDigest:
    """
    Set digest over the last written states of all approvals. Thread-safe.

    Args:
        element: Computes the digest element of one approval;
            `KeyRing.approval_element`.

        recorded: Last recorded digest, hex, or empty.
    """

    def __init__(
        self, element: Callable[[str, int, str], int], recorded: str = ""
    ) -> None:
        self._element = element
        self._total = int(recorded or "0", 16)
        self._anchors: dict[str, ApprovalAnchor] = {}
        self._states: Counter[ApprovalState] = Counter()
        self._lock = threading.Lock()
        self.condemned: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<ApprovalSetDigest of {len(self._anchors)} approvals>"

    @property
    def digest(self) -> str:
        """The digest over all, hex; empty where there is none."""
        return f"{self._total:064x}" if self._total else ""

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._anchors))

    def count(self, state: ApprovalState) -> int:
        """Return how many approvals were left in a state."""
        return self._states[state]

    def get(self, approval_id: str) -> ApprovalAnchor | None:
        """Return what is known of an approval."""
        return self._anchors.get(approval_id)

    def put(self, approval_id: str, anchor: ApprovalAnchor) -> None:
        """Note a new state of an approval."""
        with self._lock:
            self._put(approval_id, anchor)

    def advance(self, approval_id: str, anchor: ApprovalAnchor) -> None:
        """Note a state of an approval, unless a newer one is known."""
        with self._lock:
            known = self._anchors.get(approval_id)
            if known is None or known.generation < anchor.generation:
                self._put(approval_id, anchor)

    def remove(self, approval_ids: Iterable[str]) -> None:
        """Note that approvals are no more."""
        with self._lock:
            for approval_id in approval_ids:
                self._forget(approval_id)
                self.condemned.pop(approval_id, None)

    def adopt(self, anchors: dict[str, ApprovalAnchor]) -> None:
        """Replace the known states by these."""
        with self._lock:
            self._anchors = dict(anchors)
            self._states = Counter(anchor.state for anchor in anchors.values())
            self._total = self.sum_of(anchors)

    def sum_of(self, anchors: dict[str, ApprovalAnchor]) -> int:
        """Return the sum that the digest over these would be."""
        parts = (self._element(k, a.generation, a.sha256) for k, a in anchors.items())
        return sum(parts) % _MODULUS

    @property
    def total(self) -> int:
        """The digest as a number."""
        return self._total

    def _put(self, approval_id: str, anchor: ApprovalAnchor) -> None:
        self._forget(approval_id)
        self._anchors[approval_id] = anchor
        self._states[anchor.state] += 1
        self._add(approval_id, anchor, 1)

    def _forget(self, approval_id: str) -> None:
        before = self._anchors.pop(approval_id, None)
        if before is not None:
            self._states[before.state] -= 1
            self._add(approval_id, before, -1)

    def _add(self, approval_id: str, anchor: ApprovalAnchor, sign: int) -> None:
        part = self._element(approval_id, anchor.generation, anchor.sha256)
        self._total = (self._total + sign * part) % _MODULUS


def record_sha256(stored: bytes) -> str:
    """Return SHA-256 of a stored form, hex."""
    return hashlib.sha256(stored).hexdigest()


class ApprovalJournal(Journal):
    """
    Approval journal, called under the lock of each approval. Thread-safe.

    Args:
        ledger: Set digest of the approvals.

        store: Store of the approvals.

        inventory: Its lock gives records with set digests their order.

        audit: The audit log.

        entropy: Source of the ids of steps.

        policy_hash: SHA-256 of the policy in force, hex.

        others: The same approvals, where other nodes change them too.

        interrupted: Intents to settle; by default those that a crash of this machine
            has left in the audit log.
    """

    def __init__(
        self,
        ledger: ApprovalSetDigest,
        store: ApprovalStore,
        inventory: KeyRepository,
        audit: AuditLog,
        entropy: Entropy,
        policy_hash: Callable[[], str],
        others: FollowedApprovals | None = None,
        interrupted: Sequence[AuditDraft] | None = None,
    ) -> None:
        super().__init__(audit, inventory.committing)
        self._ledger = ledger
        self._store = store
        self._inventory = inventory
        self._entropy = entropy
        self._policy_hash = policy_hash
        self._others = others
        self._told: set[str] = set()
        for intent in interrupted_in(audit) if interrupted is None else interrupted:
            if is_of_approvals(intent):
                self.doubt(intent)
        self._interrupted = frozenset(self.open)

    # The three questions

    def decided(self, intent: AuditDraft) -> bool | None:
        """Return whether the store holds the approval as it is after the step."""
        if intent.kind == REMOVED:
            return True
        if self._others is not None:
            if self._inventory.lock.reason:
                return None
            # Another node may have changed the approval since.
            return self._others.was_made(intent.approval_id, anchor_of(intent).sha256)
        stored = self._store.get(intent.approval_id)
        return stored is not None and record_sha256(stored) == anchor_of(intent).sha256

    def forbid(self, intent: AuditDraft) -> bool:
        """
        See that no commit is in flight.

        There is none after the store was opened again, and none of a fenced node.
        """
        if self._others is None or intent.intent_log:
            return True
        self._others.end_transactions()
        return not self.decided(intent)

    def finish(self, intent: AuditDraft, *, committed: bool) -> AuditDraft:
        """Count a committed step; remove the rest of what a removal names."""
        if intent.kind == REMOVED:
            self._store.remove(removed_by(intent))
        if committed:
            self._count(intent)
        if intent.operation_id in self._interrupted:
            return outcome_of(intent, committed=committed)
        code = "ok" if committed else OutcomeUnknownError.code
        return replace(intent, phase=Phase.OUTCOME, code=code)

    def _count(self, intent: AuditDraft) -> None:
        if self._others is not None:
            self._others.catch_up()
        elif intent.kind == REMOVED:
            self._ledger.remove(removed_by(intent))
        else:
            self._ledger.put(intent.approval_id, anchor_of(intent))

    def set_digest(self) -> str:
        """Return the set digest of keys and approvals."""
        return self._inventory.set_digest

    # Steps

    def is_as_left(self, approval: Approval, stored: bytes, /) -> bool:
        """
        Return whether an authentic stored form is the one that was written last.

        Raises:
            ApprovalTamperedError: The approval was found altered before.
        """
        approval_id = approval.approval_id
        if self._is_open(approval_id):
            return True  # Its state is unknown until the step is settled.
        self._check(approval_id)
        known = self._ledger.get(approval_id)
        return known is not None and known.sha256 == record_sha256(stored)

    def vouch(self, approval: Approval, stored: bytes, /) -> None:
        """
        Compare an authentic stored form with what was written, within `quiet`.

        Raises:
            ApprovalTamperedError: It is another state of the approval.
        """
        if self.is_as_left(approval, stored):
            return
        approval_id, found = approval.approval_id, record_sha256(stored)
        there = ApprovalAnchor(approval.generation, found, approval.state)
        known = self._ledger.get(approval_id)
        self._ledger.condemned[approval_id] = difference(there, known)
        self._check(approval_id)

    def _check(self, approval_id: str) -> None:
        reason = self._ledger.condemned.get(approval_id)
        if reason is not None:
            raise ApprovalTamperedError(
                f"Approval {approval_id} differs from the audit log: {reason}",
                approval_id=approval_id,
            )

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """
        Keep every node from changing approvals, within the context.

        Every change that was committed is then known here.

        Raises:
            HSMError: The changes can't be read, or locked in time.
        """
        with self._inventory.quiet():
            if self._others is not None:
                self._others.catch_up()
            yield

    def has_newer(self, approval_id: str, stored: bytes | None, /) -> bool:
        """
        Return whether another node may have changed an approval since it was read.

        Every change that was committed is then known here, and what is read again is
        not older than that.
        """
        if self._others is None:
            return False
        known = self._ledger.get(approval_id)
        found = record_sha256(stored) if stored else ""
        if found == (known.sha256 if known else "") or self._is_open(approval_id):
            return False
        self._others.catch_up()
        return True

    def _is_open(self, approval_id: str) -> bool:
        intents = list(self.open.values())
        return any(intent.approval_id == approval_id for intent in intents)

    def tell(self, approval_id: str, reason: str, /) -> None:
        """Record, once, that an approval was found altered, or how it differs."""
        if approval_id in self._told:
            return
        reason = self._ledger.condemned.get(approval_id, reason)
        self._told.add(approval_id)
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind=TAMPERED,
            code=ApprovalTamperedError.code,
            approval_id=approval_id,
            policy=self._policy_hash(),
            parameters={"reason": reason},
        )
        with suppress(HSMError):
            self.wait(self.log.append([draft], durable=True, reserved=True))

    def change(
        self,
        before: Approval | None,
        after: Approval,
        record: bytes,
        step: AuditDraft | None,
        /,
    ) -> AbstractContextManager[None]:
        """
        Return a context that records a change around its commit.

        Args:
            before: None for a new approval.

            after: As it becomes.

            record: Its stored form.

            step: Who does what; None for an expiry.

        Raises:
            AuditUnavailableError: On entry; nothing is to be committed.
            OutcomeUnknownError: At the end; it was committed and not recorded.
        """
        known = self._ledger.get(after.approval_id)
        anchor = ApprovalAnchor(after.generation, record_sha256(record), after.state)
        draft = step or AuditDraft(phase=Phase.INTENT, kind=EXPIRED)
        draft = replace(
            draft,
            phase=Phase.INTENT,
            operation_id=self._entropy.random_bytes(16).hex(),
            approval_id=after.approval_id,
            key_id=after.key_id,
            policy=self._policy_hash(),
            detail=detail_of(after, anchor, known if before else None),
        )
        return self._recorded(draft)

    @contextmanager
    def _recorded(self, draft: AuditDraft) -> Iterator[None]:
        outcome = replace(draft, phase=Phase.OUTCOME)
        self.begin(draft, reserved=draft.kind in _RESERVED)
        failpoint("approval.after_intent")
        try:
            yield
        except OutcomeUnknownError:
            self.doubt(draft)
            raise
        except HSMError as error:
            if draft.kind == REMOVED:
                self.doubt(draft)
            else:
                with suppress(HSMError):
                    self.conclude(replace(outcome, code=error.code))
            raise
        failpoint("approval.after_store")
        try:
            with self._order:
                self._count(draft)
                ticket = self.conclude(outcome)
            self.wait(ticket)
        except AuditUnavailableError as error:
            raise _unknown(draft) from error
        self.close(draft.operation_id)
        failpoint("approval.after_outcome")

    def removal(self, approval_ids: Sequence[str], /) -> AbstractContextManager[None]:
        """Return a context that records a removal of closed approvals around it."""
        return self._recorded(
            AuditDraft(
                phase=Phase.INTENT,
                kind=REMOVED,
                operation_id=self._entropy.random_bytes(16).hex(),
                parameters={"approvals": list(approval_ids)},
                policy=self._policy_hash(),
            )
        )

    def release_restored(self) -> None:
        """
        Release altered approvals that are again in their last written state.

        Raises:
            HSMError: They can't be read.
        """
        with self.quiet():
            for approval_id in list(self._ledger.condemned):
                stored = self._store.get(approval_id)
                known = self._ledger.get(approval_id)
                if stored and known and record_sha256(stored) == known.sha256:
                    del self._ledger.condemned[approval_id]

    def forget(self, approval_id: str, kind: str, reason: str) -> None:
        """
        Record that an approval is discarded, and count it no more.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        with self._order:
            if self._others is None:
                self._ledger.remove([approval_id])
            ticket = self.append(
                AuditDraft(
                    phase=Phase.SINGLE,
                    kind=kind,
                    approval_id=approval_id,
                    policy=self.policy_hash,
                    parameters={"reason": reason},
                )
            )
        self.wait(ticket)

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the policy in force, hex."""
        return self._policy_hash()

    def record(self, drafts: Sequence[AuditDraft]) -> None:
        """
        Record what is about approvals and changes none, durably.

        Raises:
            AuditUnavailableError: It can't be.
            HSMError: See `checking`.
        """
        self.wait(self.log.append(self.checked(drafts), durable=True))


def anchor_of(intent: AuditDraft) -> ApprovalAnchor:
    """Return the state of an approval after a step."""
    detail = _detail(intent)
    return ApprovalAnchor(detail.generation, detail.record_sha256, detail.state)


def anchor_before(intent: AuditDraft) -> ApprovalAnchor | None:
    """Return the counted state of an approval before a step; None if it is new."""
    detail = _detail(intent)
    if not detail.before_sha256:
        return None
    return ApprovalAnchor(detail.generation - 1, detail.before_sha256, detail.state)


def _detail(intent: AuditDraft) -> ApprovalDetail:
    if not isinstance(intent.detail, ApprovalDetail):
        raise AssertionError("an approval step has its detail")
    return intent.detail


def removed_by(intent: AuditDraft | AuditEvent) -> list[str]:
    """Return the ids of the approvals that a removal names."""
    named = intent.parameters.get("approvals")
    return named if intent.kind == REMOVED and isinstance(named, list) else []


def detail_of(
    after: Approval, anchor: ApprovalAnchor, known: ApprovalAnchor | None
) -> ApprovalDetail:
    """Return what the audit log says of a step."""
    return ApprovalDetail(
        generation=anchor.generation,
        state=anchor.state,
        record_sha256=anchor.sha256,
        before_sha256=known.sha256 if known else "",
        operation_id=after.operation_id,
    )


def difference(there: ApprovalAnchor, wanted: ApprovalAnchor | None) -> str:
    """Return how a stored approval differs from its last written state."""
    if wanted is None:
        return "foreign"
    if there.generation < wanted.generation:
        return "older"
    return "newer" if there.generation > wanted.generation else "edited"


def _unknown(draft: AuditDraft) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "The approval was changed, but the change could not be recorded. Show the "
        "approval to see its state.",
        approval_id=draft.approval_id,
        operation_id=draft.operation_id,
    )

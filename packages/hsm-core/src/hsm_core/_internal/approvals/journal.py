# SPDX-License-Identifier: MIT
"""
Approval journal: records each step as durable intent, commit, outcome.

The intent names the stored form that is to be, so that after a crash the store alone
tells what became of it. The outcome bears the digest over all approvals. What the trail
could not take is owed, and no further step is made before it has been.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Final

from hsm_core._internal.approvals.set_digest import (
    ApprovalAnchor,
    ApprovalSetDigest,
    record_sha256,
)
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.settlement import REMOVED
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import (
    ApprovalTamperedError,
    AuditUnavailableError,
    HSMError,
    OutcomeUnknownError,
)
from hsm_core.model import Approval, ApprovalDetail, Phase
from hsm_core.protocols import AuditDraft, AuditLog, AuditTicket, Entropy

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

_DONE: Final = frozenset({"ok", "recovered-committed"})


class ApprovalJournal:
    """
    Approval journal, the `Witness` of an HSM's approvals. Thread-safe.

    Args:
        ledger: What was written.

        inventory: Its lock gives records with set digests their order.

        audit: The trail.

        entropy: Source of the ids of steps.

        policy_hash: SHA-256 of the policy in force, hex.
    """

    def __init__(
        self,
        ledger: ApprovalSetDigest,
        inventory: KeyRepository,
        audit: AuditLog,
        entropy: Entropy,
        policy_hash: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._inventory = inventory
        self._audit = audit
        self._entropy = entropy
        self._policy_hash = policy_hash
        self._owed: list[AuditDraft] = []
        self._doubtful: dict[
            str, tuple[AuditDraft, ApprovalAnchor | None, ApprovalAnchor]
        ] = {}
        self._removals: list[tuple[AuditDraft, tuple[str, ...]]] = []
        self._local = threading.local()
        self._told: set[str] = set()

    @contextmanager
    def waiting(self, wait: Callable[[AuditTicket], None]) -> Iterator[None]:
        """Let steps of this thread wait for the trail by these means."""
        before = getattr(self._local, "wait", None)
        self._local.wait = wait
        try:
            yield
        finally:
            self._local.wait = before

    def vouch(self, approval: Approval, stored: bytes, /) -> None:
        """Compare a stored form with what was written; see `Witness.vouch`."""
        approval_id = approval.approval_id
        known = self._ledger.get(approval_id)
        found = record_sha256(stored)
        if approval_id in self._doubtful:
            return  # Nobody knows yet which of two it is.
        if approval_id not in self._ledger.condemned:
            if known is not None and known.sha256 == found:
                return
            self._ledger.condemned[approval_id] = _reason(approval, known)
        reason = self._ledger.condemned[approval_id]
        self.tell(approval_id, reason)
        raise ApprovalTamperedError(
            f"Approval {approval_id} differs from the audit log: {reason}",
            approval_id=approval_id,
        )

    def tell(self, approval_id: str, reason: str, /) -> None:
        """Record, once, that an approval was found altered."""
        if approval_id in self._told:
            return
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
            self._wait(self._audit.append([draft], durable=True, reserved=True))

    def change(
        self,
        before: Approval | None,
        after: Approval,
        record: bytes,
        step: AuditDraft | None,
        /,
    ) -> AbstractContextManager[None]:
        """Record a change round its commit; see `Witness.change`."""
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
        return self._recorded(draft, known, anchor)

    @contextmanager
    def _recorded(
        self, draft: AuditDraft, known: ApprovalAnchor | None, anchor: ApprovalAnchor
    ) -> Iterator[None]:
        self.pay()
        self._begin(draft)
        failpoint("approval.after_intent")
        try:
            yield
        except OutcomeUnknownError:
            self._doubtful[draft.approval_id] = draft, known, anchor
            raise
        except HSMError as error:
            self._fail(draft, error.code)
            raise
        failpoint("approval.after_store")
        ticket = self._conclude(draft, anchor)
        if ticket is None:
            raise _unknown(draft)
        try:
            self._wait(ticket)
        except AuditUnavailableError as error:
            raise _unknown(draft) from error
        failpoint("approval.after_outcome")

    @contextmanager
    def removal(self, approval_ids: Sequence[str], /) -> Iterator[None]:
        """Record a removal round it; see `Witness.removal`."""
        self.pay()
        draft = AuditDraft(
            phase=Phase.INTENT,
            kind=REMOVED,
            operation_id=self._entropy.random_bytes(16).hex(),
            parameters={"approvals": list(approval_ids)},
            policy=self._policy_hash(),
        )
        self._begin(draft)
        failpoint("approval.after_intent")
        try:
            yield
        except HSMError:
            self._removals.append((draft, tuple(approval_ids)))
            raise
        failpoint("approval.after_store")
        self.conclude_removal(draft, approval_ids)

    def conclude_removal(self, draft: AuditDraft, approval_ids: Sequence[str]) -> None:
        """Record that approvals were removed."""
        with self._inventory.committing:
            self._ledger.remove(approval_ids)
            self._append(self._outcome(draft, "ok"))

    def _begin(self, draft: AuditDraft) -> None:
        ticket = self._audit.append(
            [draft], durable=True, reserved=draft.kind in _RESERVED
        )
        try:
            self._wait(ticket)
        except AuditUnavailableError as error:
            # It is in progress, and must not stay pending indefinitely.
            self._owed.append(self._outcome(draft, error.code))
            raise

    def _fail(self, draft: AuditDraft, code: str) -> None:
        with self._inventory.committing:
            self._append(self._outcome(draft, code))

    def _conclude(
        self, draft: AuditDraft, anchor: ApprovalAnchor
    ) -> AuditTicket | None:
        with self._inventory.committing:
            self._ledger.put(draft.approval_id, anchor)
            return self._append(self._outcome(draft, "ok"))

    def _outcome(self, draft: AuditDraft, code: str) -> AuditDraft:
        return replace(draft, phase=Phase.OUTCOME, code=code)

    def _append(self, outcome: AuditDraft) -> AuditTicket | None:
        """Append an outcome, or owe it; callers hold `KeyRepository.committing`."""
        if self._owed:
            self._owed.append(outcome)
            return None
        try:
            return self._appended(outcome)
        except HSMError:
            self._owed.append(outcome)
            return None

    def _appended(self, outcome: AuditDraft) -> AuditTicket:
        digest = self._inventory.set_digest if outcome.code in _DONE else ""
        draft = replace(outcome, set_digest=digest)
        return self._audit.append([draft], durable=True, reserved=True)

    def forget(self, approval_id: str, kind: str, reason: str) -> None:
        """
        Record that an approval is no more, and know nothing of it.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        with self._inventory.committing:
            self._ledger.remove([approval_id])
            draft = AuditDraft(
                phase=Phase.SINGLE,
                kind=kind,
                approval_id=approval_id,
                policy=self.policy_hash,
                parameters={"reason": reason},
            )
            ticket = self._appended(draft)
        self._wait(ticket)

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the policy in force, hex."""
        return self._policy_hash()

    def record(self, drafts: Sequence[AuditDraft]) -> None:
        """
        Record what is about approvals and changes none, durably.

        Raises:
            AuditUnavailableError: It can't be.
        """
        self._wait(self._audit.append(list(drafts), durable=True))

    def settle(self, intent: AuditDraft, anchor: ApprovalAnchor | None) -> None:
        """
        Record what a crash has swallowed: a step that was made, or was not.

        Args:
            intent: As it was recorded.

            anchor: What it made; None if it was not made.
        """
        with self._inventory.committing:
            code = "recovered-aborted"
            if anchor is not None:
                self._ledger.put(intent.approval_id, anchor)
                code = "recovered-committed"
            self._appended(self._outcome(intent, code)).wait()

    def pay(self) -> None:
        """
        Append pending outcomes.

        Raises:
            AuditUnavailableError: They still can't be.
        """
        if not self._owed:
            return
        with self._inventory.committing:
            while self._owed:
                self._appended(self._owed[0])
                self._owed.pop(0)

    def heal(self, stored: Callable[[str], bytes | None]) -> None:
        """
        Find out what became of commits whose outcome the store did not tell.

        Args:
            stored: Returns the stored form of an approval; the store was reopened.

        Raises:
            HSMError: Store or trail can't be used.
        """
        for approval_id, (draft, known, anchor) in list(self._doubtful.items()):
            found = stored(approval_id)
            sha256 = record_sha256(found) if found is not None else ""
            if sha256 == anchor.sha256:
                self._conclude(draft, anchor)
            elif sha256 == (known.sha256 if known else ""):
                self._fail(draft, OutcomeUnknownError.code)
            del self._doubtful[approval_id]
        for draft, approval_ids in list(self._removals):
            gone = [name for name in approval_ids if stored(name) is None]
            self.conclude_removal(draft, gone)
            self._removals.remove((draft, approval_ids))

    @property
    def needs_healing(self) -> bool:
        """Whether the store has not told what became of something."""
        return bool(self._doubtful or self._removals)

    def _wait(self, ticket: AuditTicket) -> None:
        wait = getattr(self._local, "wait", None)
        ticket.wait() if wait is None else wait(ticket)


def detail_of(
    after: Approval, anchor: ApprovalAnchor, known: ApprovalAnchor | None
) -> ApprovalDetail:
    """Return what the trail says of a step."""
    return ApprovalDetail(
        generation=anchor.generation,
        state=anchor.state,
        record_sha256=anchor.sha256,
        before_sha256=known.sha256 if known else "",
        operation_id=after.operation_id,
    )


def _reason(approval: Approval, known: ApprovalAnchor | None) -> str:
    if known is None:
        return "foreign"
    if approval.generation < known.generation:
        return "older"
    return "newer" if approval.generation > known.generation else "edited"


def _unknown(draft: AuditDraft) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "The approval was changed, but the change could not be recorded. Show the "
        "approval to see its state.",
        approval_id=draft.approval_id,
        operation_id=draft.operation_id,
    )

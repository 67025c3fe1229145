# SPDX-License-Identifier: MIT
"""
Sweeps: advance the purge of every key's old material by one step.

A sweep requests approval for due material, schedules granted material, cancels purges
that are no longer allowed, and purges material past its grace period after verifying
the audit log. A failure of one key does not delay the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from hsm_core._internal.handlers.destruction import CancelPurge, SchedulePurge
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.versions import Candidate, candidate_of, candidates
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.policy.facts import SystemPrincipal, system_caller
from hsm_core._internal.retention.decisions import (
    Consent,
    NoApprovalRequiredError,
    Pauses,
    PurgeDecisions,
)
from hsm_core._internal.retention.ledger import TrailCheck
from hsm_core._internal.retention.purger import Purger, purge_of
from hsm_core._internal.time.clock import instant
from hsm_core._internal.time.clock_guard import ClockJumpGuard
from hsm_core.errors import HSMError, IntegrityError, OverloadedError, UnavailableError
from hsm_core.model import Approval, ApprovalState, KeyId
from hsm_core.operations import PurgeItem
from hsm_core.protocols import Request
from hsm_core.retention_policy import RetentionPolicy

_SHOWN: Final = 100
_CALLER: Final = system_caller(SystemPrincipal.RETENTION)
_SECOND: Final = 1_000_000


class Totals(msgspec.Struct):
    """Totals since the HSM was opened."""

    scheduled: int = 0
    cancelled: int = 0
    completed: int = 0


class Tally(msgspec.Struct):
    """
    Findings of one sweep.

    Attributes:
        queue: Materials that are due or wait for their purge.
        failures: Keys that could not be handled.
        jumped: Materials that would be due if clock jumps counted as time.
        asked: How many approvals were asked for.
        cannot_ask: Whether no more can be asked for now.
        ripe: Key and material of those whose grace period is over, up to what is purged
            in a sweep.
        ripe_count: How many there are.
    """

    queue: int = 0
    failures: int = 0
    jumped: int = 0
    asked: int = 0
    cannot_ask: bool = False
    ripe: list[tuple[KeyId, str]] = msgspec.field(default_factory=list)
    ripe_count: int = 0
    items: list[PurgeItem] = msgspec.field(default_factory=list)

    def show(self, candidate: Candidate, state: str, approval_id: str = "") -> None:
        """Put a material into the queue, and show it while there is room."""
        self.queue += 1
        if len(self.items) >= _SHOWN:
            return
        purge_at = max(v.purge_at for v in candidate.versions)
        self.items.append(
            PurgeItem(
                key_id=candidate.document.key_id,
                version=candidate.newest.version,
                versions=candidate.numbers,
                state=state,
                due_at=instant(candidate.due_at),
                window_days=candidate.window.days,
                rule=candidate.window.rule,
                purge_at=instant(purge_at) if purge_at else None,
                approval_id=approval_id,
            )
        )


class Sweeper(msgspec.Struct, frozen=True, kw_only=True):
    """
    Runs sweeps over all keys.

    Attributes:
        execute: The pipeline.
        grace_seconds: How long a purge waits after it was approved.
        most: How many purges, and how many new requests, a sweep makes.
    """

    inventory: KeyRepository
    execute: Callable[[Request], Any]
    consents: PurgeDecisions
    pauses: Pauses
    purger: Purger
    trail: TrailCheck
    time: ClockJumpGuard
    totals: Totals
    grace_seconds: int
    most: int

    def sweep(self, policy: RetentionPolicy, tally: Tally) -> Iterator[None]:
        """
        Run one sweep, one key at each step.

        Raises:
            HSMError: Store, ledger, approvals or trail can't be used now.
        """
        for document in self._documents(tally):
            for candidate in candidates(policy, document):
                try:
                    self._handle(candidate, policy, tally)
                except UnavailableError:
                    tally.failures += 1
                    if not self.inventory.store.available:
                        raise
                except HSMError:
                    tally.failures += 1
                yield
            yield
        yield from self._settle(policy, tally)
        self.pauses.consider_jumps(tally.jumped)
        if self.pauses.may_purge(tally.ripe_count, self.most):
            yield from self._purge_all(policy, tally)
        yield from self.trail.compare_once()

    def _documents(self, tally: Tally) -> Iterator[KeyDocument]:
        """Return the documents of keys that have more than one version."""
        for entry in self.inventory.store.digests():
            try:
                document = self.inventory.document(entry.key_id)
            except HSMError:
                tally.failures += 1
                if not self.inventory.store.available:
                    raise
                continue
            if len(document.versions) > 1:
                yield document

    def _handle(
        self, candidate: Candidate, policy: RetentionPolicy, tally: Tally
    ) -> None:
        if candidate.is_scheduled:
            if candidate.kept != "destruction":
                self._handle_scheduled(candidate, tally)
            return
        if candidate.kept or candidate.due_at > self.time.now():
            return
        if not candidate.is_due(self._known(candidate)):
            tally.jumped += 1
            return
        self._handle_due(candidate, policy, tally)

    def _known(self, candidate: Candidate) -> int:
        return self.time.since(candidate.opened_at, self.pauses.jumps_allowed)

    def _handle_due(
        self, candidate: Candidate, policy: RetentionPolicy, tally: Tally
    ) -> None:
        wanted, now = purge_of(candidate), self.time.now()
        answer = self.consents.look(wanted, now)
        if answer is None:
            if tally.cannot_ask or tally.asked >= self.most:
                tally.show(candidate, "due")
                return
            try:
                answer = self.consents.ask(wanted)
            except NoApprovalRequiredError:
                tally.cannot_ask = True
                self.pauses.note("approvals")
                tally.show(candidate, "due")
                return
            except OverloadedError:
                tally.cannot_ask = True
                tally.show(candidate, "due")
                return
            tally.asked += 1
        approval = answer.approval
        state = str(answer.consent)
        if self._may_schedule(approval, now):
            state = "scheduled"
            self._schedule(candidate, approval, now)
        tally.show(candidate, state, approval.approval_id)

    def _may_schedule(self, approval: Approval, now: int) -> bool:
        granted = approval.state is ApprovalState.GRANTED
        return granted and self.consents.outlives(approval, now)

    def _schedule(self, candidate: Candidate, approval: Approval, now: int) -> None:
        self.execute(
            Request(
                _CALLER,
                SchedulePurge(
                    key_id=candidate.document.key_id,
                    version=candidate.newest.version,
                    versions=candidate.numbers,
                    purge_at=now + self.grace_seconds * _SECOND,
                    approval_id=approval.approval_id,
                ),
            )
        )
        self.totals.scheduled += 1
        failpoint("purge.after_schedule")

    def _handle_scheduled(self, candidate: Candidate, tally: Tally) -> None:
        reason, approval = self._standing(candidate)
        if approval is None:
            self.execute(
                Request(
                    _CALLER,
                    CancelPurge(
                        key_id=candidate.document.key_id,
                        version=candidate.newest.version,
                        versions=candidate.numbers,
                        reason=reason,
                    ),
                )
            )
            self.totals.cancelled += 1
            failpoint("purge.after_cancel")
            return
        is_ripe = self._is_ripe(candidate)
        state = "ripe" if is_ripe else "scheduled"
        tally.show(candidate, state, approval.approval_id)
        if is_ripe:
            tally.ripe_count += 1
            if len(tally.ripe) < max(self.most, self.pauses.allowed):
                document = candidate.document
                tally.ripe.append((document.key_id, candidate.material_id))

    def _standing(self, candidate: Candidate) -> tuple[str, Approval | None]:
        """Return the approval of scheduled material, or why it is not purged."""
        if candidate.kept:
            return candidate.kept, None
        if not candidate.is_due(self._known(candidate)):
            return "extended", None
        try:
            answer = self.consents.look(purge_of(candidate), self.time.now())
        except IntegrityError:
            return "tampered", None
        if answer is None:
            return "ended", None
        if answer.consent is not Consent.GRANTED:
            return str(answer.approval.state), None
        return "", answer.approval

    def _is_ripe(self, candidate: Candidate) -> bool:
        """Return whether the grace period is over, without counting clock jumps."""
        allowed = self.pauses.jumps_allowed
        return all(
            v.purge_at <= self.time.since(v.state_changed_at, allowed)
            for v in candidate.versions
        )

    def _settle(self, policy: RetentionPolicy, tally: Tally) -> Iterator[None]:
        def is_ripe(document: KeyDocument, material_id: str) -> bool:
            found = candidate_of(policy, document, material_id)
            if found is None or not found.is_scheduled:
                return False
            return self._standing(found)[1] is not None and self._is_ripe(found)

        with self.purger.lock:
            tally.failures += self.purger.settle_purges(is_ripe)
        yield

    def _purge_all(self, policy: RetentionPolicy, tally: Tally) -> Iterator[None]:
        if not tally.ripe:
            return
        # Nothing is destroyed on the word of an audit log that was tampered with.
        yield from self.trail.verify()
        if self.pauses.notice_loss(self.trail.known):
            return
        for key_id, material_id in tally.ripe:
            try:
                if self._purge(key_id, material_id, policy):
                    self.totals.completed += 1
                    tally.queue -= 1
                    self.pauses.count_purge()
            except IntegrityError:
                tally.failures += 1
            except HSMError:
                tally.failures += 1
                if not self.purger.is_usable:
                    raise
            yield

    def _purge(self, key_id: KeyId, material_id: str, policy: RetentionPolicy) -> bool:
        with self.purger.lock:
            # Another sweep, or a person, may have been quicker.
            document = self.inventory.document(key_id)
            candidate = candidate_of(policy, document, material_id)
            if candidate is None or not candidate.is_scheduled:
                return False
            _, approval = self._standing(candidate)
            if approval is None or not self._is_ripe(candidate):
                return False
            self.purger.purge(candidate, approval, policy.sha256)
            self.consents.forget(purge_of(candidate))
            return True

# SPDX-License-Identifier: MIT
"""
Journal: durable intent, commit, durable outcome, and settlement after interruptions.

The commit is one atomic write of a store, and decides. The intent is durable before it,
and the outcome before the answer; so an intent without outcome is a change that may
have been committed. To settle it, a journal answers three questions: was the change
decided, can it be forbidden from now on, and what finishes it. Changes of keys and
approvals that were not decided are aborted; a purge is rolled forward, and only given
up before its commit.

An outcome that the log can't take stays pending, and nothing new begins before the log
has it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from hsm_core._internal.keyring.documents import audited_key, document_digest
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import (
    AuditUnavailableError,
    ConflictError,
    KeyNotFoundError,
    KeyTamperedError,
)
from hsm_core.model import ApprovalDetail, AuditEvent, Integrity, KeyId, Phase
from hsm_core.protocols import AuditDraft, AuditDrafts, AuditLog, AuditTicket, KnownKey

COMMITTED: Final = frozenset({"ok", "recovered-committed"})
"""Codes of the outcomes of changes that were committed."""

REMOVED: Final = "system.approvals-removed"
"""Record kind of a removal of completed approvals."""


_OF_COMMIT: Final = frozenset({"bound", "code", "revision", "set_digest", "subjects"})


class _Pending(msgspec.Struct, frozen=True):
    """Outcome that may not be durable; its ticket once it was appended."""

    outcome: AuditDraft
    ticket: AuditTicket | None = None


class Journal(ABC):
    """
    Journal of one kind of changes. Thread-safe.

    Args:
        log: Audit log, or retention ledger.

        order: Reentrant lock: held from a commit to its outcome, so that set digests
            are recorded in the order of the commits.

    Attributes:
        open: Intents to settle, by operation id.
    """

    def __init__(self, log: AuditLog, order: AbstractContextManager[object]) -> None:
        self.log = log
        self.open: dict[str, AuditDraft] = {}
        self._order = order
        self._pending: dict[str, _Pending] = {}
        self._local = threading.local()

    # The three questions

    @abstractmethod
    def decided(self, intent: AuditDraft) -> bool | None:
        """
        Return whether a change was committed; None if that can't be told yet.

        Raises:
            HSMError: The store can't be read.
        """

    @abstractmethod
    def forbid(self, intent: AuditDraft) -> bool:
        """
        Prevent the commit of a change that was not decided.

        Returns:
            False if it was committed meanwhile.

        Raises:
            HSMError: The store can't be written.
        """

    @abstractmethod
    def finish(self, intent: AuditDraft, *, committed: bool) -> AuditDraft:
        """
        Complete the effects of a change, and return its outcome.

        Raises:
            HSMError: An effect can't be completed now.
        """

    def set_digest(self) -> str:
        """Return the set digest that the outcomes of committed changes record."""
        return ""

    # A change

    def begin(
        self,
        intent: AuditDraft,
        *,
        reserved: bool = False,
        rolls_forward: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Write an intent durably, after the pending outcomes.

        Args:
            intent: Names the change.

            reserved: Whether it may use the reserved space.

            rolls_forward: Whether the change is completed even if the intent can't be
                made durable in time. Otherwise an outcome says that it is given up,
                since the log may have the intent nevertheless.

            meanwhile: Called while the log writes.

        Raises:
            AuditUnavailableError: It can't be written; the change must not begin.
            HSMError: See `checking`; nothing was written.
        """
        self.append_pending()
        drafts = self.checked([intent])
        ticket = self.log.append(drafts, durable=True, reserved=reserved)
        if rolls_forward:
            self.open[intent.operation_id] = intent
        meanwhile()
        try:
            self.wait(ticket)
        except AuditUnavailableError as error:
            if not rolls_forward:
                outcome = replace(
                    intent,
                    phase=Phase.OUTCOME,
                    code=error.code,
                    version=0,
                    document_after="",
                    demands=(),
                )
                self._pending[intent.operation_id] = _Pending(outcome)
            raise
        # The outcome of an earlier try with this id was appended before, so is durable.
        self._pending.pop(intent.operation_id, None)

    def doubt(self, intent: AuditDraft) -> None:
        """Remember a change with an unknown outcome, to settle it later."""
        self.open[intent.operation_id] = intent

    def conclude(self, outcome: AuditDraft) -> AuditTicket:
        """
        Append an outcome; it is pending until `close`, or until a later one is.

        Raises:
            AuditUnavailableError: It can't be appended now.
        """
        with self._order:
            self._pending[outcome.operation_id] = _Pending(outcome)
            return self._append_pending()[outcome.operation_id]

    def close(self, operation_id: str) -> None:
        """Forget a change whose outcome is durable."""
        self._pending.pop(operation_id, None)
        self.open.pop(operation_id, None)

    # Pending outcomes

    def is_pending(self, operation_id: str) -> bool:
        """Return whether an outcome may not be durable."""
        return operation_id in self._pending

    def is_appended(self, operation_id: str) -> bool:
        """Return whether an outcome was appended that may not be durable."""
        pending = self._pending.get(operation_id)
        return pending is not None and pending.ticket is not None

    def append_pending(self) -> None:
        """
        Append the outcomes that could not be appended when they were due.

        Raises:
            AuditUnavailableError: They still can't be.
        """
        if self._pending:
            with self._order:
                self._append_pending()

    def _append_pending(self) -> dict[str, AuditTicket]:
        tickets = {}
        for operation_id, pending in list(self._pending.items()):
            if pending.ticket is not None:
                # To wait for a later record is to wait for this one too.
                self.close(operation_id)
                continue
            ticket = tickets[operation_id] = self.append(pending.outcome)
            self._pending[operation_id] = _Pending(pending.outcome, ticket)
        return tickets

    def append(self, draft: AuditDraft) -> AuditTicket:
        """
        Append a record, with the set digest if it is of a committed change.

        Raises:
            AuditUnavailableError: It can't be appended now.
        """
        with self._order:
            # Of several nodes, others may have changed keys since this commit.
            if draft.code in COMMITTED and not draft.set_digest:
                draft = replace(draft, set_digest=self.set_digest())
            return self.log.append([draft], durable=True, reserved=True)

    # Settlement

    def settle(self) -> None:
        """
        Settle all open intents that can be told of.

        Raises:
            HSMError: Store or log is unusable; try again later.
        """
        for intent in list(self.open.values()):
            self.settle_one(intent.operation_id)

    def settle_one(self, operation_id: str) -> bool:
        """
        Determine the outcome of a change, make it final, and record it durably.

        An outcome that was appended before is as durable as the next record.

        Returns:
            False if it can't be told yet; the intent stays open.

        Raises:
            HSMError: Store or log is unusable; try again later.
        """
        with self._order:
            intent = self.open.get(operation_id)
            if operation_id in self._pending:
                self._append_pending()
            elif intent is not None:
                decided = self.decided(intent)
                if decided is False and not self.forbid(intent):
                    decided = self.decided(intent)
                if decided is None:
                    return False
                self.conclude(self.finish(intent, committed=decided))
            pending = self._pending.get(operation_id)
            if pending is not None and pending.ticket is not None:
                self.wait(pending.ticket)
        self.close(operation_id)
        return True

    # Within a request

    @contextmanager
    def checking(self, check: Callable[[], None] | None) -> Iterator[None]:
        """
        Begin changes of this thread only if a check passes, within the context.

        Args:
            check: `Request.check`; called under the lock of the log, immediately before
                an intent is recorded.
        """
        before = getattr(self._local, "check", None)
        self._local.check = check
        try:
            yield
        finally:
            self._local.check = before

    def check_again(self) -> None:
        """Ask the check of `checking` again; it raises what it has to say."""
        check = getattr(self._local, "check", None)
        if check is not None:
            check()

    def checked(self, drafts: Sequence[AuditDraft]) -> AuditDrafts:
        """Return records that are appended only if the check of `checking` passes."""
        check = getattr(self._local, "check", None)
        if check is None:
            return drafts

        def given() -> Sequence[AuditDraft]:
            check()
            return drafts

        return given

    @contextmanager
    def waiting(self, wait: Callable[[AuditTicket], None]) -> Iterator[None]:
        """Let this thread wait for the log by these means, within the context."""
        before = getattr(self._local, "wait", None)
        self._local.wait = wait
        try:
            yield
        finally:
            self._local.wait = before

    def wait(self, ticket: AuditTicket) -> None:
        """
        Wait until a record is durable.

        Raises:
            AuditUnavailableError: It is not, in time.
        """
        wait = getattr(self._local, "wait", None)
        ticket.wait() if wait is None else wait(ticket)


def outcome_of(intent: AuditDraft, *, committed: bool) -> AuditDraft:
    """Return the outcome of a settled change, without facts of its commit."""
    code = "recovered-committed" if committed else "recovered-aborted"
    return replace(
        intent, phase=Phase.OUTCOME, code=code, generation=0, document_after=""
    )


def intent_of(event: AuditEvent, log_id: str = "") -> AuditDraft:
    """
    Return the draft of an intent record, without facts of its commit.

    Args:
        event: The record.

        log_id: The log that it is in, if its outcome is recorded in another one.
    """
    names = set(AuditDraft.__struct_fields__) - _OF_COMMIT
    draft = AuditDraft(**{name: getattr(event, name) for name in names})
    return replace(draft, intent_log=log_id)


def interrupted_in(audit: AuditLog) -> list[AuditDraft]:
    """Return the intents that a crash of this machine has left in its audit log."""
    return [intent_of(event) for event in audit.open_intents()]


def is_of_approvals(intent: AuditDraft) -> bool:
    """Return whether an intent is an approval step, or a removal of approvals."""
    return isinstance(intent.detail, ApprovalDetail) or intent.kind == REMOVED


def state_before(intent: AuditDraft | AuditEvent) -> KnownKey | None:
    """Return the state of the key that an intent is to change; None for a new one."""
    if not intent.document_before:
        return None
    return KnownKey(KeyId(intent.key_id), intent.generation, intent.document_before)


class KeyJournal(Journal):
    """
    Journal of key changes, which roll back, with those that a crash interrupted.

    A change whose operation id is in the store was committed. Any other is first marked
    as aborted in the store, so that a commit still in flight fails, and then recorded
    as aborted.

    Args:
        inventory: Over the store.

        audit: The audit log.

        interrupted: Intents to settle; by default those that a crash of this machine
            has left in the audit log.
    """

    def __init__(
        self,
        inventory: KeyRepository,
        audit: AuditLog,
        interrupted: Sequence[AuditDraft] | None = None,
    ) -> None:
        super().__init__(audit, inventory.committing)
        self._inventory = inventory
        self._undecided: set[str] = set()
        for intent in interrupted_in(audit) if interrupted is None else interrupted:
            if not is_of_approvals(intent):
                self.doubt(intent)

    def set_digest(self) -> str:
        """Return the set digest of keys and approvals."""
        return self._inventory.set_digest

    def decided(self, intent: AuditDraft) -> bool | None:
        """Return whether its key has the operation; None if it can't be trusted."""
        inventory, key_id = self._inventory, KeyId(intent.key_id)
        if inventory.lock.reason or inventory.integrity(key_id) is not Integrity.OK:
            return None
        if key_id:
            inventory.refresh(key_id)
        try:
            return self._changed(intent) is not None or self._is_in_feed(intent)
        except KeyTamperedError as error:
            changed = KeyId(str(error.facts["key_id"]))
            inventory.condemn(changed, error)
            if inventory.feed is None and changed == key_id:
                # The key is counted as it was, so that others of its bucket go on.
                inventory.census.pin(key_id, state_before(intent))
            return None

    def _changed(self, intent: AuditDraft) -> KeyId | None:
        """
        Return the key that an operation changed; None if it changed none.

        The store's list of operations is not believed against the key's document.

        Raises:
            KeyTamperedError: A document that may say so is not authentic.
        """
        inventory, operation_id = self._inventory, intent.operation_id
        mark = inventory.store.find_operation(operation_id)
        listed = mark.key_id if mark is not None else None
        for key_id in filter(None, (listed, KeyId(intent.key_id))):
            with suppress(KeyNotFoundError):
                document = inventory.decode(inventory.store.get(key_id))
                if document.operation(operation_id):
                    return key_id
        return None

    def _is_in_feed(self, intent: AuditDraft) -> bool | None:
        """
        Return whether the feed has a change that its key does not tell of.

        The key may have forgotten it. None if the key is gone, or has changed since and
        the feed does not say how.

        Raises:
            KeyTamperedError: The key is not as the feed left it.
        """
        inventory, key_id = self._inventory, KeyId(intent.key_id)
        if inventory.feed is None:
            return False
        inventory.feed.catch_up()
        revision, made = inventory.feed.find(key_id, intent.generation + 1)
        try:
            document = inventory.reread(key_id).document
        except KeyNotFoundError:
            return None if revision else False
        if revision:
            return bool(made) and made == intent.document_after
        return None if document.generation > intent.generation else False

    def forbid(self, intent: AuditDraft) -> bool:
        """Mark the operation as aborted in the store."""
        try:
            self._inventory.store.abort(intent.operation_id)
        except ConflictError:
            if intent.key_id:
                self._inventory.store.refresh(KeyId(intent.key_id))
            return False
        return True

    def finish(self, intent: AuditDraft, *, committed: bool) -> AuditDraft:
        """Count a committed change, and complete its side effects."""
        outcome = outcome_of(intent, committed=committed)
        if committed:
            changed = self._changed(intent) or KeyId(intent.key_id)
            outcome = self._count(intent, outcome, changed)
        failpoint("recovery.before_record")
        return outcome

    def _count(
        self, intent: AuditDraft, outcome: AuditDraft, key_id: KeyId
    ) -> AuditDraft:
        inventory = self._inventory
        stored = inventory.store.get(key_id)
        document, digest = inventory.decode(stored), document_digest(stored.document)
        inventory.discard_blobs(document)
        before = state_before(intent)
        after = KnownKey(key_id, document.generation, digest)
        revision, generation = 0, intent.generation + 1
        if inventory.feed is not None:
            inventory.feed.catch_up()
            revision, made = inventory.feed.find(key_id, generation)
            after = KnownKey(key_id, generation, made) if revision else after
        elif document.generation == (before.generation if before else 0) + 1:
            inventory.census.replace(before, after)
        inventory.adopt(inventory.cached(key_id), document, digest)
        return replace(
            outcome,
            key_id=key_id,
            generation=after.generation,
            document_after=after.digest,
            revision=revision,
            key=audited_key(document),
        )

    # Healing

    @property
    def needs_healing(self) -> bool:
        """Whether a change is unsettled, or the store unavailable."""
        return bool(self.open) or not self._inventory.store.available

    def heal(self) -> None:
        """
        Reopen the store after a failed write, and settle what can be.

        Until then all changes are refused, because the stored state is unknown.

        Raises:
            HSMError: Store or audit log is still unusable; try again later.
        """
        if not self.needs_healing:
            return
        with self._order:
            store = self._inventory.store
            if not store.available:
                store.reopen()
                self._inventory.lock.changes.bump()
                # While it was closed, what lies there may have become anything.
                self._inventory.census.doubt()
            self.settle()
            if not self.open.keys() <= self._undecided:
                # The names of their keys are not known now.
                self._inventory.names.doubt()
            self._undecided = set(self.open)

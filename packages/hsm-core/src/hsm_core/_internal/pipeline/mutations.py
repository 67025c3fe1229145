# SPDX-License-Identifier: MIT
"""
Mutations: intent durable → one store commit → outcome durable → answer.

Each has an operation id: an HMAC of principal and idempotency key, or random. It
stands in the intent, in the document that it changes, and in the outcome; so a repeated
request finds what was done, and recovery finds what became of an intent.

An answer waits for all its records together no longer than the audit log's own limit.
Outcomes that the log lacks then stay pending in the journal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Final

import msgspec

from hsm_core._internal.handlers.base import (
    HandlerDependencies,
    MutationHandler,
    Plan,
    Speed,
)
from hsm_core._internal.handlers.context import RequestContext, code_of
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    OperationRecord,
    check_document_size,
    document_digest,
    made_key_id,
    remember,
)
from hsm_core._internal.keyring.journal import KeyJournal
from hsm_core._internal.keyring.versions import living
from hsm_core._internal.lib.concurrency import Locks, run_together
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.pipeline.authorisation import Admission
from hsm_core.errors import (
    AuditUnavailableError,
    GenerationConflictError,
    HSMError,
    HSMLockedError,
    IdempotencyConflictError,
    InvalidInputError,
    KeyNotFoundError,
    OperationAbortedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import MessageDetail, Phase
from hsm_core.operations import Operation
from hsm_core.protocols import AuditDraft, AuditTicket, Request

_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,128}")
_NOT_REPEATED: Final = (
    AuditUnavailableError,
    HSMLockedError,
    IdempotencyConflictError,
    OperationAbortedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
"""Errors that don't come of another try under the same operation id."""

_MOST_CONFLICTS: Final = 16
"""Number of times that a change is decided again because of another node."""
_MOMENT_SECONDS: Final = 0.02
"""Interval between two checks of the outcome of another attempt, in seconds."""
_TRIES_AHEAD: Final = 3
"""Number of attempts to compute a slow change before its locks are taken."""


class Mutations:
    """
    Executes operations that change a key.

    Args:
        services: Dependencies of the handlers.

        admission: The first steps.

        journal: Journal of the changes.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        admission: Admission,
        journal: KeyJournal,
    ) -> None:
        self._services = services
        self._admission = admission
        self._journal = journal
        self._operations = Locks()
        self._keys = Locks()
        self._commit = services.inventory.committing

    def execute(self, request: Request) -> Any:
        """Execute a mutation: intent, one store commit, outcome, answer."""
        try:
            answer = self._execute(request)
        except StoreUnavailableError:
            # A store that must be opened again shows until it was.
            if self._services.inventory.store.available:
                self._services.store_refused.note()
            raise
        self._services.store_refused.forget()
        return answer

    def _execute(self, request: Request) -> Any:
        attempt = RequestContext(
            request.caller, request.operation, self._services.policy.engine
        )
        try:
            attempt.name_approval(request.approval_id)
            attempt.expect_generation(request.expected_generation)
            attempt.check(self._services.settings.limits)
            attempt.operation_id = self._operation_id(request)
            wait = partial(self._wait, attempt)
            with (
                self._operations.held(attempt.operation_id),
                self._journal.waiting(wait),
                self._journal.checking(request.check),
                self._services.consents.waiting(wait),
            ):
                sent = attempt.operation
                while True:
                    try:
                        return self._mutate_once(attempt, sent)
                    except (_SettledError, HSMError) as error:
                        if not self._may_be_repetition(request, error):
                            raise
                        # Before it is looked for: it may end in between.
                        is_elsewhere = self._is_elsewhere(attempt)
                        repeated = self._repeat_elsewhere(attempt, sent)
                        if repeated is not None:
                            return repeated
                        if not is_elsewhere:
                            raise
                        self._wait_for_other(attempt, error)
        except _SettledError as settled:
            raise settled.error from settled.error.__cause__
        except Exception as error:
            self._record_failure(attempt, error)
            raise

    def _may_be_repetition(
        self, request: Request, error: _SettledError | HSMError
    ) -> bool:
        """Return whether another node, or an earlier try, may stand in its way."""
        found = error.error if isinstance(error, _SettledError) else error
        is_repeatable = request.idempotency_key is not None
        return is_repeatable and not isinstance(found, _NOT_REPEATED)

    def _repeat_elsewhere(
        self, attempt: RequestContext[Any], sent: Operation[Any]
    ) -> Any | None:
        """Answer what another node did under this operation id meanwhile."""
        handler = self._admission.handler(sent)
        assert isinstance(handler, MutationHandler)  # noqa: S101 (for the type checker)
        return self._repeat(attempt, handler, self._admission.digest(sent))

    def _is_elsewhere(self, attempt: RequestContext[Any]) -> bool:
        """
        Return whether another try of this operation has reserved its approval.

        A node executes it, or has not settled it yet.
        """
        if not attempt.approval_id:
            return False
        return self._services.consents.is_reserved_for(
            attempt.approval_id, attempt.operation_id
        )

    def _wait_for_other(self, attempt: RequestContext[Any], error: Exception) -> None:
        """
        Wait a moment for another try of this operation to be settled.

        Raises:
            OutcomeUnknownError: It takes longer than an answer may wait.
        """
        if attempt.waited >= self._services.settings.audit_timeout_seconds:
            raise _unknown(attempt) from error
        time.sleep(_MOMENT_SECONDS)
        attempt.waited += _MOMENT_SECONDS
        attempt.approval_id = attempt.named_approval

    def _mutate_once(self, attempt: RequestContext[Any], sent: Operation[Any]) -> Any:
        handler = self._admission.handler(sent)
        assert isinstance(handler, MutationHandler)  # noqa: S101 (for the type checker)
        self._services.inventory.lock.check()
        self._journal.heal()
        request_digest = self._admission.digest(sent)
        repeated = self._repeat(attempt, handler, request_digest)
        if repeated is not None:
            return repeated
        if self._admission.names_keys(sent):
            # Which keys are locked is known before it is decided under their locks.
            self._admission.admit(attempt, handler)
        try:
            return self._change(attempt, handler, sent, request_digest)
        except _DoneError:
            return self._answer_again(attempt, handler, request_digest)

    def _change(
        self,
        attempt: RequestContext[Any],
        handler: MutationHandler[Any, Any],
        sent: Operation[Any],
        request_digest: str,
    ) -> Any:
        """Make a change, and decide it again if another node was in its way."""
        for number in count():
            # What is slow holds no lock that others wait for, unless it has to.
            is_slow = handler.speed_of(sent) is Speed.SLOW
            is_ahead = is_slow and number < _TRIES_AHEAD
            plan = self._plan(attempt, handler, sent) if is_ahead else None
            locked = _keys_of(attempt)
            with self._keys.held(*(sorted(locked) or [attempt.operation_id])):
                if plan is None:
                    plan = self._plan(attempt, handler, sent, locked)
                elif self._services.inventory.has_moved(attempt.documents):
                    continue
                if plan is None:
                    continue  # A name went over to another key meanwhile.
                try:
                    document = self._act(attempt, plan, request_digest)
                except _SettledError as settled:
                    if not self._may_decide_again(settled.error, number):
                        raise
                    found = settled
                else:
                    return handler.answer(document, plan.version)
            repeated = self._decide_again(attempt, handler, request_digest, found)
            if repeated is not None:
                return repeated
        raise AssertionError("count() has no end")

    def _may_decide_again(self, error: Exception, number: int) -> bool:
        """Return whether another node may have been in the way of a change."""
        is_elsewhere = isinstance(
            error, GenerationConflictError | OperationAbortedError
        )
        is_shared = self._services.inventory.feed is not None
        return is_shared and is_elsewhere and number < _MOST_CONFLICTS

    def _decide_again(
        self,
        attempt: RequestContext[Any],
        handler: MutationHandler[Any, Any],
        request_digest: str,
        found: _SettledError,
    ) -> Any | None:
        """Answer what another node did under this operation id, or prepare to retry."""
        if isinstance(found.error, OperationAbortedError):
            repeated = self._repeat(attempt, handler, request_digest)
            if repeated is None:
                raise found
            return repeated
        if attempt.document is None:
            attempt.key_id = ""
        return None

    def _plan(
        self,
        attempt: RequestContext[Any],
        handler: MutationHandler[Any, Any],
        sent: Operation[Any],
        locked: frozenset[str] | None = None,
    ) -> Plan | None:
        """
        Work out the change; None if it is about other keys than are *locked*.

        Raises:
            _DoneError: The key says that it was done, though no list does.
            HSMError: It must not be done.
        """
        attempt.operation = sent
        subject = self._admission.admit(attempt, handler)
        if locked is not None and _keys_of(attempt) != locked:
            return None
        if attempt.document and attempt.document.operation(attempt.operation_id):
            raise _DoneError
        attempt.check_generation()
        handler.prepare(subject)
        self._admission.check_approvals(attempt)
        for use in handler.uses(subject):
            self._services.uses.take(use)
        return handler.plan(subject)

    def _act(
        self, attempt: RequestContext[Any], plan: Plan, request_digest: str
    ) -> KeyDocument:
        """Make the change, under the approval that it needs, if it needs one."""
        self._admission.take_approval(attempt)
        try:
            document = self._make(attempt, plan, request_digest)
        except _SettledError as settled:
            unknown = isinstance(settled.error, OutcomeUnknownError)
            self._admission.settle_approval(attempt, done=None if unknown else False)
            raise
        except HSMError:
            self._admission.settle_approval(attempt, done=False)
            raise
        except BaseException:
            # It may have come after the commit, and an approval is not given twice.
            self._admission.settle_approval(attempt, done=None)
            raise
        self._admission.settle_approval(attempt, done=True)
        return document

    def _make(
        self, attempt: RequestContext[Any], plan: Plan, request_digest: str
    ) -> KeyDocument:
        after = self._with_record(attempt, plan, request_digest)
        stored = self._services.inventory.encode(after)
        check_document_size(stored)
        if attempt.document is not None:
            attempt.document_before = self._services.inventory.digest_of(
                attempt.document.key_id
            )
        attempt.key_id = after.key_id
        digest = document_digest(stored)
        intent = attempt.draft(
            Phase.INTENT, version=plan.version, document_after=digest
        )
        stage = partial(
            self._services.inventory.store.stage, after.key_id, stored, plan.blobs
        )
        opened = self._begin(attempt, after, intent, stage)
        failpoint("mutation.after_intent")
        try:
            with self._commit:
                self._store(attempt, after, stored, plan, opened, intent)
                try:
                    failpoint("mutation.after_store")
                    revision, set_digest = self._made()
                    outcome = attempt.draft(
                        Phase.OUTCOME,
                        version=plan.version,
                        after=after,
                        document_after=digest,
                        set_digest=set_digest,
                        revision=revision,
                    )
                    ticket = self._journal.conclude(outcome)
                except Exception as error:
                    raise _SettledError(_unknown(attempt)) from error
        except _RefusedError as refused:
            # Outside, for waiting for the audit log must not hold up all other changes.
            self._record_outcome(attempt, refused.error)
            raise _SettledError(refused.error) from refused.error
        try:
            self._wait(attempt, ticket)
        except AuditUnavailableError as error:
            raise _SettledError(_unknown(attempt)) from error
        self._journal.close(attempt.operation_id)
        failpoint("mutation.after_outcome")
        if attempt.document is not None:
            gone = living(attempt.document) - living(after)
            self._services.uses.discard(after.key_id, gone)
        return after

    def _begin(
        self,
        attempt: RequestContext[Any],
        after: KeyDocument,
        intent: AuditDraft,
        stage: Callable[[], None],
    ) -> list[str]:
        """Write the intent; while it is synced, use counters, and stage a new key."""
        opened = list[str]()
        problems: list[BaseException | None] = []
        before = attempt.document.versions if attempt.document else ()
        known = {version.material_id for version in before}
        fresh = [v for v in after.versions if v.material_id not in known]

        def open_accounts() -> None:
            # A value that is missing later was removed.
            opened.extend(self._services.uses.open(after, fresh))

        calls = [stage] if attempt.document is None else []
        if fresh and self._services.uses.has_limit(after.algorithm):
            calls.append(open_accounts)

        def write_ahead() -> None:
            problems.extend(run_together(calls))

        try:
            self._journal.begin(intent, meanwhile=write_ahead)
        except AuditUnavailableError:
            self._discard_ahead(after, opened)
            raise
        for problem in filter(None, problems):
            self._discard_ahead(after, opened)
            if not isinstance(problem, Exception):
                raise problem
            self._record_outcome(attempt, problem)
            raise _SettledError(problem) from problem.__cause__
        return opened

    def _discard_ahead(self, after: KeyDocument, opened: list[str]) -> None:
        """Remove what was written for a change that did not come about."""
        self._services.uses.discard(after.key_id, opened)
        self._services.inventory.store.discard_staged(after.key_id)

    def _store(
        self,
        attempt: RequestContext[Any],
        after: KeyDocument,
        stored: bytes,
        plan: Plan,
        opened: list[str],
        intent: AuditDraft,
    ) -> None:
        """Commit; an error means that nothing was changed, unless it says otherwise."""
        try:
            self._journal.heal()
            self._services.inventory.commit(
                attempt.document,
                after,
                stored,
                attempt.operation_id,
                plan.blobs,
                partial(self._check_again, attempt),
            )
        except OutcomeUnknownError as error:
            self._journal.doubt(intent)
            raise _SettledError(error) from error
        except HSMError as error:
            self._discard_ahead(after, opened)
            raise _RefusedError(error) from error
        except Exception as error:
            self._journal.doubt(intent)
            raise _SettledError(_unknown(attempt)) from error

    def _made(self) -> tuple[int, str]:
        feed = self._services.inventory.feed
        return feed.made if feed is not None else (0, "")

    def _check_again(self, attempt: RequestContext[Any]) -> None:
        """
        Check what other nodes may have changed, while they can't change anything.

        Raises:
            GenerationConflictError: A key of the operation, or its approval, changed.
            HSMError: The caller's credential no longer counts, or the HSM is locked.
        """
        if not attempt.operation.while_locked:
            self._services.inventory.lock.check()
        self._journal.check_again()
        keys = filter(None, (attempt.document, *attempt.others.values()))
        if self._services.inventory.has_newer(keys):
            raise GenerationConflictError
        if attempt.held is not None and not attempt.held.holds():
            raise GenerationConflictError

    def _with_record(
        self, attempt: RequestContext[Any], plan: Plan, request_digest: str
    ) -> KeyDocument:
        record = OperationRecord(
            id=attempt.operation_id,
            digest=request_digest,
            kind=type(attempt.operation).__name__,
            generation=plan.document.generation,
            version=plan.version,
            at=plan.document.updated_at,
        )
        operations = remember(plan.document.operations, record)
        return msgspec.structs.replace(plan.document, operations=operations)

    def _repeat(
        self,
        attempt: RequestContext[Any],
        handler: MutationHandler[Any, Any],
        request_digest: str,
    ) -> Any | None:
        """
        Answer a request that was done before from the document it changed.

        The store's list of operations is not believed: the key would say so.
        """
        inventory, operation = self._services.inventory, attempt.operation
        mark = inventory.store.find_operation(attempt.operation_id)
        is_aborted = mark is not None and mark.aborted
        reference: str | None = None
        if not hasattr(operation, "key_id"):
            reference = made_key_id(attempt.operation_id)
        elif mark is not None:
            reference = mark.key_id or operation.key_id
        entry = inventory.entry(reference) if reference else None
        if entry is None and reference and mark is not None and not is_aborted:
            entry = inventory.look_again(reference)
            if entry is None:
                raise KeyNotFoundError
        if entry is not None:
            attempt.key_id = entry.key_id
            attempt.document = inventory.document(entry.key_id, entry)
            answer = self._answer_again(attempt, handler, request_digest)
            if answer is not None:
                return answer
        if is_aborted:
            raise OperationAbortedError(
                "The HSM stopped before it stored this operation; nothing was done. "
                "Send it again with a new idempotency key.",
                operation_id=attempt.operation_id,
            )
        return None

    def _answer_again(
        self,
        attempt: RequestContext[Any],
        handler: MutationHandler[Any, Any],
        request_digest: str,
    ) -> Any | None:
        """Answer from a document if it says that the request was done before."""
        document = attempt.document
        record = document.operation(attempt.operation_id) if document else None
        if document is None or record is None:
            return None
        self._admission.authorise(attempt)
        if record.digest != request_digest:
            raise IdempotencyConflictError
        self._settle_outcome(attempt)
        self._record_repeat(attempt, record.version)
        return handler.answer(document, record.version)

    def _record_repeat(self, attempt: RequestContext[Any], version: int) -> None:
        attempt.need_no_approval()  # The first time, it may have had one.
        attempt.digest = self._admission.digest(attempt.operation)
        detail = MessageDetail(text="repeated request")
        draft = attempt.draft(Phase.SINGLE, version=version, detail=detail)
        self._wait(attempt, self._services.audit.append([draft], durable=True))

    def _settle_outcome(self, attempt: RequestContext[Any]) -> None:
        """Make the outcome of a repeated request durable, if it is still pending."""
        if not self._journal.is_pending(attempt.operation_id):
            return
        try:
            self._journal.settle_one(attempt.operation_id)
        except AuditUnavailableError as error:
            raise _SettledError(_unknown(attempt)) from error

    def _record_outcome(self, attempt: RequestContext[Any], error: Exception) -> None:
        """Close the intent of a mutation that did not happen."""
        draft = attempt.draft(Phase.OUTCOME, code=code_of(error))
        try:
            self._wait(attempt, self._journal.conclude(draft))
        except AuditUnavailableError:
            raise _SettledError(_unknown(attempt)) from error
        self._journal.close(attempt.operation_id)

    def _record_failure(self, attempt: RequestContext[Any], error: Exception) -> None:
        if isinstance(error, AuditUnavailableError):
            return
        draft = attempt.draft(Phase.SINGLE, code=code_of(error))
        self._wait(attempt, self._services.audit.append([draft], durable=True))

    def _wait(self, attempt: RequestContext[Any], ticket: AuditTicket) -> None:
        """Wait for the audit log, for what is left of the time that an answer has."""
        began = time.monotonic()
        try:
            ticket.wait(
                max(self._services.settings.audit_timeout_seconds - attempt.waited, 0)
            )
        finally:
            attempt.waited += time.monotonic() - began

    def _operation_id(self, request: Request) -> str:
        key: object = request.idempotency_key
        if key is None:
            return self._services.entropy.random_bytes(16).hex()
        if not isinstance(key, str) or not _IDEMPOTENCY_KEY.fullmatch(key):
            raise InvalidInputError(
                "idempotency_key must be 1 to 128 visible ASCII characters.",
                field="idempotency_key",
            )
        ring = self._services.inventory.ring
        return ring.operation_id(request.caller.principal, key)


def _keys_of(attempt: RequestContext[Any]) -> frozenset[str]:
    """Return the ids of all keys that an operation names."""
    others = (document.key_id for document in attempt.others.values())
    return frozenset(filter(None, (attempt.key_id, *others)))


class _DoneError(Exception):
    """The key has this operation already; only raised."""


class _RefusedError(Exception):
    """The store refused a change, which is not recorded yet; only raised."""

    def __init__(self, error: HSMError) -> None:
        super().__init__()
        self.error = error


class _SettledError(Exception):
    """This failure is recorded as far as it can be; only raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _unknown(attempt: RequestContext[Any]) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"The outcome of operation {attempt.operation_id} is unknown: the change may "
        "have been made but could not be recorded. Repeat the request with the same "
        "idempotency key.",
        operation_id=attempt.operation_id,
    )

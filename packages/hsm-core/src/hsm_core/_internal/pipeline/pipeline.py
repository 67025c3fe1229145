# SPDX-License-Identifier: MIT
"""
The pipeline: resolve, authorise, prepare, approve, act, record. Always, in this order.

Only here (with `admission` and `mutations`, its two halves) are policy, handlers and
trail called. What it promises:

- nobody learns of a key that they may not describe;
- a mutation has its intent on disk before the store is touched, and its outcome before
  the answer goes out;
- a use is answered after its record is as durable as the sync mode says;
- whatever is refused is recorded; of plain reads that fail, those about a key are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from hsm_core._internal.approvals.workflow import ApprovalReservation
from hsm_core._internal.handlers.base import (
    Answer,
    AnyHandler,
    Handler,
    HandlerDependencies,
)
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.settlement import Healer
from hsm_core._internal.keyring.use_counters import NoRoomError
from hsm_core._internal.lib.concurrency import Gate
from hsm_core._internal.pipeline.authorisation import (
    Admission,
    ApprovalDesk,
    checked_caller,
)
from hsm_core._internal.pipeline.drafts import RequestContext, code_of
from hsm_core._internal.pipeline.mutations import Mutations
from hsm_core.errors import (
    AuditUnavailableError,
    GenerationConflictError,
    HSMError,
    IntegrityError,
    InvalidInputError,
)
from hsm_core.model import Caller, KeyState, Phase
from hsm_core.operations import Effect, Operation
from hsm_core.protocols import AuditDraft, AuditTicket, Request

R = TypeVar("R")
_STANDING: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED})
_UNRECORDED: Final = frozenset({Effect.READ, Effect.CONSENT})
"""Operations without a record of their own on success; approval steps write theirs."""

_TRIES: Final = 5
"""Number of retries of a key use whose key changed in between."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result or the error instead of it."""

    result: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


@dataclass(frozen=True, slots=True)
class Computed:
    """
    An outcome that may not be told before *draft* is recorded.

    Attributes:
        reserved: Whether the record may use the space that is kept back.
        hold: The approval that it has, to be settled once it is recorded.
    """

    outcome: Outcome
    draft: AuditDraft | None = None
    reserved: bool = False
    hold: ApprovalReservation | None = None


class Pipeline:
    """
    Executes operations.

    Args:
        services: Dependencies of the handlers.

        handlers: One per operation.

        pool: Where operations of a batch run that are not quick.

        slow_pool: Where its slow ones run.

        healer: Where changes go whose outcome the store does not tell.

    Attributes:
        desk: Where approvals are asked for ahead of time.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        handlers: Mapping[type[Operation[Any]], AnyHandler[Any]],
        pool: ThreadPoolExecutor,
        slow_pool: ThreadPoolExecutor,
        healer: Healer,
    ) -> None:
        self._services = services
        self._admission = Admission(services, handlers)
        self._mutations = Mutations(services, self._admission, healer)
        self.desk = ApprovalDesk(self._admission, services.consents)
        self._pool = pool
        self._slow_pool = slow_pool

    def execute(self, request: Request) -> Any:
        """Execute one request in the calling thread."""
        if self.is_mutation(request.operation):
            return self._mutations.execute(request)
        (outcome,) = self.record([self.compute(request)])
        return outcome.get()

    def execute_many(self, requests: Sequence[Request]) -> list[Outcome]:
        """
        Execute requests together, and return their outcomes in the same order.

        Quick ones are computed at once with one append, others on the pools.
        """
        requests = [
            replace(request, caller=checked_caller(request.caller))
            for request in requests
        ]
        longer: dict[int, Future[Outcome]] = {}
        quick: list[Computed] = []
        for position, request in enumerate(requests):
            if self.is_quick(request.operation):
                # Whoever waits here for an approval or a disk, waits on a pool.
                with suppress(NoRoomError):
                    quick.append(self.compute(request, at_once=True))
                    continue
            pool = self._pool_for(request.operation)
            longer[position] = pool.submit(self._outcome_of, request)
        told = iter(self.record(quick))
        return [
            longer[position].result() if position in longer else next(told)
            for position in range(len(requests))
        ]

    def _pool_for(self, operation: Operation[Any]) -> ThreadPoolExecutor:
        return self._slow_pool if self.is_slow(operation) else self._pool

    def pay(self) -> None:
        """Append outcomes that are still owed to the trail; see `Mutations.pay`."""
        self._mutations.pay()

    def is_mutation(self, operation: Operation[Any]) -> bool:
        """Whether an operation changes a key."""
        return operation.effect is Effect.MUTATION

    def is_quick(self, operation: Operation[Any]) -> bool:
        """Whether an event loop may compute it itself."""
        handler = self._admission.handler(operation)
        return handler.is_quick(operation) and not handler.is_slow(operation)

    def is_slow(self, operation: Operation[Any]) -> bool:
        """Whether it takes so long that it has threads of its own."""
        return self._admission.handler(operation).is_slow(operation)

    def weight(self, operation: Operation[Any]) -> int:
        """Return how many quick operations one is worth; see `OpenHSM.weight`."""
        return self._admission.handler(operation).weight(operation)

    def _outcome_of(self, request: Request) -> Outcome:
        try:
            return Outcome(self.execute(request))
        except Exception as error:
            return Outcome(error=error)

    def compute(self, request: Request, *, at_once: bool = False) -> Computed:
        """
        Take a use, view or read as far as its record.

        Args:
            request: Who asks for what.

            at_once: Don't wait for the disk to count a use.

        Raises:
            NoRoomError: With *at_once*, it would have to wait; nothing was done.
        """
        attempt = RequestContext(
            request.caller, request.operation, self._services.policy.engine
        )
        effect = request.operation.effect
        try:
            attempt.name_approval(request.approval_id)
            if request.idempotency_key is not None:
                raise InvalidInputError(
                    "idempotency_key applies only to operations that change a key.",
                    field="idempotency_key",
                )
            if request.expected_generation:
                raise InvalidInputError(
                    "expected_generation applies only to operations that change a key.",
                    field="expected_generation",
                )
            attempt.check(self._services.limits)
            answer = self._compute_stably(attempt, at_once=at_once)
        except NoRoomError:
            raise
        except Exception as error:
            if effect is Effect.READ and not _is_refusal(attempt, error):
                return Computed(Outcome(error=error))
            return Computed(
                Outcome(error=error),
                self._draft(attempt, Phase.SINGLE, code=code_of(error)),
            )
        if effect in _UNRECORDED and attempt.hold is None:
            return Computed(Outcome(answer.result))
        draft = self._draft(
            attempt, Phase.SINGLE, version=answer.version, detail=answer.detail
        )
        return Computed(
            Outcome(answer.result),
            draft,
            reserved=effect is Effect.RECOVERY,
            hold=attempt.hold,
        )

    def _compute_stably(self, attempt: RequestContext, *, at_once: bool) -> Answer[Any]:
        """
        Compute, and see whether the answer still stands when it is done.

        A use that was computed before its version was retired is ordered before that,
        and stands. One whose version was revoked or destroyed meanwhile does not.
        """
        if attempt.operation.effect is not Effect.USE:
            return self._compute_once(attempt, at_once=at_once)
        sent = attempt.operation
        for _ in range(_TRIES):
            attempt.operation = sent
            try:
                answer = self._compute_once(attempt, at_once=at_once)
            except HSMError:
                if not self._has_moved(attempt):
                    raise
                continue
            try:
                stands = not self._has_moved(attempt) or self._still_stands(
                    attempt, answer
                )
            except BaseException:
                self._admission.settle_approval(attempt, done=False)
                raise
            if stands:
                return answer
            self._admission.settle_approval(attempt, done=False)
        raise GenerationConflictError

    def _still_stands(self, attempt: RequestContext, answer: Answer[Any]) -> bool:
        if attempt.document is None:
            return True
        document = self._services.inventory.document(attempt.document.key_id)
        attempt.document = document
        self._admission.authorise(attempt)
        if self._admission.asked(attempt) is not None and attempt.hold is None:
            return False
        if any(self._is_newer(other) for other in attempt.others.values()):
            return False
        used = [document.version(n) for n in (answer.version, answer.source) if n]
        return bool(used) and all(v and v.state in _STANDING for v in used)

    def _compute_once(self, attempt: RequestContext, *, at_once: bool) -> Answer[Any]:
        handler = self._admission.handler(attempt.operation)
        assert isinstance(handler, Handler)  # noqa: S101 (for the type checker)
        subject = self._admission.admit(attempt, handler)
        handler.prepare(subject)
        if at_once and self._admission.asked(attempt) is not None:
            raise NoRoomError  # Approvals are read from the disk, and written to it.
        self._admission.take_approval(attempt)
        try:
            uses = handler.uses(subject)
            for use in uses:
                self._services.uses.take(use, at_once=at_once)
            answer = handler.perform(subject)
        except BaseException:
            self._admission.settle_approval(attempt, done=False)
            raise
        if not uses and attempt.operation.usage is not None:
            self._touch(attempt.document, answer.version)
        return answer

    def _touch(self, document: KeyDocument | None, number: int) -> None:
        """Note when a version was used for what is not counted."""
        version = document.version(number) if document else None
        if document is not None and version is not None:
            self._services.uses.touch(document, version)

    def _has_moved(self, attempt: RequestContext) -> bool:
        documents = [attempt.document, *attempt.others.values()]
        return any(self._is_newer(document) for document in documents if document)

    def _is_newer(self, document: KeyDocument) -> bool:
        """Return whether the store has something newer, or nothing, of a key."""
        entry = self._services.inventory.entry(document.key_id)
        return entry is None or entry.generation > document.generation

    def record(self, computed: Sequence[Computed]) -> list[Outcome]:
        """Record computed requests with one append, wait, and return the outcomes."""
        ticket = self.begin_record(computed)
        if isinstance(ticket, AuditUnavailableError):
            self._settle(computed, done=False)
            return _withheld(computed, ticket)
        if ticket is not None:
            try:
                ticket.wait()
            except AuditUnavailableError as error:
                # The record may yet be written, so nobody may do it again.
                self._settle(computed, done=None)
                return _withheld(computed, error)
        self._settle(computed, done=True)
        return [item.outcome for item in computed]

    def _settle(self, computed: Sequence[Computed], *, done: bool | None) -> None:
        for item in computed:
            if item.hold is not None:
                self._services.consents.settle(item.hold, done=done)

    def begin_record(
        self, computed: Sequence[Computed]
    ) -> AuditTicket | AuditUnavailableError | None:
        """Append the records of computed requests, without waiting for the disk."""
        recorded = [item for item in computed if item.draft is not None]
        drafts = [item.draft for item in recorded if item.draft is not None]
        if not drafts:
            return None
        # Of a recovery, what it did is in the trail already; so this must be too.
        reserved = all(item.reserved for item in recorded)
        durable = any(item.hold for item in recorded)
        try:
            return self._services.audit.append(
                drafts, reserved=reserved, durable=durable
            )
        except AuditUnavailableError as error:
            return error
        except HSMError as error:
            # A record that can't be written down is a trail that can't be written.
            unavailable = AuditUnavailableError()
            unavailable.__cause__ = error
            return unavailable

    def _draft(self, attempt: RequestContext, phase: Phase, **facts: Any) -> AuditDraft:
        return attempt.draft(phase, **facts)


class BoundHSM:
    """`HSM` for one caller, in this process."""

    def __init__(self, pipeline: Pipeline, gate: Gate, caller: Caller) -> None:
        self._pipeline = pipeline
        self._gate = gate
        self._caller = checked_caller(caller)

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation; see `HSM.execute` and `Request`."""
        request = Request(
            self._caller, operation, idempotency_key, approval_id, expected_generation
        )
        self._gate.enter()
        try:
            result: R = self._pipeline.execute(request)
        finally:
            self._gate.leave()
        return result


def _is_refusal(attempt: RequestContext, error: Exception) -> bool:
    """Whether even a read is recorded: it was refused, or it is about a key."""
    refused = attempt.decision is not None and not attempt.decision.allowed
    about_a_key = attempt.document is not None
    return refused or about_a_key or isinstance(error, IntegrityError)


def _withheld(
    computed: Sequence[Computed], error: AuditUnavailableError
) -> list[Outcome]:
    """Keep back every outcome that should have been recorded."""
    return [
        item.outcome if item.draft is None else Outcome(error=error)
        for item in computed
    ]

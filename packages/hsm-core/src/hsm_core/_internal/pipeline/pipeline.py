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
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from hsm_core._internal.audit.medium import DONE, GroupRefusedError
from hsm_core._internal.handlers.base import (
    Answer,
    AnyHandler,
    Handler,
    HandlerDependencies,
    Speed,
)
from hsm_core._internal.handlers.context import RequestContext, code_of
from hsm_core._internal.keyring.journal import KeyJournal
from hsm_core._internal.keyring.use_counters import NoRoomError
from hsm_core._internal.lib import silence
from hsm_core._internal.lib.concurrency import Gate
from hsm_core._internal.pipeline.authorisation import (
    Admission,
    ApprovalDesk,
    checked_caller,
)
from hsm_core._internal.pipeline.mutations import Mutations
from hsm_core._internal.pipeline.outcome import Outcome
from hsm_core._internal.pipeline.plans import Plans
from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    AuditUnavailableError,
    GenerationConflictError,
    HSMError,
    IntegrityError,
    InvalidInputError,
)
from hsm_core.model import Caller, KeyState, Phase
from hsm_core.operations import Effect, Operation
from hsm_core.protocols import AuditTicket, Request

R = TypeVar("R")
_STANDING: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED})
_UNRECORDED: Final = frozenset({Effect.READ, Effect.CONSENT})
"""Operations without a record of their own on success; approval steps write theirs."""

_TRIES: Final = 5
"""Number of retries of a key use whose key changed in between."""


class Pipeline:
    """
    Executes operations.

    Args:
        services: Dependencies of the handlers.

        handlers: One per operation.

        journal: Journal of the key changes.

    Attributes:
        desk: Where approvals are asked for ahead of time.
        plans: Where uses are repeated.
        execute: Executes one request in the calling thread, given who asks for what,
            and the instant of ``time.monotonic()`` at which it came; None is now.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        handlers: Mapping[type[Operation[Any]], AnyHandler[Any]],
        journal: KeyJournal,
    ) -> None:
        self._services = services
        self._audit, self._store = services.audit, services.inventory.store
        is_alone = services.inventory.feed is None
        self.execute: Final = self._execute if is_alone else self._execute_for_a_time
        self._handlers = handlers
        self._admission = Admission(services, handlers)
        self._mutations = Mutations(services, self._admission, journal)
        self.plans = Plans(services, handlers)
        self.desk = ApprovalDesk(self._admission, services.consents)

    def _execute_for_a_time(self, request: Request, began: float | None = None) -> Any:
        with silence.task(began):
            return self._execute(request)

    def _execute(self, request: Request, began: float | None = None) -> Any:
        outcome = self.plans.run(request)
        if outcome is not None:
            try:
                recorded = self._audit.append(outcome.standing)
                if recorded is not DONE:
                    recorded.wait()
            except GroupRefusedError:
                outcome.has_moved = True
            except AuditUnavailableError:
                raise
            except HSMError as error:
                raise AuditUnavailableError from error
            if not outcome.has_moved:
                if outcome.error is not None:
                    outcome.raise_error()
                return outcome.result
        elif request.operation.effect is Effect.MUTATION:
            return self._mutations.execute(request)
        outcome = self.compute(request)
        done: bool | None = False
        try:
            tries = 0
            while True:
                ticket = self.begin_record([outcome])
                # The record may yet be written, so nobody may do it again.
                done = None
                if not outcome.has_moved and _is_recorded(ticket):
                    break
                done = False
                outcome = self._decide_again(request, outcome, tries)
                tries += 1
            done = outcome.error is None
        finally:
            if outcome.hold is not None:
                self._services.consents.settle(outcome.hold, done=done)
        if outcome.error is not None:
            outcome.raise_error()
        return outcome.result

    def speed_of(self, operation: Operation[Any]) -> Speed:
        """Return where an operation runs under an event loop."""
        return self._handlers[type(operation)].speed_of(operation)

    def weight(self, operation: Operation[Any]) -> int:
        """Return how many quick operations one is worth; see `OpenHSM.weight`."""
        return self._handlers[type(operation)].weight(operation)

    def compute(self, request: Request, *, at_once: bool = False) -> Outcome:
        """
        Take a use, view or read as far as its record.

        Args:
            request: Who asks for what.

            at_once: Don't wait for the disk, to count a use or to read keys.

        Raises:
            NoRoomError: With *at_once*, it would have to wait; nothing was done.
        """
        context = RequestContext(
            request.caller,
            request.operation,
            self._services.policy.engine,
            at_once=at_once,
            check_caller=request.check,
        )
        effect = request.operation.effect
        try:
            if request.approval_id != "":
                context.name_approval(request.approval_id)
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
            context.check(self._services.settings.limits)
            answer = self._compute_stably(context, at_once=at_once)
        except NoRoomError:
            raise
        except Exception as error:
            if effect is Effect.READ and not _is_refusal(context, error):
                return Outcome(error=error)
            if effect is Effect.USE and context.is_checked:
                self._admission.bind(context, b"")
            subjects = context.subjects if effect is Effect.USE else ()
            draft = context.draft(Phase.SINGLE, code=code_of(error), subjects=subjects)
            return Outcome(error=error, draft=draft)
        if effect in _UNRECORDED and context.hold is None:
            return Outcome(answer.result)
        if effect is Effect.USE:
            self.plans.learn(request, context)
        return self._outcome(request, context, answer)

    def _outcome(
        self, request: Request, context: RequestContext[Any], answer: Answer[Any]
    ) -> Outcome:
        effect = request.operation.effect
        is_use = effect is Effect.USE
        return Outcome(
            answer.result,
            draft=context.draft(
                Phase.SINGLE,
                version=answer.version,
                detail=answer.detail,
                bound=answer.bound,
                subjects=context.subjects if is_use else (),
            ),
            reserved=effect is Effect.RECOVERY,
            hold=context.hold,
            check=request.check,
            seen=context.seen if is_use else None,
            store=self._store if is_use and context.document is not None else None,
            decided=(context, answer) if is_use else None,
        )

    def _compute_stably(
        self, context: RequestContext[Any], *, at_once: bool
    ) -> Answer[Any]:
        """Compute; again, if it failed while something changed that it rests on."""
        sent = context.operation
        if sent.effect is not Effect.USE:
            self._admission.begin(context)
            return self._compute_once(context, at_once=at_once)
        for _ in range(_TRIES):
            context.operation = sent
            self._admission.begin(context)
            try:
                return self._compute_once(context, at_once=at_once)
            except GenerationConflictError:
                continue  # The store may know of a change before the cache does.
            except HSMError:
                if context.seen.holds():
                    raise
        raise GenerationConflictError

    def _decide_again(self, request: Request, outcome: Outcome, tries: int) -> Outcome:
        """
        Decide on a use whose key, policy or algorithm changed before it was recorded.

        A use that was computed before its version was retired is ordered before that,
        and stands. One whose version was revoked or destroyed meanwhile does not, and
        is tried again.
        """
        if tries >= _TRIES:
            return self._give_up(outcome)
        if outcome.decided is None:
            return self.compute(request)
        context, answer = outcome.decided
        outcome.hold = None  # The context has it, too.
        try:
            stands = self._still_stands(context, answer)
        except Exception as error:
            self._admission.settle_approval(context, done=False)
            draft = context.draft(
                Phase.SINGLE, code=code_of(error), subjects=context.subjects
            )
            return Outcome(error=error, draft=draft)
        except BaseException:
            self._admission.settle_approval(context, done=False)
            raise
        if stands:
            return self._outcome(request, context, answer)
        self._admission.settle_approval(context, done=False)
        return self.compute(request)

    def _give_up(self, outcome: Outcome) -> Outcome:
        """Refuse a use that could not be recorded, whatever else changes."""
        if outcome.decided is not None:
            context, _ = outcome.decided
            self._admission.settle_approval(context, done=False)
            error = GenerationConflictError()
            return Outcome(
                error=error, draft=context.draft(Phase.SINGLE, code=code_of(error))
            )
        draft = outcome.draft
        free = None if draft is None else replace(draft, subjects=())
        return Outcome(error=outcome.error, draft=free)

    def _still_stands(self, context: RequestContext[Any], answer: Answer[Any]) -> bool:
        services, engine = self._services, context.policy
        self._admission.begin(context)
        for named in context.documents:
            context.seen.add(services.inventory.tampered.cells.of(named.key_id))
        services.inventory.lock.check()
        document = context.document
        if document is not None:
            document = services.inventory.document(document.key_id)
            services.crypto.require(Algorithm(document.algorithm))
            context.document = document
        self._admission.authorise(context)
        if context.demands and (context.hold is None or context.policy is not engine):
            return False
        if services.inventory.has_moved(context.others.values()):
            return False
        if not self._admission.is_held(context):
            return False
        if document is None:
            return True
        used = [document.version(n) for n in (answer.version, answer.source) if n]
        return bool(used) and all(v and v.state in _STANDING for v in used)

    def _compute_once(
        self, context: RequestContext[Any], *, at_once: bool
    ) -> Answer[Any]:
        handler = self._handlers[type(context.operation)]
        assert isinstance(handler, Handler)  # noqa: S101 (for the type checker)
        self._admission.admit(context, handler)
        handler.prepare(context)
        if at_once and context.demands:
            raise NoRoomError  # Approvals are read from the disk, and written to it.
        if context.demands:
            self._admission.take_approval(context)
        try:
            uses = handler.uses(context)
            for use in uses:
                self._services.uses.take(use, at_once=at_once)
            answer = handler.perform(context)
            self._admission.bind(context, answer.bound)
        except BaseException:
            self._admission.settle_approval(context, done=False)
            raise
        if not uses and context.operation.usage is not None:
            # It is noted when a version was used for what is not counted.
            version = context.key.version(answer.version)
            if version is not None:
                self._services.uses.touch(context.key, version)
        return answer

    def begin_record(self, outcomes: Sequence[Outcome]) -> AuditTicket | None:
        """
        Append the records of outcomes, without waiting for the disk.

        A use is recorded only if it still stands under the lock of the audit log, where
        nothing else can be recorded in between; others are left out, with *has_moved*
        set.

        Raises:
            AuditUnavailableError: They can't be appended.
        """
        reserved, durable, recorded = True, False, False
        for outcome in outcomes:
            if outcome.draft is not None:
                recorded = True
                # What a recovery did is in the audit log already; so this must be too.
                reserved = reserved and outcome.reserved
                durable = durable or outcome.hold is not None
        if not recorded:
            return None
        try:
            return self._audit.append(
                lambda: [draft for outcome in outcomes for draft in outcome.standing()],
                reserved=reserved,
                durable=durable,
            )
        except AuditUnavailableError:
            raise
        except HSMError as error:
            # A record that can't be written down is a log that can't be written.
            raise AuditUnavailableError from error


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
        gate = self._gate
        gate.enter()
        try:
            result: R = self._pipeline.execute(request)
        finally:
            gate.leave()
        return result


def _is_recorded(ticket: AuditTicket | None) -> bool:
    """Wait for a record; return False if it was refused, as something has changed."""
    try:
        if ticket is not None:
            ticket.wait()
    except GroupRefusedError:
        return False
    return True


def _is_refusal(context: RequestContext[Any], error: Exception) -> bool:
    """Whether even a read is recorded: it was refused, or it is about a key."""
    refused = context.decision is not None and not context.decision.allowed
    about_a_key = context.document is not None
    return refused or about_a_key or isinstance(error, IntegrityError)

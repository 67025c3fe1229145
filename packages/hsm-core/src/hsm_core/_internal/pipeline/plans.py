# SPDX-License-Identifier: MIT
"""
Plans: uses that were decided once, and are repeated with other payloads.

Most of what the pipeline finds out of a use depends on its caller, its key and its
parameters, and not on its payload. When a use has succeeded, all of that becomes a
plan. The next use of the same form asks the plan alone, as long as every cell holds
that was looked at before (`Snapshot`); it is counted, computed and recorded as always.

A plan answers successes only. Whatever it can't answer, it leaves to the pipeline,
which is the definition of everything: changes, refusals, wrong signatures, odd inputs.
What can't be seen in a cell is asked each time (time-outs, sizes, use counts, the
store, `Request.check`), or has no plan: approvals, single-use tokens, rules with hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core._internal.crypto.ciphertexts import HEADER_BYTES
from hsm_core._internal.handlers.base import (
    INLINE_BYTES,
    Answer,
    AnyHandler,
    Handler,
    HandlerDependencies,
    Speed,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.lib.cells import Snapshot
from hsm_core._internal.pipeline.plan_payload import Payload, is_plain
from hsm_core._internal.pipeline.plan_work import steps_of
from hsm_core._json import bytes_fields
from hsm_core.algorithms import CiphertextEncoding
from hsm_core.model import Caller, Phase
from hsm_core.operations import Operation
from hsm_core.protocols import AuditDraft, Request

_PLANNED: Final[tuple[type[Operation[Any]], ...]] = (
    ops.Sign,
    ops.Verify,
    ops.ComputeMac,
    ops.VerifyMac,
    ops.Encrypt,
    ops.Decrypt,
    ops.Seal,
    ops.Open,
    ops.Encapsulate,
    ops.Decapsulate,
    ops.SignBatch,
    ops.VerifyBatch,
    ops.ComputeMacBatch,
    ops.VerifyMacBatch,
    ops.EncryptBatch,
    ops.DecryptBatch,
)
_MOST_PLANS: Final = 4096
_PARAMETERS: Final = frozenset({"context"})
"""Byte strings that are part of a form, and no payload."""

_ENVELOPE: Final = CiphertextEncoding.ENVELOPE
_MOST_QUICK_ITEMS: Final = 8

facts_of: Final[Callable[[Caller], tuple[Any, ...]]] = attrgetter(
    *(
        name
        for name in Caller.__struct_fields__
        if name not in {"request_id", "deadline"}
    )
)
"""What a rule may match or a record shows of a caller; equal facts share plans."""

Form: TypeAlias = tuple[Any, ...]
"""An operation without its payload."""


class _Kind(NamedTuple):
    """
    How the operations of a type are told apart.

    Attributes:
        fixed: Gives the fields that are no payload.
        numbers: Those of them that are numbers, for what equals one need not be one.
        payload: The fields that are.
        optional: Those that may be left out, with what they are then.
        is_batch: Whether the payload is a list of items.
    """

    fixed: Callable[[Any], Any]
    numbers: tuple[str, ...]
    payload: tuple[str, ...]
    optional: tuple[tuple[str, object], ...]
    is_batch: bool


def _kind(operation: type[Operation[Any]]) -> _Kind:
    names, defaults = operation.__struct_fields__, operation.__struct_defaults__
    left_out = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    is_batch = "items" in names
    payload: tuple[str, ...] = ("items",)
    if not is_batch:
        payload = tuple(n for n in names if n in bytes_fields(operation) - _PARAMETERS)
    required = operation.required_fields()
    return _Kind(
        attrgetter(*(name for name in names if name not in payload)),
        tuple(name for name in ("version", "salt_bytes") if name in names),
        payload,
        tuple((name, left_out[name]) for name in payload if name not in required),
        is_batch,
    )


_KINDS: Final[Mapping[type[Operation[Any]], _Kind]] = {
    operation: _kind(operation) for operation in _PLANNED
}


def _form_of(operation: Operation[Any]) -> Form | None:
    """Return the form of an operation; None if its kind has no plans."""
    kind = _KINDS.get(type(operation))
    if kind is None:
        return None
    given: list[Any] = [getattr(operation, n) != value for n, value in kind.optional]
    if isinstance(operation, ops.Decrypt) and operation.encoding is _ENVELOPE:
        # An envelope says which version is to open it.
        given.append(operation.ciphertext[:HEADER_BYTES])
    if isinstance(operation, ops.SignBatch):
        items = operation.items
        given.append(bool(items) and getattr(items[0], "message", None) is not None)
    given += [type(getattr(operation, name)) for name in kind.numbers]
    return type(operation), kind.fixed(operation), *given


class Planned(NamedTuple):
    """What a plan answers, the record of it, and what must hold when it is written."""

    result: Any
    draft: AuditDraft
    seen: Snapshot


class Plan:
    """
    A use of one form by one caller, as it was decided.

    Args:
        services: Dependencies of the handlers.

        handler: Of the operation.

        context: The use that succeeded.

        answer: What it gave.

    Attributes:
        seen: What must hold; else nothing here is right any more.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        handler: Handler[Any, Any],
        context: RequestContext[Any],
        answer: Answer[Any],
    ) -> None:
        self.seen = context.seen
        self._services = services
        self._key = context.key
        self._draft = context.draft(Phase.SINGLE, version=answer.version)
        kind = _KINDS[type(context.operation)]
        names = tuple(
            name
            for name in kind.payload
            if (name, getattr(context.operation, name)) not in kind.optional
        )
        bare = _without_payload(context, names)
        self._operation = bare.operation
        steps = steps_of(services, handler, bare, names)
        self._measure, self._work = steps.measure, steps.work
        self._is_counted, self._is_touched = steps.is_counted, steps.is_touched
        self._is_quick = handler.speed_of(bare.operation) is Speed.QUICK
        self._account = services.uses.account_of(self._key, self._key.current_version)

    def run(self, request: Request, *, at_once: bool) -> Planned | None:
        """
        Do it with another payload; None leaves it to the pipeline, wholly.

        Args:
            request: Of the plan's form and caller.

            at_once: It must be quick.
        """
        operation, caller = request.operation, request.caller
        payload = self._measure(operation)
        if payload is None or (at_once and not self._is_short(payload)):
            return None
        if not (is_plain(caller.request_id) and self._is_in_time(caller)):
            return None
        if self._is_counted and not self._account.take(
            payload.items, payload.protected, self._services.clock.now()
        ):
            return None
        try:
            answer = self._work(operation)
        except Exception:  # The pipeline says what is wrong.
            return None
        if answer is None:
            return None
        if self._is_touched:
            used = self._key.versions[answer.version - 1]
            self._services.uses.touch(self._key, used)
        return Planned(answer.result, self._record(caller, payload, answer), self.seen)

    def _is_short(self, payload: Payload) -> bool:
        return (
            self._is_quick
            and payload.total <= INLINE_BYTES
            and payload.items <= _MOST_QUICK_ITEMS
        )

    def _is_in_time(self, caller: Caller) -> bool:
        deadline = caller.deadline
        return not deadline or self._services.clock.monotonic() <= deadline

    def _record(
        self, caller: Caller, payload: Payload, answer: Answer[Any]
    ) -> AuditDraft:
        """Return the record of a use; see `Admission.bind` for its digest."""
        digest_of = self._services.inventory.ring.payload_digest
        if payload.total > INLINE_BYTES:
            digest = digest_of(answer.bound) if answer.bound else ""
        else:
            whole = replace(self._operation, **payload.fields)
            digest = digest_of(wire.encode_packed(whole))
        return replace(
            self._draft,
            request_id=caller.request_id,
            version=answer.version,
            parameters=self._draft.parameters | payload.sizes,
            digest=digest,
            detail=answer.detail,
        )


def _without_payload(
    context: RequestContext[Any], names: tuple[str, ...]
) -> RequestContext[Any]:
    """Return a use without anybody's payload; the header of an envelope stays."""
    operation = context.operation
    short: dict[str, Any] = dict.fromkeys(names, b"")
    if "ciphertext" in short:
        short["ciphertext"] = operation.ciphertext[:HEADER_BYTES]
    prepared = context.prepared
    if "items" in short:
        short["items"], first = (), prepared[0]
        signs = isinstance(operation, ops.SignBatch) and isinstance(
            first, RequestContext
        )
        is_whole = signs and operation.items[0].message is not None
        prepared = first.prepared if is_whole else []
    # Of a signature, how it is made; what is signed stands before it.
    prepared = [None, *prepared[1:]] if prepared else []
    return replace(context, operation=replace(operation, **short), prepared=prepared)


class Plans:
    """
    Plans of all callers. Safe for many threads.

    Args:
        services: Dependencies of the handlers.

        handlers: One per operation.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        handlers: Mapping[type[Operation[Any]], AnyHandler[Any]],
    ) -> None:
        self._services = services
        self._handlers = handlers
        self._plans: dict[tuple[Any, Form], Plan] = {}

    def run(self, request: Request, *, at_once: bool) -> Planned | None:
        """Execute a request by its plan; None if there is none that can."""
        try:
            form = _form_of(request.operation)
            if form is None:
                return None
            slot = facts_of(request.caller), form
            plan = self._plans.get(slot)
        except (TypeError, LookupError):
            return None  # Some field is not what it should be.
        if plan is None or _has_options(request):
            return None
        if not plan.seen.holds():
            self._plans.pop(slot, None)
            return None
        return plan.run(request, at_once=at_once)

    def learn(
        self, request: Request, context: RequestContext[Any], answer: Answer[Any]
    ) -> None:
        """Make a plan of a use that has succeeded, if it can be repeated by one."""
        operation, caller = request.operation, request.caller
        if type(operation) not in _KINDS or _has_options(request):
            return
        if context.demands or caller.single_use:
            return
        if context.policy.asks_for_the_time(type(operation).__name__):
            return
        handler = self._handlers[type(operation)]
        assert isinstance(handler, Handler)  # noqa: S101 (for the type checker)
        plan = Plan(self._services, handler, context, answer)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        form = _form_of(operation)
        assert form is not None  # noqa: S101 (its kind is known)
        self._plans[facts_of(caller), form] = plan


def _has_options(request: Request) -> bool:
    """Whether a request asks for more than its operation."""
    return bool(
        request.approval_id
        or request.idempotency_key is not None
        or request.expected_generation
    )

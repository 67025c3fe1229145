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
from typing import Any, Final, NamedTuple

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
from hsm_core._internal.handlers.batches import BatchHandler
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.pipeline.outcome import Outcome
from hsm_core._internal.pipeline.plan_batches import batch_steps
from hsm_core._internal.pipeline.plan_payload import MOST_CHARACTERS, Payload
from hsm_core._internal.pipeline.plan_work import steps_of
from hsm_core._json import bytes_fields
from hsm_core.algorithms import CiphertextEncoding
from hsm_core.model import Caller, Phase
from hsm_core.operations import Operation
from hsm_core.protocols import AuditFacts, Request, UseDraft

_MOST_PLANS: Final = 4096
_MOST_QUICK_ITEMS: Final = 8
_ENVELOPE: Final = CiphertextEncoding.ENVELOPE

facts_of: Final[Callable[[Caller], tuple[Any, ...]]] = attrgetter(
    *(n for n in Caller.__struct_fields__ if n not in {"request_id", "deadline"})
)
"""What a rule may match or a record shows of a caller; equal facts share plans."""


def _of_signature(sent: ops.Sign) -> object:
    return sent.message is None, sent.digest is None, sent.mu is None


def _of_check(sent: ops.Verify) -> object:
    given = sent.message is None, sent.digest is None, sent.mu is None
    return *given, type(sent.version), type(sent.salt_bytes)


def _of_decryption(sent: ops.Decrypt) -> object:
    # An envelope says which version is to open it.
    is_envelope = sent.encoding is _ENVELOPE
    header = sent.ciphertext[:HEADER_BYTES] if is_envelope else b""
    return sent.aad == b"", header, type(sent.version)


def _of_batch(sent: ops.SignBatch) -> object:
    return sent.items[0].message is None


def _of_numbers(sent: Any) -> object:
    # What equals a number need not be one.
    return type(sent.version), type(getattr(sent, "salt_bytes", None))


def _of_aad(sent: Any) -> object:
    return sent.aad == b""


_DIFFERENCES: Final[Mapping[type[Operation[Any]], Callable[[Any], object] | None]] = {
    ops.Sign: _of_signature,
    ops.Verify: _of_check,
    ops.ComputeMac: None,
    ops.VerifyMac: _of_numbers,
    ops.Encrypt: _of_aad,
    ops.Decrypt: _of_decryption,
    ops.Seal: _of_aad,
    ops.Open: _of_aad,
    ops.Encapsulate: None,
    ops.Decapsulate: _of_numbers,
    ops.SignBatch: _of_batch,
    ops.VerifyBatch: _of_numbers,
    ops.ComputeMacBatch: None,
    ops.VerifyMacBatch: _of_numbers,
    ops.EncryptBatch: None,
    ops.DecryptBatch: None,
}
"""Operations that have plans, and how those with equal parameters differ in form."""


class _Kind(NamedTuple):
    """
    Distinction of the operations of a type.

    Attributes:
        fixed: Gives the fields that are no payload.
        differs: Gives in what form the payload is.
        payload: The fields that are payload.
        left_out: What those hold that may be left out.
    """

    fixed: Callable[[Any], Any]
    differs: Callable[[Any], object] | None
    payload: tuple[str, ...]
    left_out: Mapping[str, object]


def _kind(operation: type[Operation[Any]]) -> _Kind:
    names, defaults = operation.__struct_fields__, operation.__struct_defaults__
    payload = bytes_fields(operation) - {"context"} | {"items"}
    return _Kind(
        attrgetter(*(name for name in names if name not in payload)),
        _DIFFERENCES[operation],
        tuple(name for name in names if name in payload),
        dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)),
    )


_KINDS: Final = {operation: _kind(operation) for operation in _DIFFERENCES}


_options_of: Final = attrgetter("approval_id", "idempotency_key", "expected_generation")
_NO_OPTIONS: Final = ("", None, 0)


class UsePlan:
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
        kind, operation = _KINDS[type(context.operation)], context.operation
        names = tuple(
            name
            for name in kind.payload
            if name not in kind.left_out
            or getattr(operation, name) != kind.left_out[name]
        )
        bare = _without_payload(context, names)
        if isinstance(handler, BatchHandler):
            steps = batch_steps(services, handler, bare)
        else:
            steps = steps_of(services, handler, bare, names)
        self.seen = context.seen
        self._services = services
        self._key = context.key
        self._names = names
        self._draft = draft = context.draft(Phase.SINGLE)
        self._facts: dict[int, AuditFacts] = {}
        lengths = {name if name == "items" else f"{name}_bytes" for name in names}
        integers = {k: v for k, v in draft.parameters.items() if isinstance(v, int)}
        self._numbers = tuple(
            None if name in lengths else value for name, value in integers.items()
        )
        self._operation = bare.operation
        self._measure, self._work = steps.measure, steps.work
        self._is_counted, self._is_touched = steps.is_counted, steps.is_touched
        self._is_quick = handler.speed_of(bare.operation) is Speed.QUICK
        self._account = services.uses.account_of(self._key, self._key.current_version)

    def run(self, request: Request, *, at_once: bool) -> Outcome | None:
        """
        Do it with another payload; None leaves it to the pipeline, wholly.

        Args:
            request: Of the plan's form and caller.

            at_once: It must be quick.
        """
        operation, caller, services = request.operation, request.caller, self._services
        payload = self._measure(operation)
        if payload is None or (at_once and not self._is_short(payload)):
            return None
        numbers, total, protected, items = payload
        name = caller.request_id
        if type(name) is not str or len(name) > MOST_CHARACTERS:
            return None
        if not name.isprintable():
            return None
        if caller.deadline and services.clock.monotonic() > caller.deadline:
            return None
        if self._is_counted and not self._account.take(
            items, protected, services.clock.now()
        ):
            return None
        try:
            answer = self._work(operation)
        except Exception:  # The pipeline says what is wrong.
            return None
        if answer is None:
            return None
        if self._is_touched:
            services.uses.touch(self._key, self._key.versions[answer.version - 1])
        return Outcome(
            answer.result,
            draft=self._record(request, numbers, total, answer),
            check=request.check,
            seen=self.seen,
            needs_store=True,
        )

    def _is_short(self, payload: Payload) -> bool:
        return (
            self._is_quick
            and payload[1] <= INLINE_BYTES
            and payload[3] <= _MOST_QUICK_ITEMS
        )

    def _record(
        self,
        request: Request,
        numbers: tuple[int, ...],
        total: int,
        answer: Answer[Any],
    ) -> UseDraft:
        digest = ""
        if len(self._numbers) != len(numbers):
            rest = iter(numbers)
            numbers = tuple(next(rest) if n is None else n for n in self._numbers)
        if not answer.bound and total <= INLINE_BYTES:
            # See `Admission.bind`.
            given = {name: getattr(request.operation, name) for name in self._names}
            packed = wire.encode_packed(replace(self._operation, **given))
            digest = self._services.inventory.ring.payload_digest(packed)
        facts = self._facts.get(answer.version) or self._facts_of(answer.version)
        return UseDraft(
            facts=facts,
            request_id=request.caller.request_id,
            numbers=numbers,
            bound=answer.bound,
            digest=digest,
            detail=answer.detail,
        )

    def _facts_of(self, version: int) -> AuditFacts:
        """Return what all records of the plan share that use one version."""
        draft = self._draft
        return self._facts.setdefault(
            version,
            AuditFacts(
                kind=draft.kind,
                caller=draft.caller,
                key=draft.key,
                key_id=draft.key_id,
                version=version,
                generation=draft.generation,
                parameters={
                    name: None if isinstance(value, int) else value
                    for name, value in draft.parameters.items()
                },
                rule=draft.rule,
                policy=draft.policy,
            ),
        )


def _without_payload(
    context: RequestContext[Any], names: tuple[str, ...]
) -> RequestContext[Any]:
    """Return a use without anybody's payload; the header of an envelope stays."""
    operation, prepared = context.operation, context.prepared
    short: dict[str, Any] = dict.fromkeys(names, b"")
    if "ciphertext" in short:
        short["ciphertext"] = operation.ciphertext[:HEADER_BYTES]
    if "items" in short:
        short["items"], first = (), prepared[0]
        signs = isinstance(operation, ops.SignBatch)
        is_whole = signs and operation.items[0].message is not None
        is_ready = is_whole and isinstance(first, RequestContext)
        prepared = first.prepared if is_ready else []
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
        self._plans: dict[tuple[Any, ...], UsePlan] = {}

    def run(self, request: Request, *, at_once: bool = False) -> Outcome | None:
        """Take a request as far as its record by its plan; None if none can do it."""
        kind = _KINDS.get(type(request.operation))
        if kind is None or _options_of(request) != _NO_OPTIONS:
            return None
        operation, differs = request.operation, kind.differs
        try:
            slot = (
                facts_of(request.caller),
                type(operation),
                kind.fixed(operation),
                None if differs is None else differs(operation),
            )
            plan = self._plans.get(slot)
        except (AttributeError, LookupError, TypeError):
            return None  # Some field is not what it should be.
        if plan is None:
            return None
        for cell, value in plan.seen.marks:
            if cell.value is not value:
                self._plans.pop(slot, None)
                return None
        return plan.run(request, at_once=at_once)

    def learn(
        self, request: Request, context: RequestContext[Any], answer: Answer[Any]
    ) -> None:
        """Make a plan of a use that has succeeded, if it can be repeated by one."""
        operation = request.operation
        kind = _KINDS.get(type(operation))
        if kind is None or _options_of(request) != _NO_OPTIONS:
            return
        if context.demands or request.caller.single_use:
            return
        if context.policy.asks_for_the_time(type(operation).__name__):
            return
        handler = self._handlers[type(operation)]
        assert isinstance(handler, Handler)  # noqa: S101 (for the type checker)
        plan = UsePlan(self._services, handler, context, answer)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        differs = kind.differs
        self._plans[
            facts_of(request.caller),
            type(operation),
            kind.fixed(operation),
            None if differs is None else differs(operation),
        ] = plan

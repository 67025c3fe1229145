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
    AnyHandler,
    Handler,
    HandlerDependencies,
    Speed,
)
from hsm_core._internal.handlers.batches import BatchHandler
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.pipeline.outcome import Outcome
from hsm_core._internal.pipeline.plan_batches import batch_steps
from hsm_core._internal.pipeline.plan_payload import is_plain
from hsm_core._internal.pipeline.plan_work import steps_of
from hsm_core._json import bytes_fields
from hsm_core.algorithms import CiphertextEncoding
from hsm_core.model import Caller, Phase
from hsm_core.operations import Operation
from hsm_core.protocols import AuditDraft, AuditFacts, Request, UseDraft

_MOST_PLANS: Final = 4096
_SWEPT_PLANS: Final = 512
"""Number of new plans after which outdated plans are dropped."""

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


_ODD: Final = (AttributeError, LookupError, TypeError, ValueError)
"""Errors of a field of the wrong type, such as a bytearray, which can't be hashed."""

_OfCaller: TypeAlias = "dict[tuple[Any, ...], UsePlan]"
"""Plans of one caller, by operation without payload."""


class UsePlan:
    """
    A use of one form by one caller, as it was decided.

    Args:
        services: Dependencies of the handlers.

        handler: Of the operation.

        context: The use that succeeded.

    Attributes:
        seen: What must hold; else nothing here is right any more.
        run: Does it with another payload, given the request and whether it must be
            quick; None leaves it to the pipeline, wholly.
    """

    __slots__ = ("run", "seen")

    def __init__(
        self,
        services: HandlerDependencies,
        handler: Handler[Any, Any],
        context: RequestContext[Any],
    ) -> None:
        self.seen = context.seen
        self.run = _runner(services, handler, context)


def _runner(
    services: HandlerDependencies,
    handler: Handler[Any, Any],
    context: RequestContext[Any],
) -> Callable[[Request, bool], Outcome | None]:
    """Return `UsePlan.run`: one function, because each further call costs a tenth."""
    names = _given(context.operation)
    bare = _without_payload(context, names)
    if isinstance(handler, BatchHandler):
        steps = batch_steps(services, handler, bare)
    else:
        steps = steps_of(services, handler, bare, names)
    measure, work, is_counted, is_touched = steps
    is_quick = handler.speed_of(bare.operation) is Speed.QUICK
    key, seen, store = context.key, context.seen, services.inventory.store
    uses, now, monotonic = services.uses, services.clock.now, services.clock.monotonic
    take = uses.account_of(key, key.current_version).take
    record = _Records(services, context.draft(Phase.SINGLE), bare.operation, names)
    known, constants = record.facts, record.constants
    last_name = ""

    def run(request: Request, at_once: bool) -> Outcome | None:
        nonlocal last_name
        operation, caller = request.operation, request.caller
        payload = measure(operation)
        if payload is None:
            return None
        numbers, total, protected, items = payload
        if at_once and not (
            is_quick and total <= INLINE_BYTES and items <= _MOST_QUICK_ITEMS
        ):
            return None
        name = caller.request_id
        if name is not last_name:
            if not is_plain(name):
                return None
            last_name = name
        if caller.deadline and monotonic() > caller.deadline:
            return None
        if is_counted and not take(items, protected, now()):
            return None
        try:
            answer = work(operation)
        except Exception:  # The pipeline says what is wrong.
            return None
        if answer is None:
            return None
        version, bound, digest = answer.version, answer.bound, ""
        if is_touched:
            uses.touch(key, key.versions[version - 1])
        if constants:
            numbers = record.numbers(numbers)
        if not bound and total <= INLINE_BYTES:
            digest = record.digest(operation)
        facts = known.get(version) or record.facts_of(version)
        return Outcome(
            answer.result,
            None,
            UseDraft(facts, "ok", name, numbers, bound, digest, answer.detail),
            check=request.check,
            seen=seen,
            store=store,
        )

    return run


def _given(operation: Operation[Any]) -> tuple[str, ...]:
    """Return the fields of the payload that an operation has."""
    kind = _KINDS[type(operation)]
    return tuple(
        name
        for name in kind.payload
        if name not in kind.left_out or getattr(operation, name) != kind.left_out[name]
    )


class _Records:
    """
    Records of the uses of a plan.

    Args:
        services: Dependencies of the handlers.

        draft: The first one.

        operation: Without its payload.

        names: The fields of the payload.

    Attributes:
        facts: What all share that use one version, by its number.
        constants: Whether some integers are the same in all of them.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        draft: AuditDraft,
        operation: Operation[Any],
        names: tuple[str, ...],
    ) -> None:
        self._ring = services.inventory.ring
        self._draft, self._operation, self._names = draft, operation, names
        self.facts: dict[int, AuditFacts] = {}
        lengths = {name if name == "items" else f"{name}_bytes" for name in names}
        integers = {k: v for k, v in draft.parameters.items() if isinstance(v, int)}
        self._numbers = tuple(
            None if name in lengths else value for name, value in integers.items()
        )
        self.constants = any(number is not None for number in self._numbers)

    def numbers(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Return the integers of a use, given those that are its own."""
        rest = iter(lengths)
        return tuple(next(rest) if n is None else n for n in self._numbers)

    def digest(self, operation: Operation[Any]) -> str:
        """Return the digest of an operation; see `Admission.bind`."""
        given = {name: getattr(operation, name) for name in self._names}
        packed = wire.encode_packed(replace(self._operation, **given))
        return self._ring.payload_digest(packed)

    def facts_of(self, version: int) -> AuditFacts:
        """Return what all records share that use one version."""
        draft = self._draft
        return self.facts.setdefault(
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
        self._plans: dict[tuple[Any, ...], _OfCaller] = {}
        self._newest: tuple[Caller | None, _OfCaller] = None, {}
        self._learned = 0

    def run(self, request: Request, *, at_once: bool = False) -> Outcome | None:
        """Take a request as far as its record by its plan; None if none can do it."""
        operation = request.operation
        kind = _KINDS.get(type(operation))
        if kind is None or _options_of(request) != _NO_OPTIONS:
            return None
        fixed, differs, _, _ = kind
        try:
            newest, of_caller = self._newest
            # Where a program embeds the HSM, the same object asks again and again.
            if newest is not request.caller:
                of_caller = self._of(request.caller)
            slot = type(operation), fixed(operation), differs and differs(operation)
            plan = of_caller.get(slot)
        except _ODD:
            return None
        if plan is None:
            return None
        if not plan.seen.holds():
            of_caller.pop(slot, None)
            return None
        return plan.run(request, at_once)

    def _of(self, caller: Caller) -> _OfCaller:
        """Return the plans of one caller, to be looked at."""
        found = self._plans.get(facts_of(caller), {})
        if found:
            self._newest = caller, found
        return found

    def learn(self, request: Request, context: RequestContext[Any]) -> None:
        """Make a plan of a use that has succeeded, if it can be repeated by one."""
        operation = request.operation
        kind = _KINDS.get(type(operation))
        if kind is None or _options_of(request) != _NO_OPTIONS:
            return
        if context.demands or request.caller.single_use:
            return
        if context.policy.asks_for_the_time(type(operation).__name__):
            return
        differs = kind.differs
        try:
            slot = (
                type(operation),
                kind.fixed(operation),
                differs and differs(operation),
            )
            of_caller = self._plans.setdefault(facts_of(request.caller), {})
            known = of_caller.get(slot)
        except _ODD:
            return
        # A plan whose key was closed to make room is as good as a new one.
        if known is None or not known.seen.holds():
            handler = self._handlers[type(operation)]
            assert isinstance(handler, Handler)  # noqa: S101 (for the type checker)
            of_caller[slot] = UsePlan(self._services, handler, context)
            self._learned += 1
        self._newest = request.caller, of_caller
        if self._learned >= _SWEPT_PLANS:
            self._learned = 0
            self._sweep()

    def _sweep(self) -> None:
        """Drop the plans of revoked keys and the like; all, if there are too many."""
        living: dict[tuple[Any, ...], _OfCaller] = {}
        for facts, plans in self._plans.copy().items():
            held = {s: plan for s, plan in plans.copy().items() if plan.seen.holds()}
            if held:
                living[facts] = held
        if sum(map(len, living.values())) > _MOST_PLANS:
            living = {}
        self._plans, self._newest = living, (None, {})

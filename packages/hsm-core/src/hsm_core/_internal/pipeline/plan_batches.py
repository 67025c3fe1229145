# SPDX-License-Identifier: MIT
"""
Batches of plans: flat loops over the items.

Signatures, MACs and authenticated encryption have steps of their own here; every other
batch is prepared and performed by its handler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import (
    NONCE_BYTES,
    TAG_BYTES,
    Header,
    kind_of,
)
from hsm_core._internal.handlers.base import Answer, HandlerDependencies
from hsm_core._internal.handlers.batches import BatchHandler
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.pipeline.plan_payload import (
    Measure,
    Payload,
    is_plain,
    most_bytes,
)
from hsm_core._internal.pipeline.plan_work import NO_AEAD, Steps, Work
from hsm_core._json import item_types
from hsm_core.algorithms import Algorithm, Cost, spec
from hsm_core.model import KeyId
from hsm_core.operations import Operation
from hsm_core.protocols import KeyHandle, SignatureParameters
from hsm_core.settings import Limits

_MOST_ITEMS: Final = 1000


Made: TypeAlias = tuple[bytes, bytes]
"""What an item gives, and what its record is bound by."""


def _signed(item: Any, made: Made) -> ops.SignedItem:
    return ops.SignedItem(reference=item.reference, signature=made[0])


def _authenticated(item: Any, made: Made) -> ops.MacItem:
    return ops.MacItem(reference=item.reference, mac=made[0])


def _encrypted(item: Any, made: Made) -> ops.EncryptedItem:
    return ops.EncryptedItem(reference=item.reference, ciphertext=made[0])


_ANSWERS: Final[dict[type[ops.Operation[Any]], Callable[[Any, Made], Any]]] = {
    ops.SignBatch: _signed,
    ops.ComputeMacBatch: _authenticated,
    ops.EncryptBatch: _encrypted,
}
"""Answers to items, of the batches with steps of their own."""

Each: TypeAlias = Callable[[KeyHandle, Sequence[Any]], list[Made]]
"""Computes items."""


def batch_steps(
    services: HandlerDependencies, handler: BatchHandler, context: RequestContext[Any]
) -> Steps:
    """
    Return the steps of a plan of batches.

    Args:
        services: Dependencies of the handlers.

        handler: Of the operation.

        context: A batch that succeeded, without its payload.
    """
    operation, key, names = context.operation, context.key, handler.item_fields
    limits, each = services.settings.limits, _each_of(services, context)
    if each is None:
        measure = _measure_of(operation, names, (), limits)
        return Steps(measure, _handled_batch(services, handler, context))
    protects: tuple[str, ...] = getattr(handler.item_handler, "protects", ())
    only = "message" if isinstance(operation, ops.SignBatch) else ""
    opened = services.inventory.materials.opener(key, key.current_version)
    overdue, answer_of = services.overdue, _ANSWERS[type(operation)]

    def compute(sent: Any) -> Answer[Any] | None:
        held, items = opened(), sent.items
        if held is None or overdue.is_set():
            return None
        made = each(held.unguarded, items)
        bound = [sha256(binding).digest() for _, binding in made]
        answers = tuple(map(answer_of, items, made))
        return handler.answer(sent, key, answers, key.current, bound, failed=0)

    measure = _measure_of(operation, names, protects, limits, only)
    return Steps(measure, compute, is_counted=True)


def _handled_batch(
    services: HandlerDependencies,
    handler: BatchHandler,
    context: RequestContext[Any],
) -> Work:
    """Let the handler do a batch, of which it says itself how much is counted."""

    def compute(sent: Any) -> Answer[Any]:
        batch = replace(context.operation, items=sent.items)
        alone = replace(context, operation=batch, prepared=[])
        handler.prepare(alone)
        for use in handler.uses(alone):
            services.uses.take(use, at_once=True)
        return handler.perform(alone)

    return compute


def _each_of(
    services: HandlerDependencies, context: RequestContext[Any]
) -> Each | None:
    """Return the flat loop of a batch; None where the handler does it."""
    operation, key = context.operation, context.key
    if spec(Algorithm(key.algorithm)).use_cost is Cost.SLOW:
        return None  # Of these fewer are allowed at once.
    if isinstance(operation, ops.ComputeMacBatch):
        return _mac_each
    if isinstance(operation, ops.SignBatch) and context.prepared:
        return _sign_each(context.prepared[1])
    is_aead = spec(Algorithm(key.algorithm)).envelope_kind not in NO_AEAD
    if isinstance(operation, ops.EncryptBatch) and is_aead:
        return _seal_each(services, key)
    return None


def _mac_each(handle: KeyHandle, items: Sequence[Any]) -> list[Made]:
    made = [handle.mac(item.message) for item in items]
    return list(zip(made, made, strict=True))


def _sign_each(parameters: SignatureParameters) -> Each:
    def each(handle: KeyHandle, items: Sequence[Any]) -> list[Made]:
        sign = getattr(handle, "sign_again", handle.sign)
        made = [sign(item.message, parameters) for item in items]
        return list(zip(made, made, strict=True))

    return each


def _seal_each(services: HandlerDependencies, key: KeyDocument) -> Each:
    header = Header(kind_of(Algorithm(key.algorithm)), KeyId(key.key_id), key.current)
    start, bind, unbound = header.encode(), header.bind, header.bind(b"")
    random_bytes = services.entropy.random_bytes

    def each(handle: KeyHandle, items: Sequence[Any]) -> list[Made]:
        drawn, made, at = random_bytes(NONCE_BYTES * len(items)), [], 0
        seal = handle.seal
        for item in items:
            nonce, aad = drawn[at : at + NONCE_BYTES], item.aad
            at += NONCE_BYTES
            bound = bind(aad) if aad else unbound
            sealed = seal(nonce, item.plaintext, bound, start + nonce)
            size = len(sealed).to_bytes(8, "big")
            made.append((sealed, start + nonce + sealed[-TAG_BYTES:] + size))
        return made

    return each


def _measure_of(
    operation: Operation[Any],
    names: tuple[str, ...],
    protects: Collection[str],
    limits: Limits,
    only: str = "",
) -> Measure:
    """
    Return the measure of batches.

    Args:
        operation: One of them.

        names: The fields of their items that are payload.

        protects: `UseHandler.protects` of an item.

        limits: Sizes that the core accepts.

        only: The one field that every item has, where it may have one of several.
    """
    kind: Any = item_types(type(operation))["items"]
    left_out = set(names) - {only} if only else set(names) - _never_none(kind)
    rows = tuple(
        (name, most_bytes(name, limits), name in protects, name in left_out)
        for name in names
    )

    def measure(sent: Any) -> Payload | None:
        items, total, protected = sent.items, 0, 0
        if type(items) is not tuple or not 0 < len(items) <= _MOST_ITEMS:
            return None
        for item in items:
            if type(item) is not kind:
                return None
            if item.reference != "" and not is_plain(item.reference):
                return None
            for name, most, counts, may_miss in rows:
                data = getattr(item, name)
                if data is None and may_miss:
                    continue
                if type(data) is not bytes or len(data) > most or (only and may_miss):
                    return None
                total += len(data)
                if counts:
                    protected += len(data)
        if total > limits.payload_bytes:
            return None
        return (len(items),), total, protected, len(items)

    return measure


@cache
def _never_none(kind: type[Any]) -> frozenset[str]:
    fields = msgspec.structs.fields(kind)
    return frozenset(f.name for f in fields if f.default is not None)

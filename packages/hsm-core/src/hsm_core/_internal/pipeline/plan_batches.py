# SPDX-License-Identifier: MIT
"""
Batches of plans: flat loops over the items.

Signatures, MACs and authenticated encryption have steps of their own here; every other
batch is prepared and performed by its handler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache, partial
from itertools import repeat
from operator import add, attrgetter, itemgetter
from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import (
    HEADER_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Header,
    kind_of,
)
from hsm_core._internal.handlers.base import Answer, HandlerDependencies
from hsm_core._internal.handlers.batches import BatchHandler, hashes_of
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import permits
from hsm_core._internal.pipeline.plan_payload import (
    Measure,
    Payload,
    is_plain,
    most_bytes,
)
from hsm_core._internal.pipeline.plan_work import NO_AEAD, Steps, Work
from hsm_core._json import item_types
from hsm_core.algorithms import Algorithm, Cost, spec
from hsm_core.limits import Limits
from hsm_core.model import KeyId
from hsm_core.operations import Operation
from hsm_core.protocols import KeyHandle, SignatureParameters

_MOST_ITEMS: Final = 1000
_COMMITMENT: Final = Struct(f">{HEADER_BYTES + NONCE_BYTES}s{TAG_BYTES}sQ")
"""See `ciphertexts.commitment`."""

_tag_of: Final = itemgetter(slice(-TAG_BYTES, None))
_EMPTY: Final = b""
_TEXT: Final = frozenset({bytes})
_ABSENT: Final = frozenset({type(None)})

Each: TypeAlias = Callable[[KeyHandle, Sequence[Any]], tuple[tuple[Any, ...], bytes]]
"""Returns the answers to items, and the bytes that their record binds."""


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
        handled = _handled_batch(services, handler, context)
        opening = _opening(services, handler, context, handled)
        return Steps(measure, opening or handled)
    protects: tuple[str, ...] = getattr(handler.item_handler, "protects", ())
    only = "message" if isinstance(operation, ops.SignBatch) else ""
    opened = services.inventory.materials.opener(key, key.current_version)
    overdue = services.overdue

    def compute(sent: Any) -> Answer[Any] | None:
        held = opened()
        if held is None or overdue.is_set():
            return None
        answers, bound = each(held.unguarded, sent.items)
        return handler.answer(sent, key, answers, key.current, bound, failed=0)

    if isinstance(operation, ops.EncryptBatch):
        measure = _measure_of_encryption(limits)
    else:
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


def _opening(
    services: HandlerDependencies,
    handler: BatchHandler,
    context: RequestContext[Any],
    otherwise: Work,
) -> Work | None:
    """Return the flat loop of decryption; None where the handler does all of it."""
    operation, key = context.operation, context.key
    algorithm, version = Algorithm(key.algorithm), key.current_version
    if not isinstance(operation, ops.DecryptBatch):
        return None
    if spec(algorithm).envelope_kind in NO_AEAD:
        return None
    if not permits(version.state, "Decrypt", revoked_allowed=False):
        return None
    opened = services.inventory.materials.opener(key, version)
    header = Header(kind_of(algorithm), KeyId(key.key_id), key.current)
    start, each, overdue = header.encode(), _open_each(header), services.overdue

    def compute(sent: Any) -> Answer[Any] | None:
        for item in sent.items:
            if not item.ciphertext.startswith(start):
                return otherwise(sent)
        held = opened()
        if held is None or overdue.is_set():
            return None
        answers, bound = each(held.unguarded, sent.items)
        services.uses.touch(key, version)
        return handler.answer(sent, key, answers, key.current, bound, failed=0)

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


def _mac_each(handle: KeyHandle, items: Sequence[Any]) -> tuple[tuple[Any, ...], bytes]:
    made = [handle.mac(item.message) for item in items]
    answers = [
        ops.MacItem(reference=item.reference, mac=mac)
        for item, mac in zip(items, made, strict=True)
    ]
    return tuple(answers), hashes_of(made)


def _sign_each(parameters: SignatureParameters) -> Each:
    def each(handle: KeyHandle, items: Sequence[Any]) -> tuple[tuple[Any, ...], bytes]:
        sign = getattr(handle, "sign_again", handle.sign)
        made = [sign(item.message, parameters) for item in items]
        answers = [
            ops.SignedItem(reference=item.reference, signature=signature)
            for item, signature in zip(items, made, strict=True)
        ]
        return tuple(answers), hashes_of(made)

    return each


def _seal_each(services: HandlerDependencies, key: KeyDocument) -> Each:
    header = Header(kind_of(Algorithm(key.algorithm)), KeyId(key.key_id), key.current)
    start, bind, unbound = header.encode(), header.bind, header.bind(b"")
    random_bytes, answer = services.entropy.random_bytes, ops.EncryptedItem

    def each(handle: KeyHandle, items: Sequence[Any]) -> tuple[tuple[Any, ...], bytes]:
        drawn = random_bytes(NONCE_BYTES * len(items))
        nonces = _nonces(len(items)).unpack(drawn)
        starts = list(map(add, repeat(start), nonces))
        bounds = [bind(item.aad) if item.aad else unbound for item in items]
        texts = [item.plaintext for item in items]
        # Providers of others need not have it.
        seal_each = getattr(handle, "seal_each", None) or partial(map, handle.seal)
        made = list(seal_each(nonces, texts, bounds, starts))
        answers = [
            answer(reference=item.reference, ciphertext=sealed)
            for item, sealed in zip(items, made, strict=True)
        ]
        return tuple(answers), _commitments(starts, made)

    return each


def _open_each(header: Header) -> Each:
    bind, unbound, version = header.bind, header.bind(b""), header.version
    body = HEADER_BYTES + NONCE_BYTES

    def each(handle: KeyHandle, items: Sequence[Any]) -> tuple[tuple[Any, ...], bytes]:
        given = [item.ciphertext for item in items]
        starts = [envelope[:body] for envelope in given]
        nonces = [start[HEADER_BYTES:] for start in starts]
        bodies = [memoryview(envelope)[body:] for envelope in given]
        bounds = [bind(item.aad) if item.aad else unbound for item in items]
        # Providers of others need not have it. One that can't be opened ends the plan.
        open_each = getattr(handle, "open_each", None) or partial(map, handle.open)
        texts = list(open_each(nonces, bodies, bounds))
        answers = [
            ops.DecryptedItem(reference=item.reference, version=version, plaintext=text)
            for item, text in zip(items, texts, strict=True)
        ]
        return tuple(answers), _commitments(starts, given)

    return each


@lru_cache(maxsize=16)
def _nonces(number: int) -> Struct:
    return Struct(f"{NONCE_BYTES}s" * number)


def _commitments(starts: Sequence[bytes], envelopes: Sequence[bytes]) -> bytes:
    """Return the `ciphertexts.commitment` of each envelope, given its start; joined."""
    ends = map(_tag_of, envelopes)
    sizes = set(map(len, envelopes))
    if len(sizes) == 1:
        size = sizes.pop().to_bytes(8, "big")
        return size.join(map(add, starts, ends)) + size
    return b"".join(map(_COMMITMENT.pack, starts, ends, map(len, envelopes)))


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
    given = {only} if only else _never_none(kind)
    rest = _ABSENT if only else _TEXT | _ABSENT
    columns = tuple(
        (
            attrgetter(name),
            _TEXT if name in given else rest,
            most_bytes(name, limits),
            name in protects,
        )
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
        for field_of, types, most, counts in columns:
            column = list(map(field_of, items))
            if not types.issuperset(map(type, column)):
                return None
            lengths = list(map(len, filter(None, column)))
            if max(lengths, default=0) > most:
                return None
            total += sum(lengths)
            if counts:
                protected += sum(lengths)
        if total > limits.payload_bytes:
            return None
        return (len(items),), total, protected, len(items)

    return measure


def _measure_of_encryption(limits: Limits) -> Measure:
    """Return the same for authenticated encryption, in one loop."""
    kind, most_aad = ops.EncryptItem, limits.aad_bytes

    def measure(sent: Any) -> Payload | None:
        items, protected, rest = sent.items, 0, 0
        if type(items) is not tuple or not 0 < len(items) <= _MOST_ITEMS:
            return None
        for item in items:
            if type(item) is not kind:
                return None
            text, aad = item.plaintext, item.aad
            if type(text) is not bytes:
                return None
            if item.reference != "" and not is_plain(item.reference):
                return None
            protected += len(text)
            # Most have none, and there is one empty byte string.
            if aad is not _EMPTY:
                if type(aad) is not bytes or len(aad) > most_aad:
                    return None
                rest += len(aad)
        if protected + rest > limits.payload_bytes:
            return None
        return (len(items),), protected + rest, protected, len(items)

    return measure


@cache
def _never_none(kind: type[Any]) -> frozenset[str]:
    fields = msgspec.structs.fields(kind)
    return frozenset(f.name for f in fields if f.default is not None)

# SPDX-License-Identifier: MIT
"""
Computation of plans: what is left of a use when all but its payload is known.

Signatures, MACs and authenticated encryption have steps of their own here, alone and in
batches; every other use is prepared and performed by its handler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import (
    HEADER_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Header,
    commitment_around,
    kind_of,
)
from hsm_core._internal.crypto.parameters import MU_BYTES
from hsm_core._internal.handlers.base import Answer, Handler, HandlerDependencies
from hsm_core._internal.handlers.batches import BatchHandler
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.pipeline.plan_payload import (
    Measure,
    batch_measure_of,
    measure_of,
)
from hsm_core.algorithms import Algorithm, Cost, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.model import KeyId
from hsm_core.protocols import KeyHandle, SignatureParameters

Work: TypeAlias = Callable[[Any], Answer[Any] | None]
"""Computes an operation of the plan's form; None where its key is not open."""

_NO_AEAD: Final = frozenset({0, KEM_ENVELOPE, RSAES_OAEP})


class Steps(NamedTuple):
    """
    How a plan is run.

    Attributes:
        is_counted: Whether each use is counted, before the work.
        is_touched: Whether it is noted when a version was used, after the work.
    """

    measure: Measure
    work: Work
    is_counted: bool = False
    is_touched: bool = False


def steps_of(
    services: HandlerDependencies,
    handler: Handler[Any, Any],
    context: RequestContext[Any],
    names: tuple[str, ...],
) -> Steps:
    """
    Return the steps of a plan.

    Args:
        services: Dependencies of the handlers.

        handler: Of the operation.

        context: A use that succeeded, without its payload.

        names: The fields of the payload.
    """
    if isinstance(handler, BatchHandler):
        return _batch_steps(services, handler, context)
    protects = getattr(handler, "protects", ())
    measure = measure_of(names, protects, services.settings.limits)
    work = _special(services, context) or _handled(handler, context, names)
    return Steps(measure, work, bool(protects), not protects)


def _special(
    services: HandlerDependencies, context: RequestContext[Any]
) -> Work | None:
    """Return the steps of an operation that needs no handler."""
    operation, key = context.operation, context.key
    if isinstance(operation, ops.Sign):
        return _signing(services, key, operation, context.prepared[1])
    if isinstance(operation, ops.ComputeMac):
        return _mac(services, key)
    if spec(Algorithm(key.algorithm)).envelope_kind in _NO_AEAD:
        return None
    if isinstance(operation, ops.Encrypt):
        return _encryption(services, key)
    if isinstance(operation, ops.Decrypt):
        return _decryption(services, key, operation.ciphertext)
    return None


def _signing(
    services: HandlerDependencies,
    key: KeyDocument,
    operation: ops.Sign,
    parameters: SignatureParameters,
) -> Work:
    opened = services.inventory.materials.opener(key, key.current_version)
    algorithm, current = Algorithm(key.algorithm), key.current
    field, size = "message", 0
    if parameters.prehashed:
        field, size = "digest", parameters.hash.digest_bytes
    elif parameters.external_mu:
        field, size = "mu", MU_BYTES

    def compute(sent: Any) -> Answer[ops.Signature] | None:
        held, data = opened(), getattr(sent, field)
        if held is None or (size and len(data) != size):
            return None
        handle = held.unguarded
        # Providers of others need not have it.
        sign = getattr(handle, "sign_again", None) or handle.sign
        signature = sign(data, parameters)
        result = ops.Signature(
            key_id=key.key_id,
            version=current,
            algorithm=algorithm,
            scheme=parameters.scheme,
            signature=signature,
            hash=operation.hash,
            encoding=operation.encoding,
        )
        return Answer(result, current, bound=signature)

    return compute


def _mac(services: HandlerDependencies, key: KeyDocument) -> Work:
    opened = services.inventory.materials.opener(key, key.current_version)
    algorithm, current = Algorithm(key.algorithm), key.current

    def compute(sent: Any) -> Answer[ops.Mac] | None:
        held = opened()
        if held is None:
            return None
        mac = held.unguarded.mac(sent.message)
        result = ops.Mac(
            key_id=key.key_id, version=current, algorithm=algorithm, mac=mac
        )
        return Answer(result, current, bound=mac)

    return compute


def _encryption(services: HandlerDependencies, key: KeyDocument) -> Work:
    opened = services.inventory.materials.opener(key, key.current_version)
    algorithm, current = Algorithm(key.algorithm), key.current
    header = Header(kind_of(algorithm), KeyId(key.key_id), current)
    start, bind = header.encode(), header.bind
    random_bytes = services.entropy.random_bytes
    unbound = header.bind(b"")

    def compute(sent: Any) -> Answer[ops.Ciphertext] | None:
        held = opened()
        if held is None:
            return None
        nonce, aad = random_bytes(NONCE_BYTES), sent.aad
        bound = bind(aad) if aad else unbound
        seal = held.unguarded.seal
        ciphertext = seal(nonce, sent.plaintext, bound, start + nonce)
        result = ops.Ciphertext(
            key_id=key.key_id, version=current, ciphertext=ciphertext
        )
        size = len(ciphertext).to_bytes(8, "big")
        tag = ciphertext[-TAG_BYTES:]
        return Answer(result, current, bound=start + nonce + tag + size)

    return compute


def _decryption(
    services: HandlerDependencies, key: KeyDocument, envelope: bytes
) -> Work:
    number = int.from_bytes(envelope[22:26], "big")
    opened = services.inventory.materials.opener(key, key.versions[number - 1])
    algorithm = Algorithm(key.algorithm)
    header = Header(kind_of(algorithm), KeyId(key.key_id), number)
    bind, body = header.bind, HEADER_BYTES + NONCE_BYTES
    unbound = header.bind(b"")

    def compute(sent: Any) -> Answer[ops.Plaintext] | None:
        held, whole, aad = opened(), sent.ciphertext, sent.aad
        if held is None:
            return None
        plaintext = held.unguarded.open(
            whole[HEADER_BYTES:body],
            memoryview(whole)[body:],
            bind(aad) if aad else unbound,
        )
        result = ops.Plaintext(key_id=key.key_id, version=number, plaintext=plaintext)
        return Answer(result, number, bound=commitment_around(body, whole))

    return compute


def _handled(
    handler: Handler[Any, Any], context: RequestContext[Any], names: tuple[str, ...]
) -> Work:
    """Let the handler do it, for a key that is resolved and a caller who may."""
    operation = context.operation

    def compute(sent: Any) -> Answer[Any]:
        given = {name: getattr(sent, name) for name in names}
        alone = replace(context, operation=replace(operation, **given), prepared=[])
        handler.prepare(alone)
        return handler.perform(alone)

    return compute


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


def _batch_steps(
    services: HandlerDependencies, handler: BatchHandler, context: RequestContext[Any]
) -> Steps:
    operation, key, names = context.operation, context.key, handler.item_fields
    limits, each = services.settings.limits, _each_of(services, context)
    if each is None:
        measure = batch_measure_of(operation, names, (), limits)
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

    measure = batch_measure_of(operation, names, protects, limits, only)
    return Steps(measure, compute, is_counted=True)


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
    is_aead = spec(Algorithm(key.algorithm)).envelope_kind not in _NO_AEAD
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

# SPDX-License-Identifier: MIT
"""
Computation of plans: what is left of a use when all but its payload is known.

Signatures, MACs and authenticated encryption have steps of their own here; every other
use is prepared and performed by its handler. Batches are in `plan_batches`.
"""

from __future__ import annotations

from collections.abc import Callable
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
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.pipeline.plan_payload import Measure, measure_of
from hsm_core.algorithms import Algorithm, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.model import KeyId
from hsm_core.protocols import SignatureParameters

Work: TypeAlias = Callable[[Any], Answer[Any] | None]
"""Computes an operation of the plan's form; None where its key is not open."""

NO_AEAD: Final = frozenset({0, KEM_ENVELOPE, RSAES_OAEP})
"""Kinds of envelopes of keys that are not of an AEAD."""


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
    Return the steps of a plan of single uses.

    Args:
        services: Dependencies of the handlers.

        handler: Of the operation.

        context: A use that succeeded, without its payload.

        names: The fields of the payload.
    """
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
    if spec(Algorithm(key.algorithm)).envelope_kind in NO_AEAD:
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
    key_id = key.key_id
    header = Header(kind_of(algorithm), KeyId(key_id), current)
    start, bind = header.encode(), header.bind
    random_bytes = services.entropy.random_bytes
    unbound = header.bind(b"")

    def compute(sent: Any) -> Answer[ops.Ciphertext] | None:
        held = opened()
        if held is None:
            return None
        nonce, aad = random_bytes(NONCE_BYTES), sent.aad
        head = start + nonce
        sealed = held.unguarded.seal(
            nonce, sent.plaintext, bind(aad) if aad else unbound, head
        )
        result = ops.Ciphertext(key_id=key_id, version=current, ciphertext=sealed)
        commitment = head + sealed[-TAG_BYTES:] + len(sealed).to_bytes(8, "big")
        return Answer(result, current, bound=commitment)

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

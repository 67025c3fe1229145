# SPDX-License-Identifier: MIT
"""
Computation of plans: what is left of a use when all but its payload is known.

Signatures, MACs and authenticated encryption have steps of their own here; every other
use is prepared and performed by its handler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import (
    HEADER_BYTES,
    NONCE_BYTES,
    Header,
    commitment,
    kind_of,
)
from hsm_core._internal.crypto.parameters import MU_BYTES
from hsm_core._internal.handlers.base import Answer, HandlerDependencies, UseHandler
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core.algorithms import Algorithm, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.model import KeyId
from hsm_core.protocols import SignatureParameters

Work: TypeAlias = Callable[[Any], Answer[Any] | None]
"""Computes an operation of the plan's form; None where its key is not open."""


def work_of(
    services: HandlerDependencies,
    handler: UseHandler[Any, Any],
    context: RequestContext[Any],
    payload: tuple[str, ...],
) -> Work:
    """
    Return the computation of a plan.

    Args:
        services: Dependencies of the handlers.

        handler: Of the operation.

        context: A use that succeeded, without its payload.

        payload: The fields that make the payload.
    """
    operation, key = context.operation, context.key
    if isinstance(operation, ops.Sign):
        return _signing(services, context)
    if isinstance(operation, ops.ComputeMac):
        return _mac(services, key)
    is_aead = spec(Algorithm(key.algorithm)).envelope_kind not in {
        KEM_ENVELOPE,
        RSAES_OAEP,
    }
    if isinstance(operation, ops.Encrypt) and is_aead:
        return _encryption(services, key)
    if isinstance(operation, ops.Decrypt) and is_aead:
        return _decryption(services, key, operation.ciphertext)
    return _handled(handler, context, payload)


def _signing(services: HandlerDependencies, context: RequestContext[ops.Sign]) -> Work:
    operation, key, current = context.operation, context.key, context.key.current
    opened = services.inventory.materials.opener(key, key.current_version)
    parameters: SignatureParameters = context.prepared[1]
    algorithm, scheme = Algorithm(key.algorithm), parameters.scheme
    field, size = "message", 0
    if parameters.prehashed:
        field, size = "digest", parameters.hash.digest_bytes
    elif parameters.external_mu:
        field, size = "mu", MU_BYTES

    def compute(sent: ops.Sign) -> Answer[ops.Signature] | None:
        handle, data = opened(), getattr(sent, field)
        if handle is None or (size and len(data) != size):
            return None
        # Providers of others need not have it.
        sign = getattr(handle, "sign_again", handle.sign)
        signature = sign(data, parameters)
        result = ops.Signature(
            key_id=key.key_id,
            version=current,
            algorithm=algorithm,
            scheme=scheme,
            signature=signature,
            hash=operation.hash,
            encoding=operation.encoding,
        )
        return Answer(result, current, bound=signature)

    return compute


def _mac(services: HandlerDependencies, key: KeyDocument) -> Work:
    opened = services.inventory.materials.opener(key, key.current_version)
    algorithm, current = Algorithm(key.algorithm), key.current

    def compute(sent: ops.ComputeMac) -> Answer[ops.Mac] | None:
        handle = opened()
        if handle is None:
            return None
        mac = handle.mac(sent.message)
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

    def encrypt(sent: ops.Encrypt) -> Answer[ops.Ciphertext] | None:
        handle = opened()
        if handle is None:
            return None
        nonce, aad = random_bytes(NONCE_BYTES), sent.aad
        bound = bind(aad) if aad else unbound
        ciphertext = handle.seal(nonce, sent.plaintext, bound, start + nonce)
        result = ops.Ciphertext(
            key_id=key.key_id, version=current, ciphertext=ciphertext
        )
        return Answer(result, current, bound=commitment(algorithm, ciphertext))

    return encrypt


def _decryption(
    services: HandlerDependencies, key: KeyDocument, envelope: bytes
) -> Work:
    start = envelope[:HEADER_BYTES]
    number = int.from_bytes(start[22:26], "big")
    opened = services.inventory.materials.opener(key, key.versions[number - 1])
    algorithm = Algorithm(key.algorithm)
    header = Header(kind_of(algorithm), KeyId(key.key_id), number)
    bind, body = header.bind, HEADER_BYTES + NONCE_BYTES
    unbound = header.bind(b"")

    def decrypt(sent: ops.Decrypt) -> Answer[ops.Plaintext] | None:
        handle, whole, aad = opened(), sent.ciphertext, sent.aad
        if handle is None:
            return None
        plaintext = handle.open(
            whole[HEADER_BYTES:body],
            memoryview(whole)[body:],
            bind(aad) if aad else unbound,
        )
        result = ops.Plaintext(key_id=key.key_id, version=number, plaintext=plaintext)
        return Answer(result, number, bound=commitment(algorithm, whole))

    return decrypt


def _handled(
    handler: UseHandler[Any, Any],
    context: RequestContext[Any],
    payload: tuple[str, ...],
) -> Work:
    """Let the handler do it, for a key that is resolved and a caller who may."""
    operation = context.operation

    def perform(sent: Any) -> Answer[Any]:
        given = {name: getattr(sent, name) for name in payload}
        alone = replace(context, operation=replace(operation, **given), prepared=[])
        handler.prepare(alone)
        return handler.perform(alone)

    return perform

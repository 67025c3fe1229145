# SPDX-License-Identifier: MIT
"""Batches: many items of one operation with one key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    PUBLIC_USAGES,
    Answer,
    Handler,
    HandlerDependencies,
    Speed,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.encryption import DecryptHandler, EncryptHandler
from hsm_core._internal.handlers.signatures import (
    ComputeMacHandler,
    SignHandler,
    VerifyHandler,
    VerifyMacHandler,
)
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.keyring.versions import check_usage, is_short_walk
from hsm_core._json import item_types
from hsm_core.algorithms import Algorithm, AlgorithmSpec, Cost, Family, spec
from hsm_core.errors import (
    DecryptionError,
    HSMError,
    InputSizeError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    PayloadTooLargeError,
    UnavailableError,
    VerificationError,
)
from hsm_core.limits import CIPHERTEXT_OVERHEAD_BYTES
from hsm_core.model import BatchDetail, Record
from hsm_core.operations import result_type

_QUICK_ITEMS: Final = 8
"""
Maximum batch size that the event loop computes inline, for microsecond algorithms.
"""

MAX_SLOW_ITEMS: Final = 100
"""Maximum batch size for algorithms that take 0.1 to 1 second per item."""

AnyBatch: TypeAlias = (
    ops.SignBatch
    | ops.VerifyBatch
    | ops.EncryptBatch
    | ops.DecryptBatch
    | ops.ComputeMacBatch
    | ops.VerifyMacBatch
)
_NOTHING: Final = bytes(32)
"""In the place of an item that was answered with an error."""

Item: TypeAlias = RequestContext[Any] | ops.ItemError
"""Item of a batch that passed the checks of a single operation, or its error."""


class BatchHandler(Handler[AnyBatch, Record]):
    """
    Handler of a batch over the handler of one of its items.

    An item as a single operation takes its fields from the item and from the batch; the
    answer to an item takes its fields from the result of the single operation.

    Attributes:
        batch: Operation.
        kind: Operation of one item.
        single: Handler of one item.
        private: Whether the private half of the key computes.
        overhead_bytes: What an item may be longer than a payload.
        own_faults: Errors that are about the item, whatever field they name.
        hashes_items: Whether its record is bound by the hashes of what items are bound
            by, or by all of that.
        item_handler: Handler of one item.
        item_fields: Fields of an item that are its payload.
        item_answer: Type of the answer to an item.
    """

    batch: ClassVar[type[AnyBatch]]
    kind: ClassVar[type[ops.Operation[Any]]]
    single: ClassVar[type[Handler[Any, Any]]]
    private: ClassVar[bool] = True
    overhead_bytes: ClassVar[int] = 0
    hashes_items: ClassVar[bool] = True
    own_faults: ClassVar[tuple[type[HSMError], ...]] = (
        VerificationError,
        DecryptionError,
    )

    def __init__(self, services: HandlerDependencies) -> None:
        super().__init__(services)
        self.item_handler = self.single(services)
        self._result: type[Record] = result_type(self.batch)
        self.item_answer = item_types(self._result)["items"]
        item = item_types(self.batch)["items"].__struct_fields__
        self.item_fields = tuple(name for name in item if name != "reference")
        self._shared = set(self.batch.__struct_fields__) - {"items"}
        self._answered = set(self.item_answer.__struct_fields__) - {
            "reference",
            "error",
        }

    def prepare(self, context: RequestContext[AnyBatch], /) -> None:
        """Check the total size and the key, then each item alone."""
        batch = context.operation
        self._check_total(batch)
        check_usage(context.key, batch.usage)
        self._check_number(batch, context.spec)
        context.prepared = list(self._prepared(context))

    def _prepared(self, context: RequestContext[AnyBatch]) -> Iterator[Item]:
        shared = {name: getattr(context.operation, name) for name in self._shared}
        for item in context.operation.items:
            own = {name: getattr(item, name) for name in self.item_fields}
            single = self.item_handler.resolve(
                self.kind(**shared, **own), context.document
            )
            alone = RequestContext(
                context.caller, single, context.policy, document=context.document
            )
            try:
                self.item_handler.prepare(alone)
            except HSMError as error:
                yield self._fault(error)
            else:
                yield alone

    def uses(self, context: RequestContext[AnyBatch], /) -> Sequence[Use]:
        """Return the sum of what the items take that will be computed."""
        taken = [
            use for alone in _good(context) for use in self.item_handler.uses(alone)
        ]
        if not taken:
            return ()
        first = taken[0]
        size = sum(use.size for use in taken)
        return (Use(first.key, first.version, sum(u.uses for u in taken), size),)

    def perform(self, context: RequestContext[AnyBatch], /) -> Answer[Record]:
        """
        Compute every item; their order is that of the answers.

        Raises:
            UnavailableError: The HSM is being closed, and does not wait for the rest.
        """
        batch, key = context.operation, context.key
        sent: Sequence[Any] = batch.items
        items: list[msgspec.Struct] = []
        versions: set[int] = set()
        failed, bound = 0, list[bytes]()
        bind = hashes_of if self.hashes_items else b"".join
        for item, ready in zip(sent, context.prepared, strict=True):
            if self._services.overdue.is_set():
                raise UnavailableError("The HSM is closed.")
            answer = self._performed(ready)
            if isinstance(answer, ops.ItemError):
                failed += 1
                bound.append(_NOTHING)
                items.append(self.item_answer(reference=item.reference, error=answer))
                continue
            versions.add(answer.version)
            bound.append(bind([answer.bound]))
            facts = {name: getattr(answer.result, name) for name in self._answered}
            items.append(self.item_answer(reference=item.reference, **facts))
        self._touch(key, versions)
        version = versions.pop() if len(versions) == 1 else 0
        whole = b"".join(bound)
        return self.answer(batch, key, tuple(items), version, whole, failed=failed)

    def answer(
        self,
        batch: AnyBatch,
        key: KeyDocument,
        items: tuple[Any, ...],
        version: int,
        bound: bytes,
        *,
        failed: int,
    ) -> Answer[Record]:
        """
        Return the answer to a batch.

        Args:
            batch: As it was sent.

            key: Its key.

            items: The answers to its items.

            version: The one that all of them used; 0 for several.

            bound: What all its items are bound by.

            failed: How many items have an error.
        """
        whole = {
            "key_id": key.key_id,
            "version": key.current,
            "algorithm": Algorithm(key.algorithm),
            "items": items,
        }
        known = {name: whole[name] for name in self._result.__struct_fields__}
        return Answer(
            self._result(**known),
            version,
            BatchDetail(count=len(items), failed=failed),
            bound=bound,
        )

    def _performed(self, ready: Item) -> Answer[Any] | ops.ItemError:
        if isinstance(ready, ops.ItemError):
            return ready
        try:
            return self.item_handler.perform(ready)
        except HSMError as error:
            return self._fault(error)

    def _fault(self, error: HSMError) -> ops.ItemError:
        """Return what an item is answered with; an error of the whole is raised."""
        is_input = isinstance(error, InvalidInputError)
        if is_input and error.facts.get("field") in self.item_fields:
            return _item_error(error)
        if isinstance(error, self.own_faults):
            return _item_error(error)
        raise error

    def _check_total(self, batch: AnyBatch) -> None:
        limit = self._services.settings.limits.payload_bytes
        limit += len(batch.items) * self.overhead_bytes
        total = self.payload_bytes(batch)
        if total > limit:
            raise PayloadTooLargeError("items", actual=total, maximum=limit)

    def _check_number(self, batch: AnyBatch, row: AlgorithmSpec) -> None:
        """Refuse what would keep one of the few slow threads for minutes."""
        number = len(batch.items)
        slow = row.use_cost is Cost.SLOW and self.private
        if slow and number > MAX_SLOW_ITEMS:
            raise InputSizeError(
                "items", actual=number, maximum=MAX_SLOW_ITEMS, unit="items"
            )

    def _touch(self, key: KeyDocument, versions: Iterable[int]) -> None:
        for version in map(key.version, versions):
            if version is not None:
                self._services.uses.touch(key, version)

    def speed_of(self, operation: AnyBatch, /) -> Speed:
        """Return quick only if it is small, and the algorithm takes microseconds."""
        if self._is_slow_use(operation):
            return Speed.SLOW
        document = self._services.inventory.known(operation.key_id)
        if document is None or len(operation.items) > _QUICK_ITEMS:
            return Speed.POOLED
        version = getattr(operation, "version", None)
        is_short = self.private or is_short_walk(document, version)
        if spec(Algorithm(document.algorithm)).is_pqc or not is_short:
            return Speed.POOLED
        return self._speed_of_use(operation, self.payload_bytes(operation))

    def payload_bytes(self, operation: AnyBatch, /) -> int:
        """Return the length of all byte strings of all items."""
        return _bytes_of(operation.items, self.item_fields)

    def weight(self, operation: AnyBatch, /) -> int:
        """Return the sum of the items' weights; no key has to be read."""
        speed, algorithm = Speed.QUICK, self._algorithm_of(operation)
        if self._is_slow_use(operation):
            speed = Speed.SLOW
        elif algorithm is not None and operation.usage not in PUBLIC_USAGES:
            is_rsa = spec(algorithm).family is Family.RSA
            speed = Speed.POOLED if is_rsa else Speed.QUICK
        return speed * len(operation.items)


def hashes_of(bindings: Iterable[bytes]) -> bytes:
    """Return the SHA-256 digests of what items are bound by, joined."""
    return b"".join([sha256(binding).digest() for binding in bindings])


def _good(context: RequestContext[Any]) -> Iterator[RequestContext[Any]]:
    """Return the items that passed their own checks."""
    return (ready for ready in context.prepared if isinstance(ready, RequestContext))


def _item_error(error: HSMError) -> ops.ItemError:
    return ops.ItemError(code=error.code, detail=str(error))


def _bytes_of(items: Iterable[Record], fields: Iterable[str]) -> int:
    """Return the length of all byte strings of all items."""
    found = (getattr(item, name) for item in items for name in fields)
    # What is no byte string is refused later; here an operation is not checked yet.
    return sum(len(data) for data in found if isinstance(data, bytes))


@handles(ops.SignBatch)
class SignBatchHandler(BatchHandler):
    """Sign many messages."""

    batch, kind, single = ops.SignBatch, ops.Sign, SignHandler


@handles(ops.VerifyBatch)
class VerifyBatchHandler(BatchHandler):
    """Check many signatures."""

    batch, kind, single = ops.VerifyBatch, ops.Verify, VerifyHandler
    private = False


@handles(ops.EncryptBatch)
class EncryptBatchHandler(BatchHandler):
    """Encrypt many plaintexts."""

    batch, kind, single = ops.EncryptBatch, ops.Encrypt, EncryptHandler
    hashes_items = False


@handles(ops.DecryptBatch)
class DecryptBatchHandler(BatchHandler):
    """Decrypt many envelopes, each with the version that it names."""

    batch, kind, single = ops.DecryptBatch, ops.Decrypt, DecryptHandler
    overhead_bytes = CIPHERTEXT_OVERHEAD_BYTES
    hashes_items = False
    own_faults = (DecryptionError, KeyNotFoundError, KeyStateError)


@handles(ops.ComputeMacBatch)
class ComputeMacBatchHandler(BatchHandler):
    """Compute many MACs."""

    batch, kind, single = ops.ComputeMacBatch, ops.ComputeMac, ComputeMacHandler


@handles(ops.VerifyMacBatch)
class VerifyMacBatchHandler(BatchHandler):
    """Check many MACs."""

    batch, kind, single = ops.VerifyMacBatch, ops.VerifyMac, VerifyMacHandler
    private = False

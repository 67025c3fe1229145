# SPDX-License-Identifier: MIT
"""Batches: many items of one operation with one key."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core._internal.handlers.base import (
    POOLED_WEIGHT,
    PUBLIC_USAGES,
    QUICK_WEIGHT,
    SLOW_WEIGHT,
    Answer,
    Handler,
    HandlerDependencies,
    handles,
    is_quick_use,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.encryption import DecryptHandler, EncryptHandler
from hsm_core._internal.handlers.macs import ComputeMacHandler, VerifyMacHandler
from hsm_core._internal.handlers.signatures import SignHandler, VerifyHandler
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.keyring.versions import check_usage, is_short_walk
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
from hsm_core.model import BatchDetail, Record
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES

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
BatchT = TypeVar("BatchT", bound=AnyBatch)
ItemT = TypeVar("ItemT", bound=Record)
SingleT = TypeVar("SingleT", bound=ops.Operation[Any])
ResultT = TypeVar("ResultT")
AnsweredT = TypeVar("AnsweredT", bound="_Answered")
AnswersT = TypeVar("AnswersT")


class _Answered(Protocol):
    """Answer to one item."""

    @property
    def error(self) -> ops.ItemError | None:
        """What was wrong with it, if anything."""
        ...


class BatchHandler(
    Handler[BatchT, AnswersT],
    Generic[BatchT, ItemT, SingleT, ResultT, AnsweredT, AnswersT],
):
    """
    Handler of a batch over the handler of one of its items.

    Attributes:
        single: Class of that handler.
        fields: Fields of an item that an error may be about.
        private: Whether the private half of the key computes.
        overhead_bytes: What an item may be longer than a payload.
        own_faults: Errors that are about the item, whatever field they name.
    """

    single: ClassVar[type[Handler[Any, Any]]]
    fields: ClassVar[frozenset[str]]
    private: ClassVar[bool] = True
    overhead_bytes: ClassVar[int] = 0
    own_faults: ClassVar[tuple[type[HSMError], ...]] = (
        VerificationError,
        DecryptionError,
    )

    def __init__(self, services: HandlerDependencies) -> None:
        super().__init__(services)
        self._single: Handler[SingleT, ResultT] = self.single(services)

    @abstractmethod
    def one(self, batch: BatchT, item: ItemT, /) -> SingleT:
        """Return an item as the single operation."""

    @abstractmethod
    def answered(
        self, reference: str, result: ResultT | None, error: ops.ItemError | None, /
    ) -> AnsweredT:
        """Return the answer to one item."""

    @abstractmethod
    def answers(self, key: KeyDocument, items: tuple[AnsweredT, ...], /) -> AnswersT:
        """Return the answer to the batch."""

    def prepare(self, context: RequestContext[BatchT], /) -> None:
        """Check the total size and the key, then each item alone."""
        batch = context.operation
        self._check_total(batch)
        check_usage(context.key, batch.usage)
        self._check_number(batch, context.spec)
        context.prepared.clear()
        context.prepared.extend(self._prepared(context))

    def _prepared(
        self, context: RequestContext[BatchT]
    ) -> Iterator[RequestContext[SingleT] | ops.ItemError]:
        for item in self._items(context.operation):
            single = self._single.resolve(
                self.one(context.operation, item), context.document
            )
            alone = RequestContext(
                context.caller, single, context.policy, document=context.document
            )
            try:
                self._single.prepare(alone)
            except HSMError as error:
                yield self._fault(error)
            else:
                yield alone

    def uses(self, context: RequestContext[BatchT], /) -> Sequence[Use]:
        """Return the sum of what the items take that will be computed."""
        taken = [use for alone in _good(context) for use in self._single.uses(alone)]
        if not taken:
            return ()
        first = taken[0]
        size = sum(use.size for use in taken)
        return (Use(first.key, first.version, sum(u.uses for u in taken), size),)

    def perform(self, context: RequestContext[BatchT], /) -> Answer[AnswersT]:
        """
        Compute every item; their order is that of the answers.

        Raises:
            UnavailableError: The HSM is being closed, and does not wait for the rest.
        """
        items: list[AnsweredT] = []
        versions: set[int] = set()
        prepared: list[RequestContext[SingleT] | ops.ItemError] = context.prepared
        for item, ready in zip(self._items(context.operation), prepared, strict=True):
            if self._services.overdue.is_set():
                raise UnavailableError("The HSM is closed.")
            reference: str = item.reference  # type: ignore[attr-defined]
            answer = self._performed(ready)
            if isinstance(answer, ops.ItemError):
                items.append(self.answered(reference, None, answer))
                continue
            versions.add(answer.version)
            items.append(self.answered(reference, answer.result, None))
        self._touch(context.key, versions)
        return Answer(
            self.answers(context.key, tuple(items)),
            versions.pop() if len(versions) == 1 else 0,
            self._detail(context.operation, items),
        )

    def _performed(
        self, ready: RequestContext[SingleT] | ops.ItemError
    ) -> Answer[ResultT] | ops.ItemError:
        if isinstance(ready, ops.ItemError):
            return ready
        try:
            return self._single.perform(ready)
        except HSMError as error:
            return self._fault(error)

    def _fault(self, error: HSMError) -> ops.ItemError:
        """Return what an item is answered with; an error of the whole is raised."""
        is_input = isinstance(error, InvalidInputError)
        if is_input and error.facts.get("field") in self.fields:
            return _item_error(error)
        if isinstance(error, self.own_faults):
            return _item_error(error)
        raise error

    def _check_total(self, batch: BatchT) -> None:
        limit = self._services.limits.payload_bytes
        limit += len(batch.items) * self.overhead_bytes
        total = _bytes_of(self._items(batch), self.fields)
        if total > limit:
            raise PayloadTooLargeError("items", actual=total, maximum=limit)

    def _check_number(self, batch: BatchT, row: AlgorithmSpec) -> None:
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

    def _detail(self, batch: BatchT, items: Sequence[AnsweredT]) -> BatchDetail:
        packed = wire.encode_packed(batch.items)
        return BatchDetail(
            count=len(items),
            failed=sum(item.error is not None for item in items),
            inputs=self._services.inventory.ring.payload_digest(packed),
        )

    def _items(self, batch: BatchT) -> tuple[ItemT, ...]:
        items: tuple[ItemT, ...] = batch.items  # type: ignore[assignment]
        return items

    def is_quick(self, operation: BatchT, /) -> bool:
        """Only if it is small, and the algorithm takes microseconds."""
        document = self._services.inventory.known(operation.key_id)
        if document is None or len(operation.items) > _QUICK_ITEMS:
            return False
        if spec(Algorithm(document.algorithm)).is_pqc:
            return False
        version = getattr(operation, "version", None)
        if not self.private and not is_short_walk(document, version):
            return False
        size = _bytes_of(self._items(operation), self.fields)
        inventory, key_id = self._services.inventory, operation.key_id
        return is_quick_use(inventory, key_id, size, private=self.private)

    def weight(self, operation: BatchT, /) -> int:
        """Return the sum of the items' weights; no key has to be read."""
        if self.is_slow(operation):
            return SLOW_WEIGHT * len(operation.items)
        algorithm = self._algorithm_of(operation)
        is_quick = algorithm is None or operation.usage in PUBLIC_USAGES
        if algorithm is not None and spec(algorithm).family is not Family.RSA:
            is_quick = True
        return (QUICK_WEIGHT if is_quick else POOLED_WEIGHT) * len(operation.items)


def _good(context: RequestContext[Any]) -> Iterator[RequestContext[Any]]:
    """Return the items that passed their own checks."""
    return (ready for ready in context.prepared if isinstance(ready, RequestContext))


def _item_error(error: HSMError) -> ops.ItemError:
    return ops.ItemError(code=error.code, detail=str(error))


def _bytes_of(items: Iterable[Record], fields: Iterable[str]) -> int:
    """Return the length of all byte strings of all items."""
    return sum(len(getattr(item, name) or b"") for item in items for name in fields)


CheckT = TypeVar("CheckT", ops.VerifyBatch, ops.VerifyMacBatch)
CheckItemT = TypeVar("CheckItemT", bound=Record)
SingleCheckT = TypeVar("SingleCheckT", ops.Verify, ops.VerifyMac)


@handles(ops.SignBatch)
class SignBatchHandler(
    BatchHandler[
        ops.SignBatch,
        ops.SignItem,
        ops.Sign,
        ops.Signature,
        ops.SignedItem,
        ops.SignatureBatch,
    ]
):
    """Sign many messages."""

    single = SignHandler
    fields = frozenset({"message", "digest", "mu"})

    def one(self, batch: ops.SignBatch, item: ops.SignItem, /) -> ops.Sign:
        """Return an item as a `Sign`."""
        return ops.Sign(
            key_id=batch.key_id,
            message=item.message,
            digest=item.digest,
            mu=item.mu,
            scheme=batch.scheme,
            hash=batch.hash,
            encoding=batch.encoding,
            context=batch.context,
        )

    def answered(
        self,
        reference: str,
        result: ops.Signature | None,
        error: ops.ItemError | None,
        /,
    ) -> ops.SignedItem:
        """Return the signature of one item."""
        signature = result.signature if result else b""
        return ops.SignedItem(reference=reference, signature=signature, error=error)

    def answers(
        self, key: KeyDocument, items: tuple[ops.SignedItem, ...], /
    ) -> ops.SignatureBatch:
        """Return all signatures."""
        return ops.SignatureBatch(
            key_id=key.key_id,
            version=key.current,
            algorithm=Algorithm(key.algorithm),
            items=items,
        )


class _CheckingHandler(
    BatchHandler[
        CheckT,
        CheckItemT,
        SingleCheckT,
        ops.Verified,
        ops.VerifiedItem,
        ops.VerifiedBatch,
    ]
):
    """What batches of checks share."""

    private = False

    def answered(
        self,
        reference: str,
        result: ops.Verified | None,
        error: ops.ItemError | None,
        /,
    ) -> ops.VerifiedItem:
        """Return which version made what one item holds."""
        version = result.version if result else 0
        return ops.VerifiedItem(reference=reference, version=version, error=error)

    def answers(
        self, key: KeyDocument, items: tuple[ops.VerifiedItem, ...], /
    ) -> ops.VerifiedBatch:
        """Return all checks."""
        algorithm = Algorithm(key.algorithm)
        return ops.VerifiedBatch(key_id=key.key_id, algorithm=algorithm, items=items)


@handles(ops.VerifyBatch)
class VerifyBatchHandler(_CheckingHandler[ops.VerifyBatch, ops.VerifyItem, ops.Verify]):
    """Check many signatures."""

    single = VerifyHandler
    fields = frozenset({"message", "digest", "mu", "signature"})

    def one(self, batch: ops.VerifyBatch, item: ops.VerifyItem, /) -> ops.Verify:
        """Return an item as a `Verify`."""
        return ops.Verify(
            key_id=batch.key_id,
            signature=item.signature,
            message=item.message,
            digest=item.digest,
            mu=item.mu,
            version=batch.version,
            scheme=batch.scheme,
            hash=batch.hash,
            encoding=batch.encoding,
            mgf_hash=batch.mgf_hash,
            salt_bytes=batch.salt_bytes,
            context=batch.context,
        )


@handles(ops.VerifyMacBatch)
class VerifyMacBatchHandler(
    _CheckingHandler[ops.VerifyMacBatch, ops.VerifyMacItem, ops.VerifyMac]
):
    """Check many MACs."""

    single = VerifyMacHandler
    fields = frozenset({"message", "mac"})

    def one(
        self, batch: ops.VerifyMacBatch, item: ops.VerifyMacItem, /
    ) -> ops.VerifyMac:
        """Return an item as a `VerifyMac`."""
        return ops.VerifyMac(
            key_id=batch.key_id,
            message=item.message,
            mac=item.mac,
            version=batch.version,
        )


@handles(ops.EncryptBatch)
class EncryptBatchHandler(
    BatchHandler[
        ops.EncryptBatch,
        ops.EncryptItem,
        ops.Encrypt,
        ops.Ciphertext,
        ops.EncryptedItem,
        ops.CiphertextBatch,
    ]
):
    """Encrypt many plaintexts."""

    single = EncryptHandler
    fields = frozenset({"plaintext", "aad"})

    def one(self, batch: ops.EncryptBatch, item: ops.EncryptItem, /) -> ops.Encrypt:
        """Return an item as an `Encrypt`."""
        return ops.Encrypt(key_id=batch.key_id, plaintext=item.plaintext, aad=item.aad)

    def answered(
        self,
        reference: str,
        result: ops.Ciphertext | None,
        error: ops.ItemError | None,
        /,
    ) -> ops.EncryptedItem:
        """Return the ciphertext of one item."""
        ciphertext = result.ciphertext if result else b""
        return ops.EncryptedItem(
            reference=reference, ciphertext=ciphertext, error=error
        )

    def answers(
        self, key: KeyDocument, items: tuple[ops.EncryptedItem, ...], /
    ) -> ops.CiphertextBatch:
        """Return all ciphertexts."""
        return ops.CiphertextBatch(key_id=key.key_id, version=key.current, items=items)


@handles(ops.DecryptBatch)
class DecryptBatchHandler(
    BatchHandler[
        ops.DecryptBatch,
        ops.DecryptItem,
        ops.Decrypt,
        ops.Plaintext,
        ops.DecryptedItem,
        ops.PlaintextBatch,
    ]
):
    """Decrypt many envelopes, each with the version that it names."""

    single = DecryptHandler
    fields = frozenset({"ciphertext", "aad"})
    overhead_bytes = CIPHERTEXT_OVERHEAD_BYTES
    own_faults = (DecryptionError, KeyNotFoundError, KeyStateError)

    def one(self, batch: ops.DecryptBatch, item: ops.DecryptItem, /) -> ops.Decrypt:
        """Return an item as a `Decrypt`."""
        return ops.Decrypt(
            key_id=batch.key_id, ciphertext=item.ciphertext, aad=item.aad
        )

    def answered(
        self,
        reference: str,
        result: ops.Plaintext | None,
        error: ops.ItemError | None,
        /,
    ) -> ops.DecryptedItem:
        """Return the plaintext of one item, and the version that gave it."""
        return ops.DecryptedItem(
            reference=reference,
            version=result.version if result else 0,
            plaintext=result.plaintext if result else b"",
            error=error,
        )

    def answers(
        self, key: KeyDocument, items: tuple[ops.DecryptedItem, ...], /
    ) -> ops.PlaintextBatch:
        """Return all plaintexts."""
        return ops.PlaintextBatch(key_id=key.key_id, items=items)


@handles(ops.ComputeMacBatch)
class ComputeMacBatchHandler(
    BatchHandler[
        ops.ComputeMacBatch,
        ops.MacInput,
        ops.ComputeMac,
        ops.Mac,
        ops.MacItem,
        ops.MacBatch,
    ]
):
    """Compute many MACs."""

    single = ComputeMacHandler
    fields = frozenset({"message"})

    def one(self, batch: ops.ComputeMacBatch, item: ops.MacInput, /) -> ops.ComputeMac:
        """Return an item as a `ComputeMac`."""
        return ops.ComputeMac(key_id=batch.key_id, message=item.message)

    def answered(
        self, reference: str, result: ops.Mac | None, error: ops.ItemError | None, /
    ) -> ops.MacItem:
        """Return the MAC of one item."""
        mac = result.mac if result else b""
        return ops.MacItem(reference=reference, mac=mac, error=error)

    def answers(
        self, key: KeyDocument, items: tuple[ops.MacItem, ...], /
    ) -> ops.MacBatch:
        """Return all MACs."""
        return ops.MacBatch(
            key_id=key.key_id,
            version=key.current,
            algorithm=Algorithm(key.algorithm),
            items=items,
        )

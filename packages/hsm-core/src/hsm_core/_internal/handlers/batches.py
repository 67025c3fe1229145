# SPDX-License-Identifier: MIT
"""Batches: SignBatch, VerifyBatch, EncryptBatch, DecryptBatch and those of MACs."""

from __future__ import annotations

from typing import TypeVar

from hsm_core import operations as ops
from hsm_core._internal.handlers.batch_base import BatchHandler
from hsm_core._internal.handlers.ciphers import DecryptHandler, EncryptHandler
from hsm_core._internal.handlers.macs import ComputeMacHandler, VerifyMacHandler
from hsm_core._internal.handlers.signatures import SignHandler, VerifyHandler
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core.algorithms import Algorithm
from hsm_core.errors import DecryptionError, KeyNotFoundError, KeyStateError
from hsm_core.model import Record
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES

CheckT = TypeVar("CheckT", ops.VerifyBatch, ops.VerifyMacBatch)
ItemT = TypeVar("ItemT", bound=Record)
SingleT = TypeVar("SingleT", ops.Verify, ops.VerifyMac)


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
        CheckT, ItemT, SingleT, ops.Verified, ops.VerifiedItem, ops.VerifiedBatch
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

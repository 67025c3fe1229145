# SPDX-License-Identifier: MIT
"""Methods that use a key for many items at once."""

from __future__ import annotations

from collections.abc import Iterable

from hsm_core import operations as ops
from hsm_core._sessions.base import SessionBase
from hsm_core.algorithms import HashAlgorithm, SignatureEncoding, SignatureScheme


class BatchMethods(SessionBase):
    """Batches; an item that fails has its error beside the others' answers."""

    def sign_batch(
        self,
        key_id: str,
        items: Iterable[ops.SignItem],
        *,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
        context: bytes = b"",
    ) -> ops.SignatureBatch:
        """Sign many items; see `SignBatch`."""
        return self._hsm.execute(
            ops.SignBatch(
                key_id=key_id,
                items=tuple(items),
                scheme=scheme,
                hash=hash,
                encoding=encoding,
                context=context,
            )
        )

    def verify_batch(
        self,
        key_id: str,
        items: Iterable[ops.VerifyItem],
        *,
        version: int | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
        mgf_hash: HashAlgorithm | None = None,
        salt_bytes: int | None = None,
        context: bytes = b"",
    ) -> ops.VerifiedBatch:
        """Check many signatures; see `VerifyBatch`."""
        return self._hsm.execute(
            ops.VerifyBatch(
                key_id=key_id,
                items=tuple(items),
                version=version,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
                mgf_hash=mgf_hash,
                salt_bytes=salt_bytes,
                context=context,
            )
        )

    def encrypt_batch(
        self, key_id: str, items: Iterable[ops.EncryptItem]
    ) -> ops.CiphertextBatch:
        """Encrypt many items; see `EncryptBatch`."""
        operation = ops.EncryptBatch(key_id=key_id, items=tuple(items))
        return self._hsm.execute(operation)

    def decrypt_batch(
        self, key_id: str, items: Iterable[ops.DecryptItem]
    ) -> ops.PlaintextBatch:
        """Decrypt many envelopes; see `DecryptBatch`."""
        operation = ops.DecryptBatch(key_id=key_id, items=tuple(items))
        return self._hsm.execute(operation)

    def mac_batch(self, key_id: str, items: Iterable[ops.MacInput]) -> ops.MacBatch:
        """Compute many MACs; see `ComputeMacBatch`."""
        operation = ops.ComputeMacBatch(key_id=key_id, items=tuple(items))
        return self._hsm.execute(operation)

    def verify_mac_batch(
        self,
        key_id: str,
        items: Iterable[ops.VerifyMacItem],
        *,
        version: int | None = None,
    ) -> ops.VerifiedBatch:
        """Check many MACs; see `VerifyMacBatch`."""
        return self._hsm.execute(
            ops.VerifyMacBatch(key_id=key_id, items=tuple(items), version=version)
        )

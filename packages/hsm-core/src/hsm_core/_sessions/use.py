# SPDX-License-Identifier: MIT
"""Session methods that use a key, one or many items at a time."""

from __future__ import annotations

from collections.abc import Iterable

from hsm_core import operations as ops
from hsm_core._sessions.base import SessionBase
from hsm_core.algorithms import (
    CiphertextEncoding,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)


class UseMethods(SessionBase):
    """Signatures, ciphers, KEMs, MACs and randomness."""

    def sign(
        self,
        key_id: str,
        message: bytes | None = None,
        *,
        digest: bytes | None = None,
        mu: bytes | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
        context: bytes = b"",
    ) -> ops.Signature:
        """Sign a message, its digest or its mu; see `Sign`."""
        return self._hsm.execute(
            ops.Sign(
                key_id=key_id,
                message=message,
                digest=digest,
                mu=mu,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
                context=context,
            )
        )

    def verify(
        self,
        key_id: str,
        message: bytes | None,
        signature: bytes,
        *,
        digest: bytes | None = None,
        mu: bytes | None = None,
        version: int | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
        mgf_hash: HashAlgorithm | None = None,
        salt_bytes: int | None = None,
        context: bytes = b"",
    ) -> ops.Verified:
        """Check a signature; a wrong one raises. See `Verify`."""
        return self._hsm.execute(
            ops.Verify(
                key_id=key_id,
                message=message,
                signature=signature,
                digest=digest,
                mu=mu,
                version=version,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
                mgf_hash=mgf_hash,
                salt_bytes=salt_bytes,
                context=context,
            )
        )

    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        aad: bytes = b"",
        *,
        hash: HashAlgorithm | None = None,
        mgf_hash: HashAlgorithm | None = None,
        encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE,
    ) -> bytes:
        """Return the ciphertext of *plaintext*; see `Encrypt`."""
        operation = ops.Encrypt(
            key_id=key_id,
            plaintext=plaintext,
            aad=aad,
            hash=hash,
            mgf_hash=mgf_hash,
            encoding=encoding,
        )
        return self._hsm.execute(operation).ciphertext

    def decrypt(
        self,
        key_id: str,
        ciphertext: bytes,
        aad: bytes = b"",
        *,
        version: int | None = None,
        hash: HashAlgorithm | None = None,
        mgf_hash: HashAlgorithm | None = None,
        encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE,
    ) -> bytes:
        """Return the plaintext of *ciphertext*; see `Decrypt`."""
        operation = ops.Decrypt(
            key_id=key_id,
            ciphertext=ciphertext,
            aad=aad,
            version=version,
            hash=hash,
            mgf_hash=mgf_hash,
            encoding=encoding,
        )
        return self._hsm.execute(operation).plaintext

    def encapsulate(self, key_id: str) -> ops.Encapsulation:
        """Make a fresh shared secret for a KEM key; see `Encapsulate`."""
        return self._hsm.execute(ops.Encapsulate(key_id=key_id))

    def decapsulate(
        self, key_id: str, ciphertext: bytes, *, version: int | None = None
    ) -> bytes:
        """Return the shared secret of an encapsulation; see `Decapsulate`."""
        operation = ops.Decapsulate(
            key_id=key_id, ciphertext=ciphertext, version=version
        )
        return self._hsm.execute(operation).shared_secret

    def seal(self, key_id: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return *plaintext* encrypted to a KEM key; see `Seal`."""
        operation = ops.Seal(key_id=key_id, plaintext=plaintext, aad=aad)
        return self._hsm.execute(operation).ciphertext

    def open(self, key_id: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return the plaintext of what was sealed; see `Open`."""
        operation = ops.Open(key_id=key_id, ciphertext=ciphertext, aad=aad)
        return self._hsm.execute(operation).plaintext

    def mac(self, key_id: str, message: bytes) -> ops.Mac:
        """Compute a MAC; see `ComputeMac`."""
        return self._hsm.execute(ops.ComputeMac(key_id=key_id, message=message))

    def verify_mac(
        self, key_id: str, message: bytes, mac: bytes, *, version: int | None = None
    ) -> ops.Verified:
        """Check a MAC; a wrong one raises. See `VerifyMac`."""
        return self._hsm.execute(
            ops.VerifyMac(key_id=key_id, message=message, mac=mac, version=version)
        )

    def random(self, length: int) -> bytes:
        """Return random bytes; see `GenerateRandom`."""
        return self._hsm.execute(ops.GenerateRandom(length=length)).random


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

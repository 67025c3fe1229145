# SPDX-License-Identifier: MIT
"""Typed sugar over `HSM.execute`: the same operations as plain methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hsm_core import operations as ops
from hsm_core.algorithms import (
    CiphertextEncoding,
    HashAlgorithm,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.model import AuditEntry, KeyInfo, KeyState, VersionInfo
from hsm_core.protocols import HSM

__all__ = ["Session"]


class Session:
    """
    The operations of any `HSM` as methods; arguments and errors are the operations'.

    Args:
        hsm: Embedded, remote or fake.
    """

    def __init__(self, hsm: HSM) -> None:
        self._hsm = hsm

    def create_key(
        self,
        algorithm: str,
        *,
        name: str = "",
        description: str = "",
        usages: Iterable[KeyUsage] = (),
        tags: Iterable[str] = (),
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Make a key; see `CreateKey`."""
        operation = ops.CreateKey(
            algorithm=algorithm,
            name=name,
            description=description,
            usages=tuple(usages),
            tags=tuple(tags),
        )
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def describe(self, key_id: str) -> KeyInfo:
        """Return what may be known of a key; see `DescribeKey`."""
        return self._hsm.execute(ops.DescribeKey(key_id=key_id))

    def keys(
        self,
        *,
        algorithm: str = "",
        state: KeyState | None = None,
        tags: Iterable[str] = (),
        per_page: int = 100,
    ) -> Iterator[KeyInfo]:
        """Walk all keys that match, newest first, a page at a time; see `ListKeys`."""
        wanted, cursor = tuple(tags), ""
        while True:
            page = self._hsm.execute(
                ops.ListKeys(
                    algorithm=algorithm,
                    state=state,
                    tags=wanted,
                    per_page=per_page,
                    cursor=cursor,
                )
            )
            yield from page.items
            cursor = page.next_cursor
            if not cursor:
                return

    def versions(self, key_id: str) -> tuple[VersionInfo, ...]:
        """Return all versions of a key, ascending."""
        return self._hsm.execute(ops.ListVersions(key_id=key_id)).items

    def rotate(self, key_id: str, *, idempotency_key: str | None = None) -> KeyInfo:
        """Make a version from fresh material; see `RotateKey`."""
        operation = ops.RotateKey(key_id=key_id)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def rollback(
        self, key_id: str, version: int, *, idempotency_key: str | None = None
    ) -> KeyInfo:
        """Make a version from older material; see `Rollback`."""
        operation = ops.Rollback(key_id=key_id, version=version)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def revoke(
        self,
        key_id: str,
        *,
        version: int | None = None,
        reason: str = "",
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Mark a version, or all, as compromised; see `RevokeKey`."""
        operation = ops.RevokeKey(key_id=key_id, version=version, reason=reason)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def destroy(self, key_id: str, *, idempotency_key: str | None = None) -> KeyInfo:
        """Destroy all material of a key; see `DestroyKey`."""
        operation = ops.DestroyKey(key_id=key_id)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def public_key(self, key_id: str, *, version: int | None = None) -> ops.PublicKey:
        """Return a public key as DER, PEM and JWK."""
        return self._hsm.execute(ops.GetPublicKey(key_id=key_id, version=version))

    def sign(
        self,
        key_id: str,
        message: bytes | None = None,
        *,
        digest: bytes | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
    ) -> ops.Signature:
        """Sign a message or its digest; see `Sign`."""
        return self._hsm.execute(
            ops.Sign(
                key_id=key_id,
                message=message,
                digest=digest,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
            )
        )

    def verify(
        self,
        key_id: str,
        message: bytes | None,
        signature: bytes,
        *,
        digest: bytes | None = None,
        version: int | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        encoding: SignatureEncoding | None = None,
    ) -> ops.Verified:
        """Check a signature; a wrong one raises. See `Verify`."""
        return self._hsm.execute(
            ops.Verify(
                key_id=key_id,
                message=message,
                signature=signature,
                digest=digest,
                version=version,
                scheme=scheme,
                hash=hash,
                encoding=encoding,
            )
        )

    def encrypt(
        self,
        key_id: str,
        plaintext: bytes,
        aad: bytes = b"",
        *,
        encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE,
    ) -> bytes:
        """Return the ciphertext of *plaintext*; see `Encrypt`."""
        operation = ops.Encrypt(
            key_id=key_id, plaintext=plaintext, aad=aad, encoding=encoding
        )
        return self._hsm.execute(operation).ciphertext

    def decrypt(
        self,
        key_id: str,
        ciphertext: bytes,
        aad: bytes = b"",
        *,
        encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE,
    ) -> bytes:
        """Return the plaintext of *ciphertext*; see `Decrypt`."""
        operation = ops.Decrypt(
            key_id=key_id, ciphertext=ciphertext, aad=aad, encoding=encoding
        )
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

    def audit_events(
        self, *, limit: int = 50, key_id: str = ""
    ) -> tuple[AuditEntry, ...]:
        """Return the newest events of the trail; see `ListAuditEvents`."""
        operation = ops.ListAuditEvents(limit=limit, key_id=key_id)
        return self._hsm.execute(operation).items

    def verify_audit(self) -> ops.AuditVerification:
        """Verify the whole trail, range by range; damage raises. See `VerifyAudit`."""
        start, verified = 0, 0
        while True:
            found = self._hsm.execute(ops.VerifyAudit(start_seq=start))
            verified += found.verified
            if found.next_seq is None:
                return ops.AuditVerification(
                    start_seq=0,
                    verified=verified,
                    next_seq=None,
                    head_seq=found.head_seq,
                    head_hash=found.head_hash,
                )
            start = found.next_seq

    def status(self) -> ops.HSMStatus:
        """Return the health of the HSM."""
        return self._hsm.execute(ops.Status())

    def self_test(self) -> ops.SelfTestReport:
        """Run all self-tests; see `SelfTest`."""
        return self._hsm.execute(ops.SelfTest())

# SPDX-License-Identifier: MIT
"""Session methods for keys: life cycle, import and export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Self

from hsm_core import operations as ops
from hsm_core._sessions.base import Accompanied, SessionBase
from hsm_core.algorithms import (
    DerivationFunction,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    WrapMechanism,
)
from hsm_core.model import KeyInfo, KeyState, VersionInfo


class KeyMethods(SessionBase):
    """The life of keys."""

    def at_generation(self, generation: int) -> Self:
        """
        Return a session that changes a key only if it is at a generation.

        That is the `KeyInfo.generation` of what was looked at; if somebody has changed
        the key since, `PreconditionFailedError` is raised and nothing is done.
        """
        return type(self)(Accompanied(self._hsm, expected_generation=generation))

    def create_key(
        self,
        algorithm: str,
        *,
        name: str = "",
        owner: str = "",
        description: str = "",
        usages: Iterable[KeyUsage] = (),
        tags: Iterable[str] = (),
        exportable: bool = False,
        staged: bool = False,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Make a key; see `CreateKey`."""
        operation = ops.CreateKey(
            algorithm=algorithm,
            name=name,
            owner=owner,
            description=description,
            usages=tuple(usages),
            tags=tuple(tags),
            exportable=exportable,
            staged=staged,
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
        search: str = "",
        per_page: int = 100,
    ) -> Iterator[KeyInfo]:
        """Walk all keys that match, newest first, a page at a time; see `ListKeys`."""
        first = ops.ListKeys(
            algorithm=algorithm,
            state=state,
            tags=tuple(tags),
            search=search,
            per_page=per_page,
        )
        for page in self._pages(first):
            yield from page.items

    def versions(self, key_id: str) -> tuple[VersionInfo, ...]:
        """Return all versions of a key, ascending."""
        return self._hsm.execute(ops.ListVersions(key_id=key_id)).items

    def rotate(
        self, key_id: str, *, staged: bool = False, idempotency_key: str | None = None
    ) -> KeyInfo:
        """Make a version from fresh material; see `RotateKey`."""
        operation = ops.RotateKey(key_id=key_id, staged=staged)
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
        compromised_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Mark a version, or all, as compromised; see `RevokeKey`."""
        operation = ops.RevokeKey(
            key_id=key_id,
            version=version,
            reason=reason,
            compromised_at=compromised_at,
        )
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def destroy(
        self,
        key_id: str,
        *,
        waiting_days: int | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Destroy all material of a key, at once or later; see `DestroyKey`."""
        operation = ops.DestroyKey(key_id=key_id, waiting_days=waiting_days)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def cancel_destroy(
        self, key_id: str, *, idempotency_key: str | None = None
    ) -> KeyInfo:
        """Give a key back that waits for its destruction; see `CancelDestroy`."""
        operation = ops.CancelDestroy(key_id=key_id)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def activate(
        self,
        key_id: str,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Make a staged version the current one; see `ActivateKey`."""
        operation = ops.ActivateKey(key_id=key_id, version=version)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def suspend(
        self, key_id: str, *, reason: str = "", idempotency_key: str | None = None
    ) -> KeyInfo:
        """Let the current version rest; see `SuspendKey`."""
        operation = ops.SuspendKey(key_id=key_id, reason=reason)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def resume(self, key_id: str, *, idempotency_key: str | None = None) -> KeyInfo:
        """Let a suspended version be active again; see `ResumeKey`."""
        operation = ops.ResumeKey(key_id=key_id)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def update(
        self,
        key_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        owner: str | None = None,
        tags: Iterable[str] | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Change what is said of a key, where it is not None; see `UpdateKey`."""
        operation = ops.UpdateKey(
            key_id=key_id,
            name=name,
            description=description,
            owner=owner,
            tags=None if tags is None else tuple(tags),
        )
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def set_rotation(
        self,
        key_id: str,
        *,
        max_age_days: int | None = None,
        max_uses: int | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Say when the HSM rotates a key by itself; see `SetRotation`."""
        operation = ops.SetRotation(
            key_id=key_id, max_age_days=max_age_days, max_uses=max_uses
        )
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def public_key(self, key_id: str, *, version: int | None = None) -> ops.PublicKey:
        """Return a public key as DER, PEM and JWK."""
        return self._hsm.execute(ops.GetPublicKey(key_id=key_id, version=version))

    def certificates(
        self, key_id: str, *, version: int | None = None
    ) -> ops.CertificateChain:
        """Return the certificate chain of a version; see `GetCertificates`."""
        return self._hsm.execute(ops.GetCertificates(key_id=key_id, version=version))

    def attach_certificates(
        self,
        key_id: str,
        chain: bytes,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Keep a certificate chain with a version; see `AttachCertificates`."""
        operation = ops.AttachCertificates(key_id=key_id, chain=chain, version=version)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def remove_certificates(
        self,
        key_id: str,
        *,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Remove the certificate chain of a version; see `RemoveCertificates`."""
        operation = ops.RemoveCertificates(key_id=key_id, version=version)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)


class TransferMethods(SessionBase):
    """Import, export, derivation and data keys."""

    def import_key(
        self,
        algorithm: str,
        wrapping_key_id: str,
        wrapped: bytes,
        *,
        mechanism: WrapMechanism | None = None,
        format: KeyFormat | None = None,
        wrapping_version: int | None = None,
        hash: HashAlgorithm | None = None,
        mgf_hash: HashAlgorithm | None = None,
        name: str = "",
        owner: str = "",
        description: str = "",
        usages: Iterable[KeyUsage] = (),
        tags: Iterable[str] = (),
        exportable: bool = False,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Make a key from material that was wrapped for it; see `ImportKey`."""
        operation = ops.ImportKey(
            algorithm=algorithm,
            wrapping_key_id=wrapping_key_id,
            wrapped=wrapped,
            mechanism=mechanism,
            format=format,
            wrapping_version=wrapping_version,
            hash=hash,
            mgf_hash=mgf_hash,
            name=name,
            owner=owner,
            description=description,
            usages=tuple(usages),
            tags=tuple(tags),
            exportable=exportable,
        )
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def export_key(
        self,
        key_id: str,
        wrapping_key_id: str,
        *,
        version: int | None = None,
        mechanism: WrapMechanism | None = None,
        format: KeyFormat | None = None,
        hash: HashAlgorithm | None = None,
        mgf_hash: HashAlgorithm | None = None,
    ) -> ops.WrappedKey:
        """Return a key wrapped by another one; see `ExportKey`."""
        return self._hsm.execute(
            ops.ExportKey(
                key_id=key_id,
                wrapping_key_id=wrapping_key_id,
                version=version,
                mechanism=mechanism,
                format=format,
                hash=hash,
                mgf_hash=mgf_hash,
            )
        )

    def derive_key(
        self,
        algorithm: str,
        base_key_id: str,
        *,
        peer_public_key: bytes | None = None,
        function: DerivationFunction | None = None,
        hash: HashAlgorithm | None = None,
        salt: bytes = b"",
        info: bytes = b"",
        name: str = "",
        owner: str = "",
        description: str = "",
        usages: Iterable[KeyUsage] = (),
        tags: Iterable[str] = (),
        exportable: bool = False,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Make a symmetric key from another key; see `DeriveKey`."""
        operation = ops.DeriveKey(
            algorithm=algorithm,
            base_key_id=base_key_id,
            peer_public_key=peer_public_key,
            function=function,
            hash=hash,
            salt=salt,
            info=info,
            name=name,
            owner=owner,
            description=description,
            usages=tuple(usages),
            tags=tuple(tags),
            exportable=exportable,
        )
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def data_key(
        self,
        key_id: str,
        *,
        length: int = 32,
        aad: bytes = b"",
        wrapped_only: bool = False,
    ) -> ops.DataKey:
        """Make a symmetric key for use outside; see `GenerateDataKey`."""
        return self._hsm.execute(
            ops.GenerateDataKey(
                key_id=key_id, length=length, aad=aad, wrapped_only=wrapped_only
            )
        )

    def rewrap(self, key_id: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return a ciphertext re-encrypted with the current version; see `Rewrap`."""
        operation = ops.Rewrap(key_id=key_id, ciphertext=ciphertext, aad=aad)
        return self._hsm.execute(operation).ciphertext

# SPDX-License-Identifier: MIT
"""Methods that bring keys in and out, and derive them."""

from __future__ import annotations

from collections.abc import Iterable

from hsm_core import operations as ops
from hsm_core._sessions.base import SessionBase
from hsm_core.algorithms import HashAlgorithm, KeyFormat, KeyUsage, WrapMechanism
from hsm_core.model import KeyInfo


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

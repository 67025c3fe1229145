# SPDX-License-Identifier: MIT
"""Methods that make, change and describe keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hsm_core import operations as ops
from hsm_core._sessions.base import SessionBase
from hsm_core.algorithms import KeyUsage
from hsm_core.model import KeyInfo, KeyState, VersionInfo

__all__ = ["KeyMethods"]


class KeyMethods(SessionBase):
    """The life of keys."""

    def create_key(
        self,
        algorithm: str,
        *,
        name: str = "",
        description: str = "",
        usages: Iterable[KeyUsage] = (),
        tags: Iterable[str] = (),
        exportable: bool = False,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Make a key; see `CreateKey`."""
        operation = ops.CreateKey(
            algorithm=algorithm,
            name=name,
            description=description,
            usages=tuple(usages),
            tags=tuple(tags),
            exportable=exportable,
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

# SPDX-License-Identifier: MIT
"""Comparing the key store with the trail, and accepting it: three operations."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Answer, Handler, Subject

__all__ = ["RecoverKeyHandler", "RecoverStoreHandler", "VerifyStoreHandler"]


class VerifyStoreHandler(Handler[ops.VerifyStore, ops.StoreVerification]):
    """Compare the whole store."""

    def perform(
        self, subject: Subject[ops.VerifyStore], /
    ) -> Answer[ops.StoreVerification]:
        """Look at the document and the blobs of every key."""
        inventory, keys = self._services.inventory, 0
        for stored in inventory.store.scan():
            inventory.inspect(stored.key_id, with_blobs=True)
            keys += 1
        found = inventory.tampered.snapshot()
        findings = tuple(
            ops.KeyFinding(key_id=key_id, problem="document") for key_id in found
        )
        return Answer(ops.StoreVerification(keys=keys, findings=findings))

    def is_quick(self, operation: ops.VerifyStore, /) -> bool:
        """Never: it reads every file of the store."""
        return False

    def is_slow(self, operation: ops.VerifyStore, /) -> bool:
        """Always."""
        return True


class RecoverStoreHandler(Handler[ops.RecoverStore, ops.Recovered]):
    """Accept the store as it is."""

    def perform(self, subject: Subject[ops.RecoverStore], /) -> Answer[ops.Recovered]:
        """Tell which keys can't be believed; a store that differs does not open."""
        left = tuple(self._services.inventory.tampered.snapshot())
        return Answer(ops.Recovered(left=left))

    def is_quick(self, operation: ops.RecoverStore, /) -> bool:
        """Never: it waits for the disk."""
        return False

    def is_slow(self, operation: ops.RecoverStore, /) -> bool:
        """Always."""
        return True


class RecoverKeyHandler(Handler[ops.RecoverKey, ops.Recovered]):
    """Accept one key as it is."""

    def perform(self, subject: Subject[ops.RecoverKey], /) -> Answer[ops.Recovered]:
        """Tell whether it can be believed."""
        key_id = subject.operation.key_id
        left = key_id in self._services.inventory.tampered.snapshot()
        return Answer(ops.Recovered(left=(key_id,) if left else ()))

    def is_quick(self, operation: ops.RecoverKey, /) -> bool:
        """Never: it waits for the disk."""
        return False

    def is_slow(self, operation: ops.RecoverKey, /) -> bool:
        """Always."""
        return True

# SPDX-License-Identifier: MIT
"""Looking after the stores: comparing, copying and accepting them."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Answer, Handler, OperationContext


class VerifyStoreHandler(Handler[ops.VerifyStore, ops.StoreVerification]):
    """Compare the whole store."""

    def perform(
        self, subject: OperationContext[ops.VerifyStore], /
    ) -> Answer[ops.StoreVerification]:
        """Look at the document and the blobs of every key."""
        return Answer(self._services.verify_store(self._services.closing))

    def is_quick(self, operation: ops.VerifyStore, /) -> bool:
        """Never: it reads every file of the store."""
        return False

    def is_slow(self, operation: ops.VerifyStore, /) -> bool:
        """Always."""
        return True


class BackUpStoresHandler(Handler[ops.BackUpStores, ops.BackUp]):
    """Copy the databases."""

    def perform(
        self, subject: OperationContext[ops.BackUpStores], /
    ) -> Answer[ops.BackUp]:
        """Copy them while no key is changed."""
        return Answer(self._services.back_up())

    def is_quick(self, operation: ops.BackUpStores, /) -> bool:
        """Never: it writes files."""
        return False

    def is_slow(self, operation: ops.BackUpStores, /) -> bool:
        """Always."""
        return True


class RecoverStoreHandler(Handler[ops.RecoverStore, ops.Recovered]):
    """Accept the store as it is."""

    def perform(
        self, subject: OperationContext[ops.RecoverStore], /
    ) -> Answer[ops.Recovered]:
        """Record what that means for each key, and unlock."""
        return Answer(self._services.recover_store(subject.operation.reason))

    def is_quick(self, operation: ops.RecoverStore, /) -> bool:
        """Never: it waits for the disk."""
        return False

    def is_slow(self, operation: ops.RecoverStore, /) -> bool:
        """Always."""
        return True


class RecoverKeyHandler(Handler[ops.RecoverKey, ops.Recovered]):
    """Accept one key as it is."""

    def perform(
        self, subject: OperationContext[ops.RecoverKey], /
    ) -> Answer[ops.Recovered]:
        """Record what that means for it."""
        asked = subject.operation
        return Answer(self._services.recover_key(asked.key_id, asked.reason))

    def is_quick(self, operation: ops.RecoverKey, /) -> bool:
        """Never: it waits for the disk."""
        return False

    def is_slow(self, operation: ops.RecoverKey, /) -> bool:
        """Always."""
        return True

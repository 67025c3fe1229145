# SPDX-License-Identifier: MIT
"""Retention of old key versions."""

from __future__ import annotations

from datetime import datetime

from hsm_core import operations as ops
from hsm_core._sessions.base import SessionBase
from hsm_core.model import KeyInfo


class RetentionMethods(SessionBase):
    """What a caller may do about retention."""

    def extend_retention(
        self,
        key_id: str,
        version: int,
        until: datetime,
        *,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Keep the material of a version until an instant; see `ExtendRetention`."""
        operation = ops.ExtendRetention(key_id=key_id, version=version, until=until)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def hold(
        self, key_id: str, reason: str, *, idempotency_key: str | None = None
    ) -> KeyInfo:
        """Put a legal hold on a key; see `HoldKey`."""
        operation = ops.HoldKey(key_id=key_id, reason=reason)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def release(
        self, key_id: str, reason: str, *, idempotency_key: str | None = None
    ) -> KeyInfo:
        """End the hold on a key; see `ReleaseKey`."""
        operation = ops.ReleaseKey(key_id=key_id, reason=reason)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def retention(self) -> ops.RetentionReport:
        """Return how retention stands; see `RetentionStatus`."""
        return self._hsm.execute(ops.RetentionStatus())

    def begin_ledger(self, reason: str) -> ops.LedgerBegun:
        """Let a new ledger take the place of a lost one; see `BeginLedger`."""
        return self._hsm.execute(ops.BeginLedger(reason=reason))

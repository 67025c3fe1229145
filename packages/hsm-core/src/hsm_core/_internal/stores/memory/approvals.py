# SPDX-License-Identifier: MIT
"""Approval store in memory."""

from __future__ import annotations

from collections.abc import Sequence

from hsm_core._internal.stores.approval_index import (
    ApprovalIndex,
    check_approval_change,
)
from hsm_core._internal.stores.memory.opening import InMemory
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)


class MemoryApprovalStore(InMemory, ApprovalStore):
    """Records in a dictionary, under one lock."""

    def __init__(self) -> None:
        super().__init__("approval store")
        self._index = ApprovalIndex()
        self._records: dict[str, bytes] = {}

    def get(self, approval_id: str, /) -> bytes | None:
        """Return the stored form of an approval, or None if there is none."""
        with self._lock:
            self._check_open()
            return self._records.get(approval_id)

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change; see `ApprovalStore.commit`."""
        check_approval_change(change)
        with self._lock:
            self._check_open()
            self._index.check(change)
            self._records[change.entry.approval_id] = change.record
            self._index.put(change.entry)

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page of the index."""
        with self._lock:
            self._check_open()
            return self._index.find(query)

    def approval_ids(self) -> Sequence[str]:
        """Return all ids."""
        with self._lock:
            self._check_open()
            return self._index.approval_ids()

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals, where they are there."""
        with self._lock:
            self._check_open()
            for approval_id in approval_ids:
                self._records.pop(approval_id, None)
                self._index.remove(approval_id)

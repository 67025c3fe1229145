# SPDX-License-Identifier: MIT
"""Guard around any approval store: translates foreign exceptions; see `guard`."""

from __future__ import annotations

from collections.abc import Sequence

from hsm_core._internal.stores.guard import Guarded, guarded, guarded_commit
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)


class GuardedApprovalStore(Guarded[ApprovalStore], ApprovalStore):
    """Another store of approvals, with its foreign exceptions turned into ours."""

    def get(self, approval_id: str, /) -> bytes | None:
        """See `ApprovalStore.get`."""
        with guarded():
            return self._inner.get(approval_id)

    def commit(self, change: ApprovalChange, /) -> None:
        """See `ApprovalStore.commit`."""
        with guarded_commit(approval_id=change.entry.approval_id):
            self._inner.commit(change)

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """See `ApprovalStore.find`."""
        with guarded():
            return self._inner.find(query)

    def approval_ids(self) -> Sequence[str]:
        """See `ApprovalStore.approval_ids`."""
        with guarded():
            return self._inner.approval_ids()

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """See `ApprovalStore.remove`."""
        with guarded():
            self._inner.remove(approval_ids)

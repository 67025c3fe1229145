# SPDX-License-Identifier: MIT
"""A guard round any approval store: nothing foreign leaves it; see `guard`."""

from __future__ import annotations

from collections.abc import Sequence

from hsm_core._internal.stores.guard import guarded
from hsm_core.errors import HSMError, OutcomeUnknownError
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)

__all__ = ["GuardedApprovalStore"]


class GuardedApprovalStore(ApprovalStore):
    """
    Another store, with its foreign exceptions turned into ours.

    Args:
        inner: The store that does the work.
    """

    def __init__(self, inner: ApprovalStore) -> None:
        self._inner = inner

    @property
    def inner(self) -> ApprovalStore:
        """The store that does the work."""
        return self._inner

    def __repr__(self) -> str:
        return f"<GuardedApprovalStore over {self._inner!r}>"

    @property
    def available(self) -> bool:
        """See `ApprovalStore.available`; a store that can't even tell is not."""
        try:
            return self._inner.available
        except Exception:
            return False

    def reopen(self) -> None:
        """See `ApprovalStore.reopen`."""
        with guarded():
            self._inner.reopen()

    def get(self, approval_id: str, /) -> bytes | None:
        """See `ApprovalStore.get`."""
        with guarded():
            return self._inner.get(approval_id)

    def commit(self, change: ApprovalChange, /) -> None:
        """See `ApprovalStore.commit`."""
        try:
            self._inner.commit(change)
        except HSMError:
            raise
        except Exception as error:
            raise OutcomeUnknownError(
                "It is not known whether the change was made.",
                approval_id=change.entry.approval_id,
            ) from error

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

    def close(self) -> None:
        """See `ApprovalStore.close`."""
        with guarded():
            self._inner.close()

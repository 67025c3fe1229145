# SPDX-License-Identifier: MIT
"""
Approvals of a cluster: the last written state of each, as the feed of changes has it.

The set digest of all approvals is in the authenticated state of the cluster, so the
changes that lead there are believed. An approval in the store that is not as its last
change left it was altered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hsm_core._internal.approvals.journal import (
    ApprovalAnchor,
    ApprovalSetDigest,
    FollowedApprovals,
)
from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.lib import silence
from hsm_core._internal.stores.postgresql.connection import run
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import APPROVAL, Change
from hsm_core.errors import IntegrityError
from hsm_core.model import ApprovalState

_NEWEST: Final = (
    "SELECT DISTINCT ON (subject) subject, generation, digest FROM changes "
    "WHERE kind = $1 AND revision <= $2 ORDER BY subject, revision DESC"
)
_MADE: Final = "SELECT 1 FROM changes WHERE kind = $1 AND subject = $2 AND digest = $3"
_COUNT: Final = "SELECT count(*) FROM approvals WHERE state = $1"
_ANY: Final = ApprovalState.PENDING
"""State of an approval of which the feed says none; nothing is decided by it."""
_LOADING_SECONDS: Final = 60.0
"""A million changes take a second or two."""


class ApprovalChanges(FollowedApprovals):
    """
    Approvals that all nodes of a cluster change. Thread-safe.

    Args:
        database: Of the cluster.

        changes: Its feed, which this node follows.

        ledger: Set digest of the approvals; it is the feed's from `catch_up` on.

        end_transactions: Ends those of this node; `Membership.renew`.
    """

    def __init__(
        self,
        database: ClusterDatabase,
        changes: Changes,
        ledger: ApprovalSetDigest,
        end_transactions: Callable[[], object],
    ) -> None:
        self._database = database
        self._changes = changes
        self._ledger = ledger
        self._end_transactions = end_transactions
        self._is_stale = True
        self._loading = threading.Lock()
        changes.on_change(APPROVAL, self._note)

    def catch_up(self) -> None:
        """
        Note every change that is committed; see `FollowedApprovals`.

        Raises:
            IntegrityError: The changes of approvals were altered in the database.
            HSMLockedError: The feed is not the one that this node has followed.
            StoreUnavailableError: They can't be read.
        """
        self._changes.catch_up()
        # A thread that finds the states fresh must not find them half loaded.
        with silence.task(), self._loading:
            if self._is_stale:
                try:
                    self._load()
                except BaseException:
                    self._is_stale = True
                    raise

    def was_made(self, approval_id: str, sha256: str, /) -> bool:
        """Return whether an approval ever had this stored form."""
        values = (APPROVAL, approval_id, sha256)
        return self._database.row(_MADE, values) is not None

    def end_transactions(self) -> None:
        """Wait for the transactions of this node; see `FollowedApprovals`."""
        self._end_transactions()

    def count(self, state: ApprovalState, /) -> int:
        """Return how many approvals are in a state, by the store's columns."""
        found = self._database.row(_COUNT, (state.value,))
        return found[0] if found else 0

    def removal(self, approval_id: str) -> Change | None:
        """Return the change that removes an approval in its last state, if any."""
        known = self._ledger.get(approval_id)
        if known is None:
            return None
        return Change(APPROVAL, approval_id, known.generation + 1, known.sha256)

    def _note(self, change: Change) -> None:
        if not change.subject:
            self._is_stale = True
        elif not change.digest:
            self._ledger.remove([change.subject])
        else:
            anchor = ApprovalAnchor(change.generation, change.digest, _ANY)
            self._ledger.advance(change.subject, anchor)

    def _load(self) -> None:
        """Take the last change of each approval, whose sum the cluster's state has."""
        # Applied meanwhile, a removal would be undone here.
        with self._database.reading() as connection, self._changes.held():
            self._is_stale = False
            with connection.patiently(_LOADING_SECONDS):
                values = (APPROVAL, self._changes.applied.revision)
                rows = run(connection, _NEWEST, values).fetchall()
            anchors = {
                approval_id: ApprovalAnchor(generation, sha256, _ANY)
                for approval_id, generation, sha256 in rows
                if sha256
            }
            total = int.from_bytes(self._changes.approvals_digest, "big")
            if self._ledger.sum_of(anchors) != total:
                raise IntegrityError(
                    "The changes of approvals were altered in the database."
                )
            for approval_id, anchor in anchors.items():
                self._ledger.advance(approval_id, anchor)
            self._ledger.remove(name for name, _, sha256 in rows if not sha256)

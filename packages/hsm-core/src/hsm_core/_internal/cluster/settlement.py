# SPDX-License-Identifier: MIT
"""
Settlement: what a dead node began and did not finish is decided and recorded here.

The node was fenced, so nothing of it can be committed any more. Each of its open
intents gets its outcome in the log of the node that settles it, with the ID of the log
that has the intent. What was decided is final in the database: a change was committed,
or its operation is marked as aborted. A second settlement, by another node or by the
dead one after its restart, comes to the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hsm_core._internal.audit.reading import RecordSource
from hsm_core._internal.keyring.journal import Journal, intent_of
from hsm_core.protocols import AuditDraft

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.audit_logs import ClusterLogs


class _Left(NamedTuple):
    """What a node left at an epoch: journals with its open intents, and its log."""

    epoch: int
    journals: Sequence[Journal]
    log: RecordSource


class Settlement:
    """
    Settles what dead nodes left unfinished.

    An intent of a key that can't be believed stays open, perhaps for days. The journals
    are kept until then: read again, each settled intent would get one more outcome.

    Args:
        logs: Audit logs of all nodes.

        holds_job: Returns whether this node is to run a job now; `JobLeases.holds`.

        is_fenced: Returns whether a node is still fenced, under an epoch.

        note_settled: Notes that nothing of a node is unfinished up to an epoch.

        journals: Returns journals of keys and of approvals over given intents, which
            record in this node's log.

        settle_reserved: Settles the reservations of approvals that a log has, once this
            node's log has the outcomes. Returns whether none is left.
    """

    def __init__(
        self,
        logs: ClusterLogs,
        holds_job: Callable[[str], bool],
        is_fenced: Callable[[str, int], bool],
        note_settled: Callable[[str, int], None],
        journals: Callable[[Sequence[AuditDraft]], Sequence[Journal]],
        settle_reserved: Callable[[RecordSource], bool],
    ) -> None:
        self._logs = logs
        self._holds_job = holds_job
        self._is_fenced = is_fenced
        self._note_settled = note_settled
        self._journals = journals
        self._settle_reserved = settle_reserved
        self._left: dict[str, _Left] = {}

    def settle(self, node: str, epoch: int) -> None:
        """
        Settle what a dead node left, unless another node does; see `Membership`.

        Args:
            node: Its name; it was fenced.

            epoch: The epoch that it was given then.

        Raises:
            HSMError: Database or audit log can't be used; to be tried again.
        """
        if not self._holds_job(f"settling {node}"):
            return
        log_id = self._logs.log_of(node)
        if log_id:
            left = self._left_by(node, epoch, log_id)
            if not self._is_fenced(node, epoch):
                return  # It was started again, and settles what it left itself.
            if not self._settle_left(left):
                return  # A key can't be believed yet, or an approval not be written.
        self._left.pop(node, None)
        self._note_settled(node, epoch)

    def _left_by(self, node: str, epoch: int, log_id: str) -> _Left:
        left = self._left.get(node)
        if left is None or left.epoch != epoch:
            found, log = self._logs.open_intents(log_id), self._logs.ended_log(log_id)
            intents = [intent_of(each, log_id) for each in found]
            left = self._left[node] = _Left(epoch, self._journals(intents), log)
        return left

    def _settle_left(self, left: _Left) -> bool:
        for journal in left.journals:
            journal.settle()
        if any(journal.open for journal in left.journals):
            return False
        return self._settle_reserved(left.log)

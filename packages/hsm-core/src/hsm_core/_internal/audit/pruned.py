# SPDX-License-Identifier: MIT
"""
Pruned prefix: checks that a prune explains a missing start of the audit log.

A log that does not start at record 0 is accepted only with a baseline that reaches at
least to its first record, and with the pruning record in its chain. If it starts
earlier, the removal was interrupted.
"""

from __future__ import annotations

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import GENESIS
from hsm_core.model import AuditEvent, PruneDetail


class PrunedPrefix:
    """
    Checks the start of an audit log while its records are followed.

    Args:
        first_seq: Sequence number of the first present record.

        baseline: Verified baseline, or None.

    Attributes:
        start: Sequence number and leaf hash of the record before the first one, as a
            `Follower` takes them.

    Raises:
        AuditTamperedError: Records are missing that the baseline does not cover.
    """

    def __init__(self, first_seq: int, baseline: Baseline | None) -> None:
        covered = baseline.header.next_seq if baseline else 0
        if first_seq > covered:
            raise tampered(Reason.PRUNED, covered)
        self.detail: PruneDetail | None = baseline.detail if baseline else None
        self._recorded = baseline is None
        self.start = (first_seq - 1, self._leaf_before(first_seq))

    def _leaf_before(self, first_seq: int) -> str:
        if first_seq == 0:
            return GENESIS
        detail = self.detail
        whole = detail is not None and detail.next_seq == first_seq
        return detail.last_leaf_hash if detail and whole else ""

    def visit(self, event: AuditEvent, leaf_hash: str) -> None:
        """
        Process the next good record.

        Raises:
            AuditTamperedError: It is the last record that the baseline covers, and
                differs from it.
        """
        detail = self.detail
        if detail is None:
            return
        if event.seq == detail.next_seq - 1 and leaf_hash != detail.last_leaf_hash:
            raise tampered(Reason.BASELINE, event.seq)
        if isinstance(event.detail, PruneDetail) and event.detail == detail:
            self._recorded = True

    def finish(self) -> None:
        """
        Require the pruning record among the visited records.

        Raises:
            AuditTamperedError: It was not.
        """
        if not self._recorded:
            raise tampered(Reason.PRUNED, 0)

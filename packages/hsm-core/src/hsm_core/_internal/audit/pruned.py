# SPDX-License-Identifier: MIT
"""
Whether the beginning of a trail is gone because it was pruned.

A trail that does not begin at 0 is believed only with the baseline of a prune that
reaches at least to its first record, and with the record of that prune in its chain. It
may begin earlier: then the removal was interrupted.
"""

from __future__ import annotations

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import GENESIS
from hsm_core.model import AuditEvent, PruneDetail


class PrunedPrefix:
    """
    Judges the beginning of a trail while its records are followed.

    Args:
        first_seq: Sequence number of the first record that is there.

        baseline: Checked; None if there is none.

    Attributes:
        start: Sequence number and leaf hash of the record before the first one, as a
            `Follower` takes them.

    Raises:
        AuditTamperedError: Records are gone that the baseline does not tell of.
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
        Take the next good record into account.

        Raises:
            AuditTamperedError: It is the last that the baseline tells of, and is not
                the one that it means.
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
        Require the record of the prune among the records that were visited.

        Raises:
            AuditTamperedError: It was not.
        """
        if not self._recorded:
            raise tampered(Reason.PRUNED, 0)

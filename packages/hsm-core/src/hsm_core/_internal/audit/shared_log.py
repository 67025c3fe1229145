# SPDX-License-Identifier: MIT
"""Audit log of a cluster's node: its uses are recorded if nothing changed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.log import AuditOptions, DurableAuditLog
from hsm_core._internal.audit.medium import AuditMedium, Reserve, SharedMedium
from hsm_core._internal.audit.shared_groups import Append, ClusterView, Draft
from hsm_core._internal.audit.shared_writer import SharedFlusher
from hsm_core._internal.audit.verify import RecoveredLog
from hsm_core._internal.audit.writer import Flusher
from hsm_core.protocols import AuditDrafts, AuditTicket


class SharedAuditLog(DurableAuditLog):
    """
    An `AuditLog` over the medium of a cluster.

    Args:
        medium: Where records go; closed with the log.

        reserve: Room for the records that matter when the disk is full.

        recovered: Content found at opening.

        options: How the log is written.

        view: The cluster.
    """

    _flusher: SharedFlusher

    def __init__(
        self,
        medium: SharedMedium,
        reserve: Reserve,
        recovered: RecoveredLog,
        options: AuditOptions,
        view: ClusterView,
    ) -> None:
        self._view = view
        self._shared = medium
        super().__init__(medium, reserve, recovered, options)

    def _begin_writer(
        self, chain: Chain, medium: AuditMedium, reserve: Reserve, options: AuditOptions
    ) -> Flusher:
        return SharedFlusher(
            self._lock,
            chain,
            self._shared,
            reserve,
            self._view,
            self._announce,
            clock=self._clock,
            timeout_seconds=options.timeout_seconds,
        )

    def append(
        self,
        drafts: AuditDrafts,
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """
        Append records; see `AuditLog.append`.

        The ticket of records with uses ends with `GroupRefusedError` if something has
        changed on which they were decided: then none of the records was written, and
        the uses must be decided again.

        Raises:
            AuditUnavailableError: The log can't be written.
            InvalidInputError: A draft can't be recorded; none of them was.
        """

        def standing() -> Sequence[Draft]:
            # Before the uses are asked: then they stand at this position, or later.
            position = self._view.position
            found = drafts() if callable(drafts) else drafts
            found = [
                replace(draft, revision=position.revision) if draft.subjects else draft
                for draft in found
            ]
            self._flusher.note(Append.of(found, position))
            return found

        is_empty = not (callable(drafts) or drafts)
        return super().append(drafts if is_empty else standing, reserved=reserved)

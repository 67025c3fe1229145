# SPDX-License-Identifier: MIT
"""Audit log check: verifies audit log and retention ledger before any purge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hsm_core._internal.audit.events import event_of
from hsm_core._internal.retention.ledger import Reach, RetentionLedger, reach_of
from hsm_core._internal.retention.state import LedgerAnchor
from hsm_core.errors import InvalidInputError
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditLog

_BLOCK: Final = 200


class TrailCheck:
    """
    Verifies the audit log incrementally, and the complete ledger once.

    Args:
        audit: The trail.

        verify: Verifies a range of it, given the first record and how many.

        ledger: Compared with what the trail says of it.

    Attributes:
        known: The newest place of the ledger that the trail names, if it names any.
    """

    def __init__(
        self,
        audit: AuditLog,
        verify: Callable[[int, int], AuditVerification],
        ledger: RetentionLedger,
    ) -> None:
        self._audit = audit
        self._verify = verify
        self._ledger = ledger
        self._next = 0
        self._is_ledger_verified = False
        self._lost: LedgerAnchor | None = None
        self._is_compared = False
        self.known: LedgerAnchor | None = None

    def compare_once(self) -> Iterator[None]:
        """
        Verify once after the start, even if nothing is purged; see `verify`.

        The first purge still verifies everything.
        """
        if not self._is_compared:
            yield from self.verify()
            self._next, self._is_ledger_verified = 0, False

    def verify(self) -> Iterator[None]:
        """
        Verify up to the present end, a block at each step.

        Raises:
            AuditTamperedError: A record of the trail is bad.
            LedgerTamperedError: The ledger is bad, or not the one that the audit log
                names.
            AuditUnavailableError: One of them can't be read now.
        """
        self._ledger.check_usable()
        if not self._is_ledger_verified:
            yield from self._ledger.verify()
            self._is_ledger_verified = True
        head = self._audit.head().seq
        while self._next <= head:
            self._next = max(self._next, self._audit.first_seq)
            self._verify(self._next, _BLOCK)
            try:
                lines = self._audit.lines(self._next, _BLOCK)
            except InvalidInputError:
                continue  # They were pruned just now.
            for line in lines:
                reach = reach_of(event_of(line, self._next))
                if reach is not None:
                    self._note(reach)
                self._next += 1
            yield
        if self._lost is not None:
            self._ledger.check(self._lost)
        self._is_compared = True

    def _note(self, reach: Reach) -> None:
        if reach.former:
            self._lost = None
        if self._ledger.is_another(reach.anchor):
            self._lost = reach.anchor
        else:
            self._ledger.check(reach.anchor)
            self.known = reach.anchor

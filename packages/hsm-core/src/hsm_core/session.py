# SPDX-License-Identifier: MIT
"""Session: the operations of `HSM.execute` as typed methods."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core._sessions.governance import (
    ApprovalMethods,
    PolicyMethods,
    RetentionMethods,
)
from hsm_core._sessions.keys import KeyMethods, TransferMethods
from hsm_core._sessions.use import BatchMethods, UseMethods
from hsm_core.model import AuditEntry

__all__ = ["Session"]


class Session(
    KeyMethods,
    UseMethods,
    TransferMethods,
    BatchMethods,
    PolicyMethods,
    ApprovalMethods,
    RetentionMethods,
):
    """
    The operations of any `HSM` as methods; arguments and errors are the operations'.

    Args:
        hsm: Embedded, remote or fake.
    """

    def audit_events(
        self, *, limit: int = 50, key_id: str = ""
    ) -> tuple[AuditEntry, ...]:
        """Return the newest audit records; see `ListAuditEvents`."""
        operation = ops.ListAuditEvents(limit=limit, key_id=key_id)
        return self._hsm.execute(operation).items

    def verify_audit(self) -> ops.AuditVerification:
        """Verify the whole audit log, range by range. See `VerifyAudit`."""
        start, verified = 0, 0
        while True:
            found = self._hsm.execute(ops.VerifyAudit(start_seq=start))
            verified += found.verified
            if found.next_seq is None:
                return ops.AuditVerification(
                    start_seq=0,
                    verified=verified,
                    next_seq=None,
                    head_seq=found.head_seq,
                    head_hash=found.head_hash,
                )
            start = found.next_seq

    def status(self) -> ops.HSMStatus:
        """Return the health of the HSM."""
        return self._hsm.execute(ops.Status())

    def algorithms(self) -> tuple[ops.AlgorithmInfo, ...]:
        """Return all algorithms with their providers; see `ListAlgorithms`."""
        return self._hsm.execute(ops.ListAlgorithms()).items

    def self_test(self) -> ops.SelfTestReport:
        """Run all self-tests; see `SelfTest`."""
        return self._hsm.execute(ops.SelfTest())

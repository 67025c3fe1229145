# SPDX-License-Identifier: MIT
"""Session: the operations of `HSM.execute` as typed methods."""

from __future__ import annotations

from msgspec.structs import replace

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
        """
        Verify the whole audit log, range by range. See `VerifyAudit`.

        In a cluster, verify the logs of all nodes. The result is that of the last one,
        but for ``verified``, which counts the records of all.
        """
        ranges: list[ops.AuditVerification] = []
        following: ops.VerifyAudit | None = ops.VerifyAudit()
        while following is not None:
            found = self._hsm.execute(following)
            ranges.append(found)
            following = ops.following_range(following, found)
        logs = ops.join_ranges(ranges)
        return replace(logs[-1], verified=sum(log.verified for log in logs))

    def status(self) -> ops.HSMStatus:
        """Return the health of the HSM."""
        return self._hsm.execute(ops.Status())

    def algorithms(self) -> tuple[ops.AlgorithmInfo, ...]:
        """Return all algorithms with their providers; see `ListAlgorithms`."""
        return self._hsm.execute(ops.ListAlgorithms()).items

    def self_test(self) -> ops.SelfTestReport:
        """Run all self-tests; see `SelfTest`."""
        return self._hsm.execute(ops.SelfTest())

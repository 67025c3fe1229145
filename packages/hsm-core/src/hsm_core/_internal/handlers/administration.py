# SPDX-License-Identifier: MIT
"""The HSM about itself: Status, SelfTest."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core.__about__ import __version__
from hsm_core._internal.clock import instant
from hsm_core._internal.handlers.base import Answer, Handler, Subject
from hsm_core.model import KeyFilter
from hsm_core.protocols import IndexQuery

__all__ = ["SelfTestHandler", "StatusHandler"]


class StatusHandler(Handler[ops.Status, ops.HSMStatus]):
    """Tell the health of the HSM."""

    def perform(self, subject: Subject[ops.Status], /) -> Answer[ops.HSMStatus]:
        """Collect it; nothing is measured anew."""
        services = self._services
        head, now = services.audit.head(), services.clock.now()
        algorithms = services.crypto.statuses()
        tampered = len(services.inventory.tampered)
        stopped = any(row.status == "stopped" for row in algorithms)
        if not services.audit.available:
            state = "error"
        else:
            state = "degraded" if stopped or tampered else "operational"
        return Answer(
            ops.HSMStatus(
                state=state,
                version=__version__,
                started_at=instant(services.started_at),
                uptime_seconds=max(0, now - services.started_at) // 1_000_000,
                keys=services.inventory.store.find(
                    IndexQuery(filter=KeyFilter(), limit=0)
                ).total,
                tampered_keys=tampered,
                audit=ops.AuditStatus(
                    available=services.audit.available,
                    sync=services.audit_sync.value,
                    log_id=services.audit.log_id,
                    head_seq=head.seq,
                    head_hash=head.leaf_hash,
                ),
                algorithms=algorithms,
            )
        )


class SelfTestHandler(Handler[ops.SelfTest, ops.SelfTestReport]):
    """Run the self-tests."""

    def perform(self, subject: Subject[ops.SelfTest], /) -> Answer[ops.SelfTestReport]:
        """Run all; an algorithm that fails gives no output any more."""
        results = self._services.crypto.self_test()
        passed = all(result.passed for result in results)
        return Answer(ops.SelfTestReport(passed=passed, results=results))

    def is_quick(self, operation: ops.SelfTest, /) -> bool:
        """Never."""
        return False

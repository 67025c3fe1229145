# SPDX-License-Identifier: MIT
"""System events of the HSM: start, stop, failed self-tests."""

from __future__ import annotations

from hsm_core.__about__ import __version__
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core.errors import SelfTestFailedError
from hsm_core.model import MessageDetail, Phase
from hsm_core.protocols import AuditDraft


def record_system(services: HandlerDependencies, kind: str) -> None:
    """Record a start or a stop, with the digest over all keys."""
    draft = AuditDraft(
        phase=Phase.SINGLE,
        kind=kind,
        policy=services.policy.policy_hash(),
        set_digest=services.inventory.set_digest,
        detail=MessageDetail(text=f"hsm-core {__version__}"),
    )
    services.audit.append([draft], durable=True, reserved=True).wait()


def record_stopped(services: HandlerDependencies) -> None:
    """Record the algorithms whose power-up self-test failed."""
    drafts = [
        AuditDraft(
            phase=Phase.SINGLE,
            kind="system.self-test",
            code=SelfTestFailedError.code,
            policy=services.policy.policy_hash(),
            detail=MessageDetail(text=row.algorithm.value),
        )
        for row in services.crypto.statuses()
        if row.status == "stopped"
    ]
    if drafts:
        services.audit.append(drafts, durable=True, reserved=True).wait()

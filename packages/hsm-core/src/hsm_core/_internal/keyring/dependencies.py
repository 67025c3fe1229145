# SPDX-License-Identifier: MIT
"""Dependencies that the main parts of an HSM share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core._internal.time.clock_guard import ClockJumpGuard
from hsm_core.errors import Fact, HSMLockedError
from hsm_core.model import MessageDetail, Phase
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, AuditLog, Clock, Entropy
from hsm_core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """
    Shared dependencies of an HSM's parts.

    Attributes:
        settings: Of the HSM.
        inventory: Repository of the keys, with their key ring.
        audit: The trail.
        verify: Verifies a range of it; it knows the audit key.
        policy: The policy in force.
        clock: Time.
        leaps: Clock-jump guard.
        entropy: For ids, salts and seals.
    """

    settings: Settings
    inventory: KeyRepository
    audit: AuditLog
    verify: Callable[[int, int], AuditVerification]
    policy: PolicyHolder
    clock: Clock
    leaps: ClockJumpGuard
    entropy: Entropy

    def lock(self, reason: str, facts: Mapping[str, Fact]) -> None:
        """
        Lock the whole HSM, and record the lock.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        self.inventory.lock.set(reason, facts)
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind="system.locked",
            code=HSMLockedError.code,
            policy=self.policy.policy_hash(),
            detail=MessageDetail(text=reason),
        )
        self.audit.append([draft], durable=True, reserved=True).wait()

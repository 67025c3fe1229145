# SPDX-License-Identifier: MIT
"""What every greater part of an HSM stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hsm_core._internal.inventory import Inventory
from hsm_core._internal.leaps import Leaps
from hsm_core._internal.policy import PolicyHolder
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditLog, Clock, Entropy
from hsm_core.settings import Settings

__all__ = ["Ground"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """
    Parts that the greater ones share.

    Attributes:
        settings: Of the HSM.
        inventory: The keys, with their ring.
        audit: The trail.
        verify: Verifies a range of it; it knows the audit key.
        policy: The policy in force.
        clock: Time.
        leaps: What it leapt over.
        entropy: For ids, salts and seals.
    """

    settings: Settings
    inventory: Inventory
    audit: AuditLog
    verify: Callable[[int, int], AuditVerification]
    policy: PolicyHolder
    clock: Clock
    leaps: Leaps
    entropy: Entropy

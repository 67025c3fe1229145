# SPDX-License-Identifier: MIT
"""
Those of the HSM's doings that are requests: who asks, and what each may ask for.

They go through the pipeline like anybody's, are recorded under a name that no
credential can have, and hold no role, so that no policy gives them more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from hsm_core.model import Caller


class SystemPrincipal(StrEnum):
    """Names under which the HSM itself acts."""

    DESTRUCTION = "system.destruction"
    RETENTION = "system.retention"
    ROTATION = "system.rotation"


SYSTEM_GRANTS: Final[dict[str, frozenset[str]]] = {
    SystemPrincipal.DESTRUCTION: frozenset({"CompleteDestruction"}),
    SystemPrincipal.RETENTION: frozenset(
        {"AllowPurges", "CancelPurge", "PurgeVersion", "SchedulePurge"}
    ),
    SystemPrincipal.ROTATION: frozenset({"RotateKey"}),
}
"""Operations granted to each system caller; approval rules apply to them too."""


def system_caller(principal: SystemPrincipal) -> Caller:
    """Return the caller that a scheduler is."""
    return Caller(principal=principal.value, roles=frozenset())

# SPDX-License-Identifier: MIT
"""Who may do what: pure functions of operation, caller and key facts."""

from hsm_core._internal.policy.changes import decide_update
from hsm_core._internal.policy.engine import RolePolicy
from hsm_core._internal.policy.governance import PROFILES, AlgorithmRule
from hsm_core._internal.policy.roles import GRANTS

__all__ = ["GRANTS", "PROFILES", "AlgorithmRule", "RolePolicy", "decide_update"]

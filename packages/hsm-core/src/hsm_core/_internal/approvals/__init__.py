# SPDX-License-Identifier: MIT
"""
Approvals at rest: their stored form, their rules, and the register that keeps them.

Who must approve what is not decided here.
"""

from hsm_core._internal.approvals.demands import are_one, missing
from hsm_core._internal.approvals.records import (
    MAX_RECORD_BYTES,
    decode_approval,
    encode_approval,
    entry_of,
    read_entry,
)
from hsm_core._internal.approvals.register import ApprovalPage, ApprovalRegister
from hsm_core._internal.approvals.requests import ApprovalRequest
from hsm_core._internal.approvals.retention import PrunedApprovals, prune_approvals
from hsm_core._internal.approvals.rules import MOVES
from hsm_core._internal.approvals.steady_time import SteadyTime
from hsm_core._internal.approvals.witness import Witness

__all__ = [
    "MAX_RECORD_BYTES",
    "MOVES",
    "ApprovalPage",
    "ApprovalRegister",
    "ApprovalRequest",
    "PrunedApprovals",
    "SteadyTime",
    "Witness",
    "are_one",
    "decode_approval",
    "encode_approval",
    "entry_of",
    "missing",
    "prune_approvals",
    "read_entry",
]

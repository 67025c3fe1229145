# SPDX-License-Identifier: MIT
"""
Approvals at rest: their stored form, their rules, and the register that keeps them.

Who must approve what is not decided here.
"""

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

__all__ = [
    "MAX_RECORD_BYTES",
    "MOVES",
    "ApprovalPage",
    "ApprovalRegister",
    "ApprovalRequest",
    "PrunedApprovals",
    "SteadyTime",
    "decode_approval",
    "encode_approval",
    "entry_of",
    "prune_approvals",
    "read_entry",
]

# SPDX-License-Identifier: MIT
"""
Public data model: callers, keys, approvals, audit records.

All are frozen ``msgspec.Struct`` records. Their ``repr`` shows only the type, so that
log lines and tracebacks disclose no values.
"""

from hsm_core.model.approvals import (
    Approval,
    ApprovalDecision,
    ApprovalDemand,
    ApprovalState,
    PolicyOutcome,
)
from hsm_core.model.callers import (
    Caller,
    CertificateIdentity,
    Role,
    parse_role,
)
from hsm_core.model.keys import (
    Integrity,
    KeyFilter,
    KeyId,
    KeyInfo,
    KeyOrigin,
    KeyState,
    RotationRule,
    UseInfo,
    VersionInfo,
)
from hsm_core.model.records import (
    CertificateNames,
    CertificateText,
    Line,
    Parameters,
    ParameterValue,
    Record,
    Secret,
)
from hsm_core.model.trail import (
    ApprovalDetail,
    AuditDetail,
    AuditedCaller,
    AuditedKey,
    AuditEntry,
    AuditEvent,
    BatchDetail,
    CountedDetail,
    MessageDetail,
    Phase,
    PruneDetail,
    RepairDetail,
    ResumeDetail,
)

__all__ = [
    "Approval",
    "ApprovalDecision",
    "ApprovalDemand",
    "ApprovalDetail",
    "ApprovalState",
    "AuditDetail",
    "AuditEntry",
    "AuditEvent",
    "AuditedCaller",
    "AuditedKey",
    "BatchDetail",
    "Caller",
    "CertificateIdentity",
    "CertificateNames",
    "CertificateText",
    "CountedDetail",
    "Integrity",
    "KeyFilter",
    "KeyId",
    "KeyInfo",
    "KeyOrigin",
    "KeyState",
    "Line",
    "MessageDetail",
    "ParameterValue",
    "Parameters",
    "Phase",
    "PolicyOutcome",
    "PruneDetail",
    "Record",
    "RepairDetail",
    "ResumeDetail",
    "Role",
    "RotationRule",
    "Secret",
    "UseInfo",
    "VersionInfo",
    "parse_role",
]

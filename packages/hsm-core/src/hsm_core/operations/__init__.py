# SPDX-License-Identifier: MIT
"""
Every operation of an HSM, with its result: the only list of what an HSM can do.

A request is a value. ``Sign(key_id=…, message=…)`` is written down the same way in
a program, in a REST body, in an IPC frame and (as a digest) in the trail.

Wherever a ``key_id`` is asked for, the unique name of a key is accepted too.
"""

from __future__ import annotations

from typing import Final, TypeAlias, get_args

from hsm_core.model import Record
from hsm_core.operations.approvals import (
    ApprovalInfo,
    ApprovalPage,
    ApprovalStatus,
    Approve,
    CancelApproval,
    DecisionInfo,
    Deny,
    GetApproval,
    ListApprovals,
    Withdraw,
)
from hsm_core.operations.audit import (
    AuditPage,
    AuditStatus,
    AuditVerification,
    ListAuditEvents,
    SyncTimes,
    VerifyAudit,
)
from hsm_core.operations.base import (
    Effect,
    ItemError,
    KeyReference,
    Operation,
    Verified,
    VerifiedBatch,
    VerifiedItem,
    result_type,
)
from hsm_core.operations.encryption import (
    Ciphertext,
    CiphertextBatch,
    DataKey,
    Decapsulate,
    Decrypt,
    DecryptBatch,
    DecryptedItem,
    DecryptItem,
    Encapsulate,
    Encapsulation,
    Encrypt,
    EncryptBatch,
    EncryptedItem,
    EncryptItem,
    GenerateDataKey,
    Open,
    Plaintext,
    PlaintextBatch,
    Rewrap,
    Seal,
    SharedSecret,
)
from hsm_core.operations.keys import (
    ActivateKey,
    CancelDestroy,
    CreateKey,
    DeriveKey,
    DescribeKey,
    DestroyKey,
    ExportKey,
    GetPublicKey,
    ImportKey,
    JSONWebKey,
    KeyPage,
    ListKeys,
    ListVersions,
    PublicKey,
    ResumeKey,
    RevokeKey,
    Rollback,
    RotateKey,
    SetRotation,
    SuspendKey,
    UpdateKey,
    VersionList,
    WrappedKey,
)
from hsm_core.operations.policy import (
    ExplainPolicy,
    PolicyChange,
    PolicyExplanation,
    PolicyInfo,
    PolicyStatus,
    PolicyTest,
    RuleExplanation,
    ShowPolicy,
    TestPolicy,
)
from hsm_core.operations.retention import (
    BeginLedger,
    ExtendRetention,
    HoldKey,
    LedgerBegun,
    LedgerStatus,
    PurgeItem,
    ReleaseKey,
    RetentionCounts,
    RetentionReport,
    RetentionStatus,
)
from hsm_core.operations.service import (
    AlgorithmInfo,
    AlgorithmList,
    AlgorithmStatus,
    BackedUpFile,
    BackUp,
    BackUpStores,
    GenerateRandom,
    HSMStatus,
    KeyCacheStatus,
    KeyFinding,
    ListAlgorithms,
    RandomBytes,
    Recovered,
    RecoverKey,
    RecoverStore,
    ScheduleStatus,
    SelfTest,
    SelfTestReport,
    SelfTestResult,
    Status,
    StoreStatus,
    StoreVerification,
    VerifyStore,
)
from hsm_core.operations.signing import (
    ComputeMac,
    ComputeMacBatch,
    Mac,
    MacBatch,
    MacInput,
    MacItem,
    Sign,
    Signature,
    SignatureBatch,
    SignBatch,
    SignedItem,
    SignItem,
    Verify,
    VerifyBatch,
    VerifyItem,
    VerifyMac,
    VerifyMacBatch,
    VerifyMacItem,
)

__all__ = [
    "OPERATIONS",
    "ActivateKey",
    "AlgorithmInfo",
    "AlgorithmList",
    "AlgorithmStatus",
    "AnyOperation",
    "ApprovalInfo",
    "ApprovalPage",
    "ApprovalStatus",
    "Approve",
    "AuditPage",
    "AuditStatus",
    "AuditVerification",
    "BackUp",
    "BackUpStores",
    "BackedUpFile",
    "BeginLedger",
    "CancelApproval",
    "CancelDestroy",
    "Ciphertext",
    "CiphertextBatch",
    "ComputeMac",
    "ComputeMacBatch",
    "CreateKey",
    "DataKey",
    "Decapsulate",
    "DecisionInfo",
    "Decrypt",
    "DecryptBatch",
    "DecryptItem",
    "DecryptedItem",
    "Deny",
    "DeriveKey",
    "DescribeKey",
    "DestroyKey",
    "Effect",
    "Encapsulate",
    "Encapsulation",
    "Encrypt",
    "EncryptBatch",
    "EncryptItem",
    "EncryptedItem",
    "ExplainPolicy",
    "ExportKey",
    "ExtendRetention",
    "GenerateDataKey",
    "GenerateRandom",
    "GetApproval",
    "GetPublicKey",
    "HSMStatus",
    "HoldKey",
    "ImportKey",
    "ItemError",
    "JSONWebKey",
    "KeyCacheStatus",
    "KeyFinding",
    "KeyPage",
    "KeyReference",
    "LedgerBegun",
    "LedgerStatus",
    "ListAlgorithms",
    "ListApprovals",
    "ListAuditEvents",
    "ListKeys",
    "ListVersions",
    "Mac",
    "MacBatch",
    "MacInput",
    "MacItem",
    "Open",
    "Operation",
    "Plaintext",
    "PlaintextBatch",
    "PolicyChange",
    "PolicyExplanation",
    "PolicyInfo",
    "PolicyStatus",
    "PolicyTest",
    "PublicKey",
    "PurgeItem",
    "RandomBytes",
    "RecoverKey",
    "RecoverStore",
    "Recovered",
    "ReleaseKey",
    "ResumeKey",
    "RetentionCounts",
    "RetentionReport",
    "RetentionStatus",
    "RevokeKey",
    "Rewrap",
    "Rollback",
    "RotateKey",
    "RuleExplanation",
    "ScheduleStatus",
    "Seal",
    "SelfTest",
    "SelfTestReport",
    "SelfTestResult",
    "SetRotation",
    "SharedSecret",
    "ShowPolicy",
    "Sign",
    "SignBatch",
    "SignItem",
    "Signature",
    "SignatureBatch",
    "SignedItem",
    "Status",
    "StoreStatus",
    "StoreVerification",
    "SuspendKey",
    "SyncTimes",
    "TestPolicy",
    "UpdateKey",
    "Verified",
    "VerifiedBatch",
    "VerifiedItem",
    "Verify",
    "VerifyAudit",
    "VerifyBatch",
    "VerifyItem",
    "VerifyMac",
    "VerifyMacBatch",
    "VerifyMacItem",
    "VerifyStore",
    "VersionList",
    "Withdraw",
    "WrappedKey",
    "result_type",
]

AnyOperation: TypeAlias = (
    CreateKey
    | ImportKey
    | DeriveKey
    | ExportKey
    | DescribeKey
    | ListKeys
    | ListVersions
    | RotateKey
    | Rollback
    | RevokeKey
    | DestroyKey
    | GetPublicKey
    | Sign
    | Verify
    | Encrypt
    | Decrypt
    | Encapsulate
    | Decapsulate
    | Seal
    | Open
    | Rewrap
    | GenerateDataKey
    | ComputeMac
    | VerifyMac
    | SignBatch
    | VerifyBatch
    | EncryptBatch
    | DecryptBatch
    | ComputeMacBatch
    | VerifyMacBatch
    | GenerateRandom
    | ListAuditEvents
    | VerifyAudit
    | Status
    | ListAlgorithms
    | VerifyStore
    | BackUpStores
    | RecoverStore
    | RecoverKey
    | SelfTest
    | ActivateKey
    | SuspendKey
    | ResumeKey
    | UpdateKey
    | SetRotation
    | CancelDestroy
    | ShowPolicy
    | ExplainPolicy
    | TestPolicy
    | ListApprovals
    | GetApproval
    | Approve
    | Deny
    | Withdraw
    | CancelApproval
    | ExtendRetention
    | HoldKey
    | ReleaseKey
    | RetentionStatus
    | BeginLedger
)
"""
Tagged union of all operations.

:meta hide-value:
"""

OPERATIONS: Final[tuple[type[Operation[Record]], ...]] = get_args(AnyOperation)
"""All operations, in the order of the reference. :meta hide-value:"""

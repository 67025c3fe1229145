# SPDX-License-Identifier: MIT
"""Handler table: one handler per operation."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from hsm_core import operations as ops
from hsm_core._internal.handlers import (
    approvals,
    audit,
    batches,
    destruction,
    encapsulation,
    encryption,
    inspection,
    key_changes,
    key_creation,
    macs,
    policy,
    retention,
    service,
    signatures,
    transfer,
)
from hsm_core._internal.handlers import destruction as internal
from hsm_core._internal.handlers.base import (
    Handler,
    HandlerDependencies,
    MutationHandler,
)

AnyHandler: TypeAlias = Handler[Any, Any] | MutationHandler[Any, Any]

_CLASSES: Final[dict[type[ops.Operation[Any]], type[AnyHandler]]] = {
    ops.CreateKey: key_creation.CreateKeyHandler,
    ops.ImportKey: transfer.ImportKeyHandler,
    ops.DeriveKey: key_creation.DeriveKeyHandler,
    ops.ExportKey: transfer.ExportKeyHandler,
    ops.DescribeKey: inspection.DescribeKeyHandler,
    ops.ListKeys: inspection.ListKeysHandler,
    ops.ListVersions: inspection.ListVersionsHandler,
    ops.RotateKey: key_changes.RotateKeyHandler,
    ops.Rollback: key_changes.RollbackHandler,
    ops.RevokeKey: key_changes.RevokeKeyHandler,
    ops.DestroyKey: destruction.DestroyKeyHandler,
    ops.GetPublicKey: inspection.GetPublicKeyHandler,
    ops.Sign: signatures.SignHandler,
    ops.Verify: signatures.VerifyHandler,
    ops.Encrypt: encryption.EncryptHandler,
    ops.Decrypt: encryption.DecryptHandler,
    ops.Encapsulate: encapsulation.EncapsulateHandler,
    ops.Decapsulate: encapsulation.DecapsulateHandler,
    ops.Seal: encapsulation.SealHandler,
    ops.Open: encapsulation.OpenHandler,
    ops.Rewrap: encryption.RewrapHandler,
    ops.GenerateDataKey: encryption.GenerateDataKeyHandler,
    ops.ComputeMac: macs.ComputeMacHandler,
    ops.VerifyMac: macs.VerifyMacHandler,
    ops.SignBatch: batches.SignBatchHandler,
    ops.VerifyBatch: batches.VerifyBatchHandler,
    ops.EncryptBatch: batches.EncryptBatchHandler,
    ops.DecryptBatch: batches.DecryptBatchHandler,
    ops.ComputeMacBatch: batches.ComputeMacBatchHandler,
    ops.VerifyMacBatch: batches.VerifyMacBatchHandler,
    ops.GenerateRandom: macs.GenerateRandomHandler,
    ops.ListAuditEvents: audit.ListAuditEventsHandler,
    ops.VerifyAudit: audit.VerifyAuditHandler,
    ops.Status: service.StatusHandler,
    ops.ListAlgorithms: service.ListAlgorithmsHandler,
    ops.VerifyStore: service.VerifyStoreHandler,
    ops.BackUpStores: service.BackUpStoresHandler,
    ops.RecoverStore: service.RecoverStoreHandler,
    ops.RecoverKey: service.RecoverKeyHandler,
    ops.SelfTest: service.SelfTestHandler,
    ops.ActivateKey: key_changes.ActivateKeyHandler,
    ops.SuspendKey: key_changes.SuspendKeyHandler,
    ops.ResumeKey: key_changes.ResumeKeyHandler,
    ops.UpdateKey: key_changes.UpdateKeyHandler,
    ops.SetRotation: key_changes.SetRotationHandler,
    ops.CancelDestroy: destruction.CancelDestroyHandler,
    # Policy
    ops.ShowPolicy: policy.ShowPolicyHandler,
    ops.ExplainPolicy: policy.ExplainPolicyHandler,
    ops.TestPolicy: policy.TestPolicyHandler,
    ops.ListApprovals: approvals.ListApprovalsHandler,
    ops.GetApproval: approvals.GetApprovalHandler,
    ops.Approve: approvals.ApproveHandler,
    ops.Deny: approvals.DenyHandler,
    ops.Withdraw: approvals.WithdrawHandler,
    ops.CancelApproval: approvals.CancelApprovalHandler,
    ops.ExtendRetention: retention.ExtendRetentionHandler,
    ops.HoldKey: retention.HoldKeyHandler,
    ops.ReleaseKey: retention.ReleaseKeyHandler,
    ops.RetentionStatus: retention.RetentionStatusHandler,
    ops.BeginLedger: retention.BeginLedgerHandler,
}


_INTERNAL: Final[dict[type[ops.Operation[Any]], type[AnyHandler]]] = {
    internal.CompleteDestruction: destruction.CompleteDestructionHandler,
    internal.SchedulePurge: retention.SchedulePurgeHandler,
    internal.CancelPurge: retention.CancelPurgeHandler,
    internal.PurgeVersion: retention.PurgeVersionHandler,
    internal.AllowPurges: retention.AllowPurgesHandler,
}
"""Handlers of the internal operations."""


def handler_table(
    services: HandlerDependencies,
) -> dict[type[ops.Operation[Any]], AnyHandler]:
    """Return one handler per operation, those that no caller can send among them."""
    classes = _CLASSES | _INTERNAL
    return {operation: cls(services) for operation, cls in classes.items()}

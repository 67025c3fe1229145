# SPDX-License-Identifier: MIT
"""Handler table: one handler per operation."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from hsm_core import operations as ops
from hsm_core._internal.handlers import (
    administration,
    approvals,
    batches,
    ciphers,
    data_keys,
    derivation,
    endings,
    exports,
    facts,
    imports,
    inspection,
    kems,
    keys,
    life,
    macs,
    new_keys,
    policy,
    recovery,
    retention,
    signatures,
    trail,
)
from hsm_core._internal.handlers import internal_operations as internal
from hsm_core._internal.handlers.base import (
    Handler,
    HandlerDependencies,
    MutationHandler,
)

AnyHandler: TypeAlias = Handler[Any, Any] | MutationHandler[Any, Any]

_CLASSES: Final[dict[type[ops.Operation[Any]], type[AnyHandler]]] = {
    ops.CreateKey: new_keys.CreateKeyHandler,
    ops.ImportKey: imports.ImportKeyHandler,
    ops.DeriveKey: derivation.DeriveKeyHandler,
    ops.ExportKey: exports.ExportKeyHandler,
    ops.DescribeKey: inspection.DescribeKeyHandler,
    ops.ListKeys: inspection.ListKeysHandler,
    ops.ListVersions: inspection.ListVersionsHandler,
    ops.RotateKey: keys.RotateKeyHandler,
    ops.Rollback: keys.RollbackHandler,
    ops.RevokeKey: keys.RevokeKeyHandler,
    ops.DestroyKey: endings.DestroyKeyHandler,
    ops.GetPublicKey: inspection.GetPublicKeyHandler,
    ops.Sign: signatures.SignHandler,
    ops.Verify: signatures.VerifyHandler,
    ops.Encrypt: ciphers.EncryptHandler,
    ops.Decrypt: ciphers.DecryptHandler,
    ops.Encapsulate: kems.EncapsulateHandler,
    ops.Decapsulate: kems.DecapsulateHandler,
    ops.Seal: kems.SealHandler,
    ops.Open: kems.OpenHandler,
    ops.Rewrap: data_keys.RewrapHandler,
    ops.GenerateDataKey: data_keys.GenerateDataKeyHandler,
    ops.ComputeMac: macs.ComputeMacHandler,
    ops.VerifyMac: macs.VerifyMacHandler,
    ops.SignBatch: batches.SignBatchHandler,
    ops.VerifyBatch: batches.VerifyBatchHandler,
    ops.EncryptBatch: batches.EncryptBatchHandler,
    ops.DecryptBatch: batches.DecryptBatchHandler,
    ops.ComputeMacBatch: batches.ComputeMacBatchHandler,
    ops.VerifyMacBatch: batches.VerifyMacBatchHandler,
    ops.GenerateRandom: macs.GenerateRandomHandler,
    ops.ListAuditEvents: trail.ListAuditEventsHandler,
    ops.VerifyAudit: trail.VerifyAuditHandler,
    ops.Status: administration.StatusHandler,
    ops.ListAlgorithms: administration.ListAlgorithmsHandler,
    ops.VerifyStore: recovery.VerifyStoreHandler,
    ops.BackUpStores: recovery.BackUpStoresHandler,
    ops.RecoverStore: recovery.RecoverStoreHandler,
    ops.RecoverKey: recovery.RecoverKeyHandler,
    ops.SelfTest: administration.SelfTestHandler,
    ops.ActivateKey: life.ActivateKeyHandler,
    ops.SuspendKey: life.SuspendKeyHandler,
    ops.ResumeKey: life.ResumeKeyHandler,
    ops.UpdateKey: facts.UpdateKeyHandler,
    ops.SetRotation: life.SetRotationHandler,
    ops.CancelDestroy: endings.CancelDestroyHandler,
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
    internal.CompleteDestruction: endings.CompleteDestructionHandler,
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

# SPDX-License-Identifier: MIT
"""
One valid example request per operation, for the OpenAPI description.

They use keys that a reader can create first: ``release-signer`` (EC-P256),
``document-key`` (AES-256-GCM), ``webhook-mac`` (HMAC-SHA-256), ``mailbox``
(MLKEM768-ECDH-P256-SHA3-256), ``transport`` (RSA-3072 for wrap and unwrap) and
``session-root`` (HKDF-SHA-256).
"""

from __future__ import annotations

import base64
from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.operations import Operation


def _text(words: bytes) -> str:
    return base64.b64encode(words).decode()


_SIGNER: Final = {"key_id": "release-signer"}
_CIPHER: Final = {"key_id": "document-key"}
_MAC: Final = {"key_id": "webhook-mac"}
_MAILBOX: Final = {"key_id": "mailbox"}
_MESSAGE: Final = {"message": _text(b"hello")}
_AAD: Final = {"aad": _text(b"case 7")}
_ENVELOPE: Final = {"ciphertext": _text(bytes(64))}

_APPROVAL: Final = {"approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"}

EXAMPLES: Final[dict[type[Operation[Any]], dict[str, Any]]] = {
    ops.CreateKey: {
        "algorithm": "EC-P256",
        "name": "release-signer",
        "tags": ["operational.critical"],
    },
    ops.ImportKey: {
        "algorithm": "Ed25519",
        "wrapping_key_id": "transport",
        "wrapped": _text(bytes(64)),
        "mechanism": "RSA-OAEP+AES-KWP",
        "name": "moved-signer",
    },
    ops.DeriveKey: {
        "algorithm": "AES-256-GCM",
        "base_key_id": "session-root",
        "info": _text(b"tenant 42"),
        "name": "tenant-42",
    },
    ops.ExportKey: {
        "key_id": "document-key",
        "wrapping_key_id": "transport",
    },
    ops.ListKeys: {"per_page": 20, "state": "active"},
    ops.DescribeKey: _SIGNER,
    ops.DestroyKey: _SIGNER,
    ops.ListVersions: _SIGNER,
    ops.RotateKey: _SIGNER,
    ops.Rollback: {**_SIGNER, "version": 1},
    ops.RevokeKey: {**_SIGNER, "version": 1, "reason": "laptop lost"},
    ops.GetPublicKey: _SIGNER,
    ops.Sign: {**_SIGNER, **_MESSAGE},
    ops.Verify: {**_SIGNER, **_MESSAGE, "signature": _text(bytes(64))},
    ops.Encrypt: {**_CIPHER, "plaintext": _text(b"attack at dawn"), **_AAD},
    ops.Decrypt: {**_CIPHER, **_ENVELOPE, **_AAD},
    ops.Encapsulate: _MAILBOX,
    ops.Decapsulate: {**_MAILBOX, "ciphertext": _text(bytes(1153))},
    ops.Seal: {**_MAILBOX, "plaintext": _text(b"attack at dawn"), **_AAD},
    ops.Open: {**_MAILBOX, **_ENVELOPE, **_AAD},
    ops.Rewrap: {**_CIPHER, **_ENVELOPE, **_AAD},
    ops.GenerateDataKey: {**_CIPHER, "length": 32, **_AAD},
    ops.ComputeMac: {**_MAC, **_MESSAGE},
    ops.VerifyMac: {**_MAC, **_MESSAGE, "mac": _text(bytes(32))},
    ops.SignBatch: {
        **_SIGNER,
        "items": [{"reference": "invoice 7", **_MESSAGE}],
    },
    ops.VerifyBatch: {
        **_SIGNER,
        "items": [
            {"reference": "invoice 7", **_MESSAGE, "signature": _text(bytes(64))}
        ],
    },
    ops.EncryptBatch: {
        **_CIPHER,
        "items": [{"reference": "row 1", "plaintext": _text(b"attack"), **_AAD}],
    },
    ops.DecryptBatch: {
        **_CIPHER,
        "items": [{"reference": "row 1", **_ENVELOPE, **_AAD}],
    },
    ops.ComputeMacBatch: {**_MAC, "items": [{"reference": "row 1", **_MESSAGE}]},
    ops.VerifyMacBatch: {
        **_MAC,
        "items": [{"reference": "row 1", **_MESSAGE, "mac": _text(bytes(32))}],
    },
    ops.GenerateRandom: {"length": 32},
    ops.ListAuditEvents: {"limit": 20},
    ops.VerifyAudit: {"start_seq": 0, "limit": 1000},
    ops.Status: {},
    ops.ListAlgorithms: {},
    ops.VerifyStore: {},
    ops.BackUpStores: {},
    ops.RecoverStore: {"reason": "restored from Monday's backup"},
    ops.RecoverKey: {
        "key_id": "0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11",
        "reason": "lost with a disk",
    },
    ops.SelfTest: {},
    ops.ShowPolicy: {},
    ops.ExplainPolicy: {
        "operation": "Sign",
        "principal": "ci-release",
        "roles": ["Service"],
        "key_id": "release-signer",
        "source_address": "10.1.2.3",
    },
    ops.TestPolicy: {"policy": "version: 1\nextends: strict\n"},
    ops.ActivateKey: {**_SIGNER, "version": 4},
    ops.SuspendKey: {**_SIGNER, "reason": "under investigation"},
    ops.ResumeKey: _SIGNER,
    ops.UpdateKey: {**_SIGNER, "owner": "release team", "tags": ["operational"]},
    ops.SetRotation: {**_SIGNER, "max_age_days": 365},
    ops.CancelDestroy: _SIGNER,
    ops.ListApprovals: {"states": ["pending"], "per_page": 20},
    ops.GetApproval: _APPROVAL,
    ops.Approve: {**_APPROVAL, "digest": "41" * 32, "comment": "as agreed"},
    ops.Deny: {**_APPROVAL, "reason": "not before the audit"},
    ops.Withdraw: {**_APPROVAL, "reason": "the request has changed"},
    ops.CancelApproval: _APPROVAL,
    ops.ExtendRetention: {
        **_SIGNER,
        "version": 2,
        "until": "2030-01-31T12:00:00Z",
    },
    ops.HoldKey: {**_SIGNER, "reason": "case 17/2026"},
    ops.ReleaseKey: {**_SIGNER, "reason": "case 17/2026 is closed"},
    ops.RetentionStatus: {},
    ops.BeginLedger: {"reason": "the disk with the ledger failed"},
}
"""All fields of a valid request, as JSON, by operation."""

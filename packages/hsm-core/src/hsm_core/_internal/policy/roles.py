# SPDX-License-Identifier: MIT
"""The role x operation table, as data. Whatever is not here is denied."""

from __future__ import annotations

from typing import Final

from hsm_core.model import Role

__all__ = ["GRANTS", "REVOKED_USES"]

_DESCRIBE: Final = frozenset(
    {
        "DescribeKey",
        "GetPublicKey",
        "ListAlgorithms",
        "ListKeys",
        "ListVersions",
        "Status",
    }
)
_USE: Final = frozenset(
    {
        "ComputeMac",
        "ComputeMacBatch",
        "Decapsulate",
        "Decrypt",
        "DecryptBatch",
        "Encapsulate",
        "Encrypt",
        "EncryptBatch",
        "GenerateDataKey",
        "GenerateRandom",
        "Open",
        "Rewrap",
        "Seal",
        "Sign",
        "SignBatch",
        "Verify",
        "VerifyBatch",
        "VerifyMac",
        "VerifyMacBatch",
    }
)
_RENEW: Final = frozenset({"CreateKey", "Rollback", "RotateKey"})
_TRANSFER: Final = frozenset({"DeriveKey", "ExportKey", "ImportKey"})
_END: Final = frozenset({"DestroyKey", "RevokeKey"})
_ASK: Final = frozenset({"CancelApproval", "GetApproval", "ListApprovals"})
_CONSENT: Final = frozenset({"Approve", "Deny"})
_AUDIT: Final = frozenset({"ListAuditEvents", "VerifyAudit", "VerifyStore"})
_RECOVER: Final = frozenset({"BackUpStores", "RecoverKey", "RecoverStore"})

GRANTS: Final[dict[Role, frozenset[str]]] = {
    Role.ADMINISTRATOR: (
        _DESCRIBE
        | _RENEW
        | _TRANSFER
        | _END
        | _AUDIT
        | _RECOVER
        | {"SelfTest"}
        | _ASK
        | _CONSENT
    ),
    Role.OPERATOR: (
        _DESCRIBE | _RENEW | _USE | {"DeriveKey", "SelfTest"} | _ASK | _CONSENT
    ),
    Role.AUDITOR: _DESCRIBE | _AUDIT | _ASK | _CONSENT,
    Role.SERVICE: _DESCRIBE | _USE | _ASK,
}
"""Operations each role may do. An Administrator manages keys and does not use them."""

REVOKED_USES: Final = frozenset({"GetPublicKey"})
"""What may still be done with a revoked version: show its public key."""

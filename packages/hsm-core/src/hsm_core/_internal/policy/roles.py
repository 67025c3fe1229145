# SPDX-License-Identifier: MIT
"""The role x operation table, as data. Whatever is not here is denied."""

from __future__ import annotations

from typing import Final

from hsm_core.model import Role

__all__ = ["GRANTS", "REVOKED_USES"]

_DESCRIBE: Final = frozenset(
    {"DescribeKey", "GetPublicKey", "ListKeys", "ListVersions", "Status"}
)
_USE: Final = frozenset(
    {
        "ComputeMac",
        "Decrypt",
        "Encrypt",
        "GenerateRandom",
        "Sign",
        "Verify",
        "VerifyMac",
    }
)
_RENEW: Final = frozenset({"CreateKey", "Rollback", "RotateKey"})
_END: Final = frozenset({"DestroyKey", "RevokeKey"})
_AUDIT: Final = frozenset({"ListAuditEvents", "VerifyAudit"})

GRANTS: Final[dict[Role, frozenset[str]]] = {
    Role.ADMINISTRATOR: _DESCRIBE | _RENEW | _END | _AUDIT | {"SelfTest"},
    Role.OPERATOR: _DESCRIBE | _RENEW | _USE | {"SelfTest"},
    Role.AUDITOR: _DESCRIBE | _AUDIT,
    Role.SERVICE: _DESCRIBE | _USE,
}
"""Operations each role may do. An Administrator manages keys and does not use them."""

REVOKED_USES: Final = frozenset({"GetPublicKey"})
"""What may still be done with a revoked version: show its public key."""

# SPDX-License-Identifier: MIT
"""What a policy knows of operations: their names, and which are about keys."""

from __future__ import annotations

from typing import Final

from hsm_core.operations import OPERATIONS

__all__ = [
    "BATCHES",
    "INTERNAL_OPERATIONS",
    "KEYED",
    "KNOWN_OPERATIONS",
    "MAKING",
    "REVOCABLE",
]

INTERNAL_OPERATIONS: Final = frozenset(
    {
        "AllowPurges",
        "CancelPurge",
        "CompleteDestruction",
        "PurgeVersion",
        "SchedulePurge",
    }
)
"""Operations that only the HSM itself asks for."""

KNOWN_OPERATIONS: Final = INTERNAL_OPERATIONS | {o.__name__ for o in OPERATIONS}
"""Operations that a policy may name."""

BATCHES: Final = {
    name.removesuffix("Batch"): name
    for name in sorted(KNOWN_OPERATIONS)
    if name.endswith("Batch")
}
"""Operations that do many times what another does once, by that other."""

MAKING: Final = frozenset({"CreateKey", "DeriveKey", "ImportKey"})
"""Operations that make a key, whose facts they state."""

KEYED: Final = (
    INTERNAL_OPERATIONS
    | MAKING
    | {"ListKeys"}
    | {
        operation.__name__
        for operation in OPERATIONS
        if "key_id" in operation.__struct_fields__ or operation.other_keys
    }
) - {"ListApprovals", "ListAuditEvents", "RecoverKey"}
"""Operations that conditions about keys can hold for."""

REVOCABLE: Final = frozenset({"GetPublicKey", "Verify", "VerifyMac"})
"""What a policy may allow for revoked versions; nothing else, ever."""

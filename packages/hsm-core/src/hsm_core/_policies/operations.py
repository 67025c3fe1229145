# SPDX-License-Identifier: MIT
"""Operations as a policy knows them: names, those about keys, and twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hsm_core.algorithms import KeyUsage
from hsm_core.operations import OPERATIONS
from hsm_core.protocols import KeyFacts

INTERNAL_OPERATIONS: Final = frozenset(
    {
        "AllowPurges",
        "CancelPurge",
        "CompleteDestruction",
        "PurgeVersion",
        "SchedulePurge",
    }
)
"""Internal operations, requested only by the HSM."""

KNOWN_OPERATIONS: Final = INTERNAL_OPERATIONS | {o.__name__ for o in OPERATIONS}
"""Operations that a policy can name."""

BATCHES: Final = {
    name.removesuffix("Batch"): name
    for name in sorted(KNOWN_OPERATIONS)
    if name.endswith("Batch")
}
"""Batch operations by the operation of a single item."""


@dataclass(frozen=True, slots=True)
class Form:
    """
    One operation that a request is decided as: itself, or a twin that yields the same.

    Attributes:
        requested: Name of the operation that is requested.
        kind: Name of the operation that it is decided as.
        usage: A twin exists on keys with this usage alone; None means on every key.
        needs_grant: Whether the caller must be granted *kind* too. Otherwise only rules
            that deny it or require approval for it count.
    """

    requested: str
    kind: str
    usage: KeyUsage | None = None
    needs_grant: bool = True

    def reached(self, sides: tuple[KeyFacts, ...]) -> tuple[KeyFacts, ...] | None:
        """Return the keys that this form is about; None if no key has it."""
        if self.usage is None:
            return sides
        return tuple(side for side in sides if self.usage in side.usages) or None


_EXPORTED: Final = (
    ("Sign", KeyUsage.SIGN),
    ("Encrypt", KeyUsage.ENCRYPT),
    ("Decrypt", KeyUsage.DECRYPT),
    ("Open", KeyUsage.DECRYPT),
    ("Decapsulate", KeyUsage.DECAPSULATE),
    ("ComputeMac", KeyUsage.MAC),
    ("DeriveKey", KeyUsage.DERIVE),
    ("ImportKey", KeyUsage.UNWRAP),
)

TWINS: Final = (
    *(Form(batch, single) for single, batch in BATCHES.items()),
    # The shared secret of a sealed message opens it, without its AAD.
    Form("Decapsulate", "Open", KeyUsage.DECRYPT),
    Form("RecoverStore", "RecoverKey"),
    # Whoever unwraps an exported key uses it outside. Managing keys and using them are
    # duties of different roles, so export needs no grant of use.
    *(Form("ExportKey", use, usage, needs_grant=False) for use, usage in _EXPORTED),
)
"""
Operations that produce the result of another, whose rules also apply.

Decrypt and Decapsulate have no row for ImportKey: no key may both decrypt and unwrap.
"""

MAKING: Final = frozenset({"CreateKey", "DeriveKey", "ImportKey"})
"""Operations that create a key and state its facts."""

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
"""Operations to which key conditions can apply."""

REVOCABLE: Final = frozenset({"GetPublicKey", "Verify", "VerifyMac"})
"""The only operations that a policy can allow for revoked versions."""

# SPDX-License-Identifier: MIT
"""Key lifecycle: versions, states, rotation, destruction."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.model import KeyInfo
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import (
    Instant,
    KeyReference,
    Reason,
    VersionNumber,
    WaitingDays,
)

__all__ = [
    "ActivateKey",
    "CancelDestroy",
    "DestroyKey",
    "ResumeKey",
    "RevokeKey",
    "Rollback",
    "RotateKey",
    "SetRotation",
    "SuspendKey",
]


class RotateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Create a key version with new key material; old versions decrypt and verify.

    A key whose current version is revoked can be rotated. If the key has a staged
    version, activate or revoke that version first.

    Attributes:
        staged: Whether only the public key of the new version is available, and the old
            version stays current, until `ActivateKey`.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    staged: bool = False


class Rollback(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Create a key version with the key material of an older version.

    Revoked versions are rejected: their key material is compromised.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber


class RevokeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Mark a version, or all versions of a key, as compromised. Irreversible.

    Attributes:
        version: None revokes all versions. Versions with the same key material are
            revoked too.
        reason: Stored with the key and in the audit log; up to 256 characters.
        compromised_at: Estimated time of compromise; must not be in the future. Stored
            and shown with each revoked version.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber | None = None
    reason: Reason = ""
    compromised_at: Instant | None = None


class DestroyKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Destroy all key material, immediately or after a waiting period.

    During the waiting period every version is ``purge_scheduled`` and unusable, and
    `CancelDestroy` restores it. Then the HSM destroys the material and keeps a
    tombstone for each. Time skipped by a clock jump does not count (see
    ``HSMStatus.schedules``). Sent again after the period has ended, the operation
    destroys the key immediately.

    Attributes:
        waiting_days: Waiting period in days of 86 400 seconds; None means the minimum
            of this HSM, which may be 0. None or 0 for a key whose destruction is
            already scheduled.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    waiting_days: WaitingDays | None = None


class ActivateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a staged version current; the active version before it is retired.

    Rejected while the current version is suspended.

    Attributes:
        version: None means the staged version; a key has at most one.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber | None = None


class SuspendKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Suspend the current version: only its public key is available until `ResumeKey`.

    Older, retired versions still decrypt and verify.

    Attributes:
        reason: Stored with the key until it is resumed, and in the audit log.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    reason: Reason = ""


class ResumeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Reactivate a suspended version."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference


class SetRotation(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Configure automatic rotation: the HSM rotates the key at the first limit reached.

    The HSM rotates as ``system.rotation``. If the policy requires approval, it rotates
    once the approval is granted.

    Attributes:
        max_age_days: Days of 86 400 seconds since the current version became active;
            time skipped by a clock jump does not count. None means no limit.
        max_uses: Number of protecting uses of the key material. None means no limit.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    max_age_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    max_uses: Annotated[int, Meta(ge=1, lt=2**53)] | None = None


class CancelDestroy(Operation[KeyInfo], frozen=True, kw_only=True):
    """Cancel a scheduled destruction and restore the previous state."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference

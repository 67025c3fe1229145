# SPDX-License-Identifier: MIT
"""The life of a key: new versions, states, rotation, destruction."""

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
    Make a new version from fresh material; the old one still decrypts and verifies.

    A key whose current version is revoked can be rotated as well. One that has a staged
    version can't: that is activated or revoked first.

    Attributes:
        staged: Whether the new version serves nothing but its public key, and the old
            one stays current, until `ActivateKey`.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    staged: bool = False


class Rollback(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a new version from the material of an older one, sealed anew.

    Refused from a revoked version: compromise goes by material.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber


class RevokeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Mark a version's material, or all of a key, as compromised; for ever.

    Attributes:
        version: None revokes all versions. Other versions with the same material are
            revoked too.
        reason: Kept in the document and in the trail; up to 256 characters.
        compromised_at: Since when the material is compromised, as far as is known; not
            later than now. Kept and shown with each version that is revoked.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber | None = None
    reason: Reason = ""
    compromised_at: Instant | None = None


class DestroyKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Destroy all material of a key, at once or after a waiting time.

    While it waits, every version is ``purge_scheduled`` and serves nothing, and
    `CancelDestroy` gives it back. Then the HSM destroys it; a tombstone per material
    stays. Time that the clock leapt over does not count (see ``HSMStatus.schedules``);
    sent again after the time is over, this destroys the key at once.

    Attributes:
        waiting_days: Days of 86 400 seconds; None means as many as this HSM asks for at
            least, which may be none. Of a key that waits already, None or 0.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    waiting_days: WaitingDays | None = None


class ActivateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a staged version the current one; an active one before it is retired.

    Refused while the current version is suspended.

    Attributes:
        version: None means the staged version, of which a key has one at most.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber | None = None


class SuspendKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Let the current version serve nothing but its public key, until `ResumeKey`.

    Older versions, which are retired, still decrypt and verify.

    Attributes:
        reason: Kept in the document, until it is resumed, and in the trail.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    reason: Reason = ""


class ResumeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Let a suspended version be active again."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference


class SetRotation(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Say when the HSM rotates a key by itself: as soon as one of the two is reached.

    It asks as ``system.rotation``. Where the policy demands approvals for a rotation,
    the key is rotated when they are given.

    Attributes:
        max_age_days: Days of 86 400 seconds since the current version became active;
            time that the clock leapt over does not count. None is no limit.
        max_uses: How often its material has protected something. None is no limit.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    max_age_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    max_uses: Annotated[int, Meta(ge=1, lt=2**53)] | None = None


class CancelDestroy(Operation[KeyInfo], frozen=True, kw_only=True):
    """Give a key back that waits for its destruction, in the state it was in."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference

# SPDX-License-Identifier: MIT
"""The key store: comparison with the trail, backups, recovery."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from hsm_core.model import Record
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import Why

__all__ = [
    "BackUp",
    "BackUpStores",
    "BackedUpFile",
    "KeyFinding",
    "RecoverKey",
    "RecoverStore",
    "Recovered",
    "StoreStatus",
    "StoreVerification",
    "VerifyStore",
]


class KeyFinding(Record, frozen=True, kw_only=True):
    """
    A key that is not as it should be.

    Attributes:
        problem: ``older`` or ``newer`` than the trail says, ``missing``, ``foreign``
            (the trail knows no such key), ``document`` or ``blob`` (it was changed),
            ``counter`` (its use counter was), ``index`` (the index said something false
            of it; that is put right, and the key serves), ``kept`` (a sealed blob of a
            destroyed version can't be deleted; it is never opened).
    """

    key_id: str
    problem: str


class StoreStatus(Record, frozen=True, kw_only=True):
    """
    State of the key store.

    Attributes:
        locked: Why the whole HSM is locked; empty if it is not.
        findings: Up to 100 of the keys that are not as they should be.
        compared: Keys that the current or last scrub has compared.
        to_compare: Keys that it has to compare in all.
        compared_at: When the last scrub came to its end.
    """

    available: bool
    locked: str = ""
    findings: tuple[KeyFinding, ...] = ()
    compared: int = 0
    to_compare: int = 0
    compared_at: datetime | None = None


class StoreVerification(Record, frozen=True, kw_only=True):
    """
    What a comparison of the whole store has found.

    Attributes:
        keys: How many keys were compared.
        findings: Every key that is not as it should be.
    """

    keys: int
    findings: tuple[KeyFinding, ...] = ()


class BackedUpFile(Record, frozen=True, kw_only=True):
    """
    A copy of a database.

    Attributes:
        sha256: Of its content, hex.
    """

    name: str
    size: int
    sha256: str


class BackUp(Record, frozen=True, kw_only=True):
    """
    Copies that belong together.

    Attributes:
        folder: Name of their folder, in the directory of backups.
        head_seq: Newest record of the trail that is surely in the copy.
    """

    folder: str
    head_seq: int
    files: tuple[BackedUpFile, ...]


class Recovered(Record, frozen=True, kw_only=True):
    """
    What a recovery has done.

    Attributes:
        accepted: Keys that are now as they are stored.
        forgotten: Keys that are missing, and not expected any more.
        left: Keys whose document can't be believed; they stay tampered.
        approvals: Approvals that were not as the trail says; they are no more.
    """

    accepted: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()


class VerifyStore(Operation[StoreVerification], frozen=True, kw_only=True):
    """Compare every key with the trail, and every blob with its document, now."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


class BackUpStores(Operation[BackUp], frozen=True, kw_only=True):
    """
    Copy every SQLite database, in use, into a new folder of the backup directory.

    Keys and trail are copied at a moment when they agree. Stores of other kinds are not
    copied. A copy holds sealed keys; who has it and the root has the keys.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


class RecoverStore(Operation[Recovered], frozen=True, kw_only=True):
    """
    Accept the key store as it is, record what that means for each key, and unlock.

    To be used after an older copy was put back on purpose. Keys for authenticated
    encryption that were accepted must be rotated before they encrypt again, because
    their use counters may be older too.

    Attributes:
        reason: Why; stands in the trail.
    """

    reason: Why
    effect: ClassVar = Effect.RECOVERY
    while_locked: ClassVar = True


class RecoverKey(Operation[Recovered], frozen=True, kw_only=True):
    """
    Accept one key as it is, as `RecoverStore` does.

    Attributes:
        key_id: Id of the key; one that is missing has no name.
        reason: Why; stands in the trail.
    """

    key_id: str
    reason: Why
    effect: ClassVar = Effect.RECOVERY
    while_locked: ClassVar = True

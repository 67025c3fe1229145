# SPDX-License-Identifier: MIT
"""Key store: verification, backup, recovery."""

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
    Finding about a stored key.

    Attributes:
        problem: ``older`` or ``newer`` than recorded, ``missing``, ``foreign`` (not
            recorded), ``document``, ``blob`` or ``counter`` (altered), ``index`` (wrong
            index entry; corrected, and the key stays usable), ``kept`` (a sealed blob
            of a destroyed version can't be deleted; it is never opened).
    """

    key_id: str
    problem: str


class StoreStatus(Record, frozen=True, kw_only=True):
    """
    State of the key store.

    Attributes:
        locked: Reason why the HSM is locked; empty if it is not.
        findings: First 100 findings.
        compared: Keys verified by the current or last scrub.
        to_compare: Total number of keys to verify.
        compared_at: End of the last scrub.
    """

    available: bool
    locked: str = ""
    findings: tuple[KeyFinding, ...] = ()
    compared: int = 0
    to_compare: int = 0
    compared_at: datetime | None = None


class StoreVerification(Record, frozen=True, kw_only=True):
    """
    Result of a verification of the whole store.

    Attributes:
        keys: Number of keys verified.
        findings: All findings.
    """

    keys: int
    findings: tuple[KeyFinding, ...] = ()


class BackedUpFile(Record, frozen=True, kw_only=True):
    """
    Backup file of one database.

    Attributes:
        sha256: SHA-256 of the file, hex.
    """

    name: str
    size: int
    sha256: str


class BackUp(Record, frozen=True, kw_only=True):
    """
    Backup: a consistent set of files.

    Attributes:
        folder: Name of the folder in the backup directory.
        head_seq: Newest audit record that the backup is certain to contain.
    """

    folder: str
    head_seq: int
    files: tuple[BackedUpFile, ...]


class Recovered(Record, frozen=True, kw_only=True):
    """
    Result of a recovery.

    Attributes:
        accepted: Keys accepted as stored.
        forgotten: Missing keys, no longer expected.
        left: Keys whose metadata failed its integrity check; they stay tampered.
        approvals: Discarded approvals that differed from the audit log.
    """

    accepted: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()


class VerifyStore(Operation[StoreVerification], frozen=True, kw_only=True):
    """Verify every key against the audit log and every blob against its document."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


class BackUpStores(Operation[BackUp], frozen=True, kw_only=True):
    """
    Back up all SQLite databases online into a new folder of the backup directory.

    Keys and audit log are copied consistently. Other kinds of stores are not copied. A
    backup contains sealed keys: a backup and the root key together disclose the keys.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


class RecoverStore(Operation[Recovered], frozen=True, kw_only=True):
    """
    Accept the key store as it is, record the change of each key, and unlock the HSM.

    Use it after a deliberate restore from a backup. Accepted keys for authenticated
    encryption must be rotated before they encrypt again, because their use counters may
    be outdated too.

    Attributes:
        reason: Recorded in the audit log.
    """

    reason: Why
    effect: ClassVar = Effect.RECOVERY
    while_locked: ClassVar = True


class RecoverKey(Operation[Recovered], frozen=True, kw_only=True):
    """
    Accept one key as it is, as `RecoverStore` does.

    Attributes:
        key_id: Key ID; missing keys have no name.
        reason: Recorded in the audit log.
    """

    key_id: str
    reason: Why
    effect: ClassVar = Effect.RECOVERY
    while_locked: ClassVar = True

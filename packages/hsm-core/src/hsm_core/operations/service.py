# SPDX-License-Identifier: MIT
"""Status, algorithms and self-tests, key store, random bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import CertificateText, Line, Record, Role, Secret
from hsm_core.operations.approvals import ApprovalStatus
from hsm_core.operations.audit import AuditStatus
from hsm_core.operations.base import Effect, Operation, Route, Why
from hsm_core.operations.cluster import ClusterStatus
from hsm_core.operations.policy import PolicyStatus
from hsm_core.operations.retention import RetentionCounts

__all__ = [
    "AlgorithmInfo",
    "AlgorithmList",
    "AlgorithmStatus",
    "BackUp",
    "BackUpStores",
    "BackedUpFile",
    "CallerInfo",
    "DescribeCaller",
    "GenerateRandom",
    "HSMStatus",
    "KeyCacheStatus",
    "KeyFinding",
    "ListAlgorithms",
    "RandomBytes",
    "RecoverKey",
    "RecoverStore",
    "Recovered",
    "ScheduleStatus",
    "SelfTest",
    "SelfTestReport",
    "SelfTestResult",
    "Status",
    "StoreStatus",
    "StoreVerification",
    "VerifyStore",
]


class SelfTestResult(Record, frozen=True, kw_only=True):
    """Outcome of one algorithm's known-answer tests."""

    algorithm: Algorithm
    provider: str
    passed: bool
    reason: str = ""


class SelfTestReport(Record, frozen=True, kw_only=True):
    """Outcome of all self-tests."""

    passed: bool
    results: tuple[SelfTestResult, ...]


class AlgorithmStatus(Record, frozen=True, kw_only=True):
    """
    Provider of an algorithm.

    Attributes:
        status: ``available``, ``unavailable`` or ``stopped`` (a self-test failed).
        hint: Package to install if it is unavailable.
    """

    algorithm: Algorithm
    status: str
    provider: str = ""
    provider_version: str = ""
    hint: str = ""


class AlgorithmInfo(Record, frozen=True, kw_only=True):
    """
    Algorithm with its parameters and provider.

    Sizes are in bytes; 0 if not applicable.

    Attributes:
        category: Security category 1, 2, 3 or 5, or 0.
        public_key_bytes: Raw public key.
        private_key_bytes: Private key as stored: a seed, or a symmetric key.
        signature_bytes: Maximum length of a signature.
        ciphertext_bytes: Encapsulation.
        draft: For a composite, the draft and revision that define it.
        status: ``available``, ``unavailable`` or ``stopped`` (a self-test failed).
        hint: Package to install if it is unavailable.
    """

    algorithm: Algorithm
    family: str
    standard: str
    category: int
    strength_bits: int
    usages: tuple[KeyUsage, ...]
    status: str
    public_key_bytes: int = 0
    private_key_bytes: int = 0
    signature_bytes: int = 0
    ciphertext_bytes: int = 0
    draft: str = ""
    provider: str = ""
    provider_version: str = ""
    hint: str = ""


class AlgorithmList(Record, frozen=True, kw_only=True):
    """Algorithm table."""

    items: tuple[AlgorithmInfo, ...]


class ListAlgorithms(Operation[AlgorithmList], frozen=True, kw_only=True):
    """Return all algorithms with their providers on this machine."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
    route: ClassVar = Route("GET", "/algorithms")


class SelfTest(Operation[SelfTestReport], frozen=True, kw_only=True):
    """Run all self-tests; an algorithm that fails is disabled."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
    route: ClassVar = Route("POST", "/selftest")


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
    route: ClassVar = Route("POST", "/store/verify")


class BackUpStores(Operation[BackUp], frozen=True, kw_only=True):
    """
    Back up all SQLite databases online into a new directory of the backup directory.

    Keys and audit log are copied consistently. Other kinds of stores are not copied. A
    backup contains sealed keys: a backup and the root key together disclose the keys.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/store/backups",
        success=201,
    )


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
    route: ClassVar = Route(
        "POST",
        "/store/recover",
        example={"reason": "restored from Monday's backup"},
    )


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
    route: ClassVar = Route(
        "POST",
        "/store/keys/{key_id}/recover",
        example={
            "key_id": "0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11",
            "reason": "lost with a disk",
        },
    )


class ScheduleStatus(Record, frozen=True, kw_only=True):
    """
    Result of the last scheduler run over all keys.

    Attributes:
        rotating: Keys with automatic rotation.
        rotations_due: Keys whose rotation is overdue: an approval is missing, a staged
            version exists, or the rotation failed.
        destructions: Keys with a scheduled destruction.
        destructions_due: Keys whose destruction is overdue.
        held: Overdue keys that wait because of a clock jump: for the skipped time, or
            until `DestroyKey` is sent again.
        left_out_seconds: Wall-clock seconds excluded because of clock jumps of more
            than a day within a process, or more than a week between two processes.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0


class KeyCacheStatus(Record, frozen=True, kw_only=True):
    """
    Cache of unsealed private and secret keys, since the HSM was opened.

    Attributes:
        hits: Number of cache hits.
        misses: Number of keys read and unsealed.
        stores: Number of keys cached.
    """

    hits: int = 0
    misses: int = 0
    stores: int = 0


class HSMStatus(Record, frozen=True, kw_only=True):
    """
    Health of the HSM.

    Attributes:
        state: ``operational``, ``degraded`` (see the other fields), ``locked`` or
            ``error``.
        keys: Number of keys that are not destroyed.
        tampered_keys: Number of keys that failed their integrity check.
    """

    repr_fields: ClassVar = ("state", "keys")

    state: str
    version: str
    started_at: datetime
    uptime_seconds: int
    keys: int
    tampered_keys: int
    audit: AuditStatus
    algorithms: tuple[AlgorithmStatus, ...]
    store: StoreStatus
    schedules: ScheduleStatus = ScheduleStatus()
    policy: PolicyStatus = PolicyStatus()
    approvals: ApprovalStatus = ApprovalStatus()
    retention: RetentionCounts = RetentionCounts()
    key_cache: KeyCacheStatus = KeyCacheStatus()
    cluster: ClusterStatus = ClusterStatus()


class Status(Operation[HSMStatus], frozen=True, kw_only=True):
    """Return the health of the HSM."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
    route: ClassVar = Route("GET", "/status")


class CallerInfo(Record, frozen=True, kw_only=True):
    """
    Caller, as authenticated.

    Attributes:
        principal: Name of the person or service.
        roles: Roles granted by the credential, in alphabetical order.
        credential_id: ID of the credential, as in the audit log.
        certificate_subject: Subject of the client certificate (RFC 4514), or empty.
        source_address: Network address of the caller, or empty.
    """

    repr_fields: ClassVar = ("principal",)

    principal: Line
    roles: tuple[Role, ...]
    credential_id: Line = ""
    certificate_subject: CertificateText = ""
    source_address: Line = ""


class DescribeCaller(Operation[CallerInfo], frozen=True, kw_only=True):
    """Return the principal and the roles of the caller."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
    route: ClassVar = Route("GET", "/caller")


class RandomBytes(Record, frozen=True, kw_only=True):
    """Bytes of the operating system's generator."""

    random: Secret


class GenerateRandom(Operation[RandomBytes], frozen=True, kw_only=True):
    """Return random bytes of the operating system, 1 to 1 MiB."""

    effect: ClassVar = Effect.USE
    route: ClassVar = Route(
        "POST",
        "/random",
        raw_response="random",
        example={"length": 32},
    )

    length: Annotated[int, Meta(ge=1, le=1_048_576)]

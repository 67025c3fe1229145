# SPDX-License-Identifier: MIT
"""
Every operation of an HSM, with its result: the only list of what an HSM can do.

A request is a value. ``Sign(key_id=…, message=…)`` is written down the same way in
a program, in a REST body, in an IPC frame and (as a digest) in the trail.

Wherever a ``key_id`` is asked for, the unique name of a key is accepted too.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Generic, TypeAlias, TypeVar, get_args

from msgspec import Meta

from hsm_core.algorithms import (
    Algorithm,
    CiphertextEncoding,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
    WrapMechanism,
)
from hsm_core.consent import ShownOperation
from hsm_core.model import (
    ApprovalDemand,
    ApprovalState,
    AuditEntry,
    KeyId,
    KeyInfo,
    KeyState,
    Line,
    PolicyOutcome,
    Record,
    Role,
    Secret,
    VersionInfo,
)

__all__ = [
    "OPERATIONS",
    "ActivateKey",
    "AlgorithmInfo",
    "AlgorithmList",
    "AlgorithmStatus",
    "AnyOperation",
    "ApprovalInfo",
    "ApprovalPage",
    "ApprovalStatus",
    "Approve",
    "AuditPage",
    "AuditStatus",
    "AuditVerification",
    "BackUp",
    "BackUpStores",
    "BackedUpFile",
    "CancelApproval",
    "CancelDestroy",
    "Ciphertext",
    "CiphertextBatch",
    "ComputeMac",
    "ComputeMacBatch",
    "CreateKey",
    "DataKey",
    "Decapsulate",
    "DecisionInfo",
    "Decrypt",
    "DecryptBatch",
    "DecryptItem",
    "DecryptedItem",
    "Deny",
    "DeriveKey",
    "DescribeKey",
    "DestroyKey",
    "Effect",
    "Encapsulate",
    "Encapsulation",
    "Encrypt",
    "EncryptBatch",
    "EncryptItem",
    "EncryptedItem",
    "ExplainPolicy",
    "ExportKey",
    "ExtendRetention",
    "GenerateDataKey",
    "GenerateRandom",
    "GetApproval",
    "GetPublicKey",
    "HSMStatus",
    "HoldKey",
    "ImportKey",
    "ItemError",
    "JSONWebKey",
    "KeyFinding",
    "KeyPage",
    "KeyReference",
    "LedgerStatus",
    "ListAlgorithms",
    "ListApprovals",
    "ListAuditEvents",
    "ListKeys",
    "ListVersions",
    "Mac",
    "MacBatch",
    "MacInput",
    "MacItem",
    "Open",
    "Operation",
    "Plaintext",
    "PlaintextBatch",
    "PolicyChange",
    "PolicyExplanation",
    "PolicyInfo",
    "PolicyStatus",
    "PolicyTest",
    "PublicKey",
    "PurgeItem",
    "RandomBytes",
    "RecoverKey",
    "RecoverStore",
    "Recovered",
    "ReleaseKey",
    "ResumeKey",
    "RetentionCounts",
    "RetentionReport",
    "RetentionStatus",
    "RevokeKey",
    "Rewrap",
    "Rollback",
    "RotateKey",
    "RuleExplanation",
    "ScheduleStatus",
    "Seal",
    "SelfTest",
    "SelfTestReport",
    "SelfTestResult",
    "SetRotation",
    "SharedSecret",
    "ShowPolicy",
    "Sign",
    "SignBatch",
    "SignItem",
    "Signature",
    "SignatureBatch",
    "SignedItem",
    "Status",
    "StoreStatus",
    "StoreVerification",
    "SuspendKey",
    "TestPolicy",
    "UpdateKey",
    "Verified",
    "VerifiedBatch",
    "VerifiedItem",
    "Verify",
    "VerifyAudit",
    "VerifyBatch",
    "VerifyItem",
    "VerifyMac",
    "VerifyMacBatch",
    "VerifyMacItem",
    "VerifyStore",
    "VersionList",
    "WrappedKey",
    "result_type",
]

R_co = TypeVar("R_co", covariant=True)

KeyReference: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-z][0-9a-z._-]{0,63}\Z",
        max_length=64,
        description="UUID or unique name of a key.",
        examples=["3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11", "release-signer"],
    ),
]
KeyName: TypeAlias = Annotated[
    str, Meta(pattern=r"^([0-9a-z][0-9a-z._-]{0,63})?\Z", max_length=64)
]
Tag: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._:/=+@-]{0,63}\Z", max_length=64)
]
Tags: TypeAlias = Annotated[tuple[Tag, ...], Meta(max_length=32)]
Owner: TypeAlias = Annotated[str, Meta(max_length=128)]
Usages: TypeAlias = Annotated[tuple[KeyUsage, ...], Meta(max_length=10)]
ItemReference: TypeAlias = Annotated[
    str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
SignatureContext: TypeAlias = Annotated[bytes, Meta(max_length=255)]
MuBytes: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
AlgorithmName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
VersionNumber: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
PerPage: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Sequence53: TypeAlias = Annotated[int, Meta(ge=0, lt=2**53)]
Text: TypeAlias = Annotated[str, Meta(max_length=1024)]
Reason: TypeAlias = Annotated[
    str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
Why: TypeAlias = Annotated[Line, Meta(min_length=1)]
Instant: TypeAlias = Annotated[
    datetime,
    Meta(
        tz=True,
        description="Date and time with an offset from UTC.",
        examples=["2026-01-31T12:00:00Z"],
    ),
]
WaitingDays: TypeAlias = Annotated[int, Meta(ge=0, le=3650)]
NewOwner: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
ApprovalReference: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z",
        max_length=36,
        description="UUID of an approval.",
        examples=["5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"],
    ),
]
ApprovalDigest: TypeAlias = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{64})?\Z", max_length=64)
]


class Effect(StrEnum):
    """
    What an operation does to the world, which decides how it is recorded.

    A mutation has intent and outcome; a use and a view have one record; a recovery has
    one for each key that it is about, before it takes effect, and one for itself; a
    read of public facts has none unless it is refused. A consent changes an approval;
    it has intent and outcome, too.
    """

    MUTATION = "mutation"
    USE = "use"
    VIEW = "view"
    RECOVERY = "recovery"
    READ = "read"
    CONSENT = "consent"


class Operation(Record, Generic[R_co], frozen=True, kw_only=True, tag=True):
    """
    Base of every operation; the type argument is the type of its result.

    Attributes:
        effect: How it is recorded.
        usage: What the key must be made for, if it uses one.
        other_keys: Fields that name further keys; each is resolved and authorised as
            ``key_id`` is.
        while_locked: Whether a locked HSM serves it too.
    """

    effect: ClassVar[Effect]
    usage: ClassVar[KeyUsage | None] = None
    other_keys: ClassVar[tuple[str, ...]] = ()
    while_locked: ClassVar[bool] = False


# Results


class KeyPage(Record, frozen=True, kw_only=True):
    """
    One page of a listing, newest key first.

    Attributes:
        items: Keys of this page.
        total: How many keys match, over all pages.
        page: Number of this page from 1, or 0 where a cursor was used.
        next_cursor: Where the next page begins; empty on the last one. A walk by cursor
            shows every key once, whatever is created or destroyed meanwhile.
    """

    items: tuple[KeyInfo, ...]
    total: int
    page: int
    per_page: int
    next_cursor: str = ""


class VersionList(Record, frozen=True, kw_only=True):
    """All versions of a key, ascending."""

    key_id: KeyId
    items: tuple[VersionInfo, ...]


class JSONWebKey(Record, frozen=True, kw_only=True):
    """
    A public key as JWK (RFC 7517, 7518 section 6, 8037, 9964).

    Attributes:
        alg: For ``AKP`` keys only.
        pub: Raw public key of an ``AKP`` key, base64url.
    """

    kty: str
    kid: str
    crv: str = ""
    x: str = ""
    y: str = ""
    n: str = ""
    e: str = ""
    alg: str = ""
    pub: str = ""


class PublicKey(Record, frozen=True, kw_only=True):
    """
    A public key in the usual forms.

    Attributes:
        der: SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), DER.
        pem: The same as PEM (RFC 7468).
        jwk: None for algorithms that no RFC gives a JWK.
        raw: The bare public key of algorithms that have one form of it, such as an
            uncompressed point; empty for RSA.
    """

    key_id: KeyId
    version: int
    algorithm: Algorithm
    der: bytes
    pem: str
    jwk: JSONWebKey | None = None
    raw: bytes = b""


class Signature(Record, frozen=True, kw_only=True):
    """
    A signature and how it was made.

    Attributes:
        hash: None for Ed25519, which hashes inside.
        encoding: ``der`` or ``p1363`` for ECDSA, else None.
    """

    key_id: KeyId
    version: int
    algorithm: Algorithm
    scheme: SignatureScheme
    signature: bytes
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None


class Verified(Record, frozen=True, kw_only=True):
    """The signature or MAC is good; *version* made it. A bad one raises."""

    key_id: KeyId
    version: int
    algorithm: Algorithm


class Ciphertext(Record, frozen=True, kw_only=True):
    """A ciphertext; in ``envelope`` encoding it names key and version itself."""

    key_id: KeyId
    version: int
    ciphertext: bytes


class Plaintext(Record, frozen=True, kw_only=True):
    """What a ciphertext held."""

    key_id: KeyId
    version: int
    plaintext: Secret


class Mac(Record, frozen=True, kw_only=True):
    """A message authentication code of full length."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    mac: bytes


class Encapsulation(Record, frozen=True, kw_only=True):
    """
    A fresh shared secret and its encapsulation.

    Attributes:
        ciphertext: What the holder of the private key gets.
        shared_secret: 32 bytes.
    """

    key_id: KeyId
    version: int
    algorithm: Algorithm
    ciphertext: bytes
    shared_secret: Secret


class SharedSecret(Record, frozen=True, kw_only=True):
    """
    What an encapsulation held: 32 bytes.

    An encapsulation that was made for another key, or changed, gives another secret
    and no error (implicit rejection: FIPS 203, section 6.3).
    """

    key_id: KeyId
    version: int
    shared_secret: Secret


class DataKey(Record, frozen=True, kw_only=True):
    """
    A fresh symmetric key for use outside, and the same encrypted.

    Attributes:
        ciphertext: To be kept beside the data; `Decrypt` or `Open` gives the key back.
        plaintext: The key; empty if only the wrapped form was asked for.
    """

    key_id: KeyId
    version: int
    ciphertext: bytes
    plaintext: Secret = b""


class WrappedKey(Record, frozen=True, kw_only=True):
    """
    A key in a form that only the wrapping key opens.

    Attributes:
        version: Version of the exported key.
        wrapping_version: Version of the wrapping key.
        format: What is inside.
        wrapped: For ``AES-KW`` and ``AES-KWP`` the wrapped key; for the others the
            encrypted or encapsulated AES-256 key, then the key that it wraps (KWP).
    """

    key_id: KeyId
    version: int
    algorithm: Algorithm
    format: KeyFormat
    wrapping_key_id: KeyId
    wrapping_version: int
    mechanism: WrapMechanism
    wrapped: bytes


class ItemError(Record, frozen=True, kw_only=True):
    """Why one item of a batch failed: the error's code and message."""

    code: str
    detail: str


class SignedItem(Record, frozen=True, kw_only=True):
    """Answer to one `SignItem`: a signature, or an error."""

    reference: str
    signature: bytes = b""
    error: ItemError | None = None


class VerifiedItem(Record, frozen=True, kw_only=True):
    """Answer to one `VerifyItem` or `VerifyMacItem`: a version, or an error."""

    reference: str
    version: int = 0
    error: ItemError | None = None


class EncryptedItem(Record, frozen=True, kw_only=True):
    """Answer to one `EncryptItem`: a ciphertext, or an error."""

    reference: str
    ciphertext: bytes = b""
    error: ItemError | None = None


class DecryptedItem(Record, frozen=True, kw_only=True):
    """Answer to one `DecryptItem`: a plaintext, or an error."""

    reference: str
    version: int = 0
    plaintext: Secret = b""
    error: ItemError | None = None


class MacItem(Record, frozen=True, kw_only=True):
    """Answer to one `MacInput`: a MAC, or an error."""

    reference: str
    mac: bytes = b""
    error: ItemError | None = None


class SignatureBatch(Record, frozen=True, kw_only=True):
    """Signatures of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    items: tuple[SignedItem, ...]


class VerifiedBatch(Record, frozen=True, kw_only=True):
    """Checks of a batch, in the order of its items."""

    key_id: KeyId
    algorithm: Algorithm
    items: tuple[VerifiedItem, ...]


class CiphertextBatch(Record, frozen=True, kw_only=True):
    """Ciphertexts of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    items: tuple[EncryptedItem, ...]


class PlaintextBatch(Record, frozen=True, kw_only=True):
    """Plaintexts of a batch, in the order of its items."""

    key_id: KeyId
    items: tuple[DecryptedItem, ...]


class MacBatch(Record, frozen=True, kw_only=True):
    """MACs of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    items: tuple[MacItem, ...]


class RandomBytes(Record, frozen=True, kw_only=True):
    """Bytes of the operating system's generator."""

    random: Secret


class AuditPage(Record, frozen=True, kw_only=True):
    """
    Events of the trail.

    Attributes:
        next_seq: Where to go on; None when there is no more. Of a view that follows the
            trail there is always more. A page may be short, even empty, before the end:
            one call looks at a bounded number of records.
        head_seq: Sequence number of the newest record.
        head_hash: Its leaf hash, 64 hex digits.
    """

    items: tuple[AuditEntry, ...]
    next_seq: int | None
    head_seq: int
    head_hash: str


class AuditVerification(Record, frozen=True, kw_only=True):
    """
    How far a verification got; damage raises instead.

    Attributes:
        start_seq: The first record checked: where the call asked for, or the oldest
            that was not pruned.
        verified: Records checked by this call.
        next_seq: Where to go on, or None: everything up to the head is verified.
    """

    start_seq: int
    verified: int
    next_seq: int | None
    head_seq: int
    head_hash: str


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
    Who serves an algorithm.

    Attributes:
        status: ``available``, ``unavailable`` or ``stopped`` (a self-test failed).
        hint: What to install where it is unavailable.
    """

    algorithm: Algorithm
    status: str
    provider: str = ""
    provider_version: str = ""
    hint: str = ""


class AlgorithmInfo(Record, frozen=True, kw_only=True):
    """
    One algorithm: what it is, and who serves it here.

    Sizes are in bytes, and 0 where there is no such thing.

    Attributes:
        category: Security category 1, 2, 3 or 5, or 0.
        public_key_bytes: Raw public key.
        private_key_bytes: Private key as it is kept: a seed, or a symmetric key.
        signature_bytes: Longest signature.
        ciphertext_bytes: Encapsulation.
        draft: For a composite, the draft and revision that define it.
        status: ``available``, ``unavailable`` or ``stopped`` (a self-test failed).
        hint: What to install where it is unavailable.
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
    """The whole table of algorithms."""

    items: tuple[AlgorithmInfo, ...]


class AuditStatus(Record, frozen=True, kw_only=True):
    """
    State of the trail.

    Attributes:
        sync: ``strict`` or ``bounded``.
        head_seq: Sequence number of the newest record, -1 for an empty trail.
        head_hash: Its leaf hash; write it down to compare later.
        state: ``ok``; ``reserve``: the disk is full and only records of recovery and
            administration are taken; ``failing``: nothing is taken.
        cause: Of another state than ok: ``full``, ``write``, ``sync``, ``moved`` or
            ``hanging``.
        failures: How often it failed since the HSM was opened.
        resumes: How often it has healed itself since then.
        first_seq: Oldest record that was not pruned.
    """

    available: bool
    sync: str
    log_id: str
    head_seq: int
    head_hash: str
    state: str = "ok"
    cause: str = ""
    failures: int = 0
    resumes: int = 0
    first_seq: int = 0


class KeyFinding(Record, frozen=True, kw_only=True):
    """
    A key that is not as it should be.

    Attributes:
        problem: ``older`` or ``newer`` than the trail says, ``missing``, ``foreign``
            (the trail knows no such key), ``document`` or ``blob`` (it was changed),
            ``counter`` (its use counter was).
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


class ApprovalStatus(Record, frozen=True, kw_only=True):
    """
    How the approvals are.

    Attributes:
        available: Whether their store can be read and written.
        pending: How many wait for consent; some may have expired unnoticed.
        granted: How many are granted and not used.
        findings: How many are not as the trail says; none of these serves.
    """

    available: bool = True
    pending: int = 0
    granted: int = 0
    findings: int = 0


class ScheduleStatus(Record, frozen=True, kw_only=True):
    """
    What the schedulers found when they last looked at every key.

    Attributes:
        rotating: Keys that the HSM rotates by itself.
        rotations_due: Those of them that are due, and could not be rotated yet: an
            approval is missing, a staged version waits, or it failed.
        destructions: Keys that wait for their destruction.
        destructions_due: Those of them whose time is over, and that are still there.
        held: Those of these that wait because the clock leapt: for as long as it leapt,
            or until `DestroyKey` is sent again.
        left_out_seconds: Wall time that does not count because the clock leapt over it,
            beyond a day in the life of a process, or a week between two of these.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0


class PolicyStatus(Record, frozen=True, kw_only=True):
    """
    Which policy is in force.

    Attributes:
        policy: Its SHA-256, hex, as it stands in the trail.
        source: ``file``, or the name of a built-in policy.
        current: False if the file that lies there now could not be put in force.
        failures: How often a file was refused since the HSM was opened.
    """

    policy: str = ""
    source: str = ""
    current: bool = True
    failures: int = 0


class PolicyInfo(Record, frozen=True, kw_only=True):
    """
    The policy in force.

    Attributes:
        policy: Its SHA-256, hex, as it stands in the trail.
        source: ``file``, or the name of a built-in policy.
        text: What it was read from.
        warnings: What in it was probably not meant.
        loaded_at: When it was read.
        failures: How often a file was refused since the HSM was opened.
        problem: Why the file that lies there now is not in force; else empty.
    """

    policy: str
    source: str
    text: str
    warnings: tuple[str, ...] = ()
    loaded_at: datetime
    failures: int = 0
    problem: str = ""


class RuleExplanation(Record, frozen=True, kw_only=True):
    """
    Whether one rule holds in a request.

    Attributes:
        effect: ``deny``, ``require-approval`` or ``allow``.
        missing: Conditions that are not fulfilled, by their names in the file;
            ``except`` where it is excepted, ``key`` where there is none.
    """

    name: str
    effect: str
    holds: bool
    missing: tuple[str, ...] = ()


class PolicyExplanation(Record, frozen=True, kw_only=True):
    """
    What the policy would say to a request.

    Attributes:
        rule: Which rule decides, as it would stand in the trail.
        policy: SHA-256 of the policy, hex.
        demands: What other people would have to consent to.
        needed: What would be needed, a sentence each.
        rules: Every rule about this operation, by name.
    """

    outcome: PolicyOutcome
    rule: str
    policy: str
    demands: tuple[ApprovalDemand, ...] = ()
    needed: tuple[str, ...] = ()
    rules: tuple[RuleExplanation, ...] = ()


class PolicyChange(Record, frozen=True, kw_only=True):
    """
    A recorded request that another policy would answer otherwise.

    Attributes:
        seq: Its record.
        time: When, in microseconds since 1970.
        before: What was decided.
        before_rule: By which rule, as it stands in the trail.
        after: What would be decided.
        after_rule: By which rule.
        before_demands: What was asked of other people.
        after_demands: What would be asked of them.
    """

    seq: int
    time: int
    principal: str
    operation: str
    key_id: str = ""
    before: PolicyOutcome
    before_rule: str
    after: PolicyOutcome
    after_rule: str
    before_demands: tuple[ApprovalDemand, ...] = ()
    after_demands: tuple[ApprovalDemand, ...] = ()


class PolicyTest(Record, frozen=True, kw_only=True):
    """
    What a policy would have changed.

    Attributes:
        policy: SHA-256 of the policy that was tried, hex.
        warnings: What in it was probably not meant.
        start_seq: First record that was looked at.
        next_seq: Where to go on; None at the head of the trail.
        requests: Requests that were decided again.
        changes: Those that would be answered otherwise, up to 1000.
    """

    policy: str
    warnings: tuple[str, ...] = ()
    start_seq: int
    next_seq: int | None
    requests: int
    changes: tuple[PolicyChange, ...] = ()


class RetentionCounts(Record, frozen=True, kw_only=True):
    """
    Retention in numbers; the whole of it is `RetentionStatus`.

    Attributes:
        enabled: Whether there is a scheduler.
        healthy: Whether nothing keeps it from its work: its policy's file and its
            ledger are well, and no purge waits for an approval of its own.
        queue: Materials that are due or wait for their purge.
        scheduled_total: Purges scheduled since the HSM was opened.
        completed_total: Purges done since the HSM was opened.
    """

    enabled: bool = False
    healthy: bool = True
    queue: int = 0
    scheduled_total: int = 0
    completed_total: int = 0


class HSMStatus(Record, frozen=True, kw_only=True):
    """
    Health of the HSM.

    Attributes:
        state: ``operational``, ``degraded`` (see the other fields), ``locked`` or
            ``error``.
        keys: Number of keys that are not destroyed.
        tampered_keys: Number of keys whose stored form was changed by others.
    """

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


class DecisionInfo(Record, frozen=True, kw_only=True):
    """
    What one person said to a request.

    Attributes:
        roles: Roles that they had then.
        signed: Whether they signed it with a key of their own.
        withdrawn: Whether it counts no more, because they may not do this any more.
    """

    principal: str
    granted: bool
    at: datetime
    comment: str = ""
    roles: tuple[Role, ...] = ()
    signed: bool = False
    withdrawn: bool = False


class ApprovalInfo(Record, frozen=True, kw_only=True):
    """
    A request for approval, as requester and approvers see it.

    Attributes:
        generation: Counts its changes, from 1.
        operation: What is asked for.
        salt: 32 bytes; with it ``consent.shown_sha256`` of *operation* is *digest*.
        digest: What approvers see and sign, hex.
        demands: What must be consented to; all of it.
        missing: What of that is still needed, in words.
        uses_left: For how many operations it may still be used.
        policy: SHA-256 of the policy in force when it was asked for, hex.
        expires_at: From then on it serves nothing.
        closed_at: When it was denied, cancelled, used up or expired.
        operation_id: The operation that has it, or used it last; see the trail.
    """

    approval_id: str
    state: ApprovalState
    generation: int
    operation: ShownOperation
    salt: bytes
    digest: str
    demands: tuple[ApprovalDemand, ...]
    created_at: datetime
    expires_at: datetime
    missing: tuple[str, ...] = ()
    decisions: tuple[DecisionInfo, ...] = ()
    uses_left: int = 1
    policy: str = ""
    closed_at: datetime | None = None
    operation_id: str = ""


class ApprovalPage(Record, frozen=True, kw_only=True):
    """
    One page of approvals, newest first.

    Attributes:
        tampered: Ids of approvals met that are not as the HSM wrote them.
        next_cursor: Where the next page begins; empty on the last one. A page may be
            short, or empty, and yet say where to go on.
    """

    items: tuple[ApprovalInfo, ...]
    tampered: tuple[str, ...] = ()
    next_cursor: str = ""


# Keys


class LedgerStatus(Record, frozen=True, kw_only=True):
    """
    How the retention ledger is.

    Attributes:
        available: Whether the next purge could be written down.
        problem: Why it is not believed, or empty.
        log_id: 32 hex digits.
        head_seq: Its newest record, -1 if there is none.
        head_hash: Leaf hash of that, hex; to be written down elsewhere.
    """

    available: bool
    log_id: str
    head_seq: int
    head_hash: str
    problem: str = ""


class PurgeItem(Record, frozen=True, kw_only=True):
    """
    Old material that is due, or waits for its purge.

    Attributes:
        version: The newest version that has it.
        versions: All of them.
        state: ``due``; ``asked``, when people were asked; ``refused``, when they said
            no, or nothing, lately; ``scheduled``, during the grace period; ``ripe``,
            after it.
        due_at: When its window ended.
        window_days: Length of the window.
        rule: What the window comes from: ``default``, ``tag:…`` or ``override:…``.
        purge_at: When its grace period ends.
        approval_id: The approval that was asked for.
    """

    key_id: KeyId
    version: int
    versions: tuple[int, ...]
    state: str
    due_at: datetime
    window_days: int
    rule: str
    purge_at: datetime | None = None
    approval_id: str = ""


class RetentionReport(Record, frozen=True, kw_only=True):
    """
    How retention stands, as of the last sweep.

    Attributes:
        enabled: Whether there is a scheduler; it needs a policy file and a ledger.
        policy_sha256: Of the policy in force, hex; empty if there is none, and then
            nothing is purged.
        default_days: Window of what nothing else concerns; 0 if there is no policy.
        loaded_at: Since when that policy is in force.
        problem: What is wrong with the policy's file; the last good one stays in force.
        paused: Why no purge is done: empty, ``leap``, ``limit``, ``state``,
            ``approvals`` or ``trail``.
        pause_approval_id: The approval that would let purges go on.
        ledger: How the ledger is; None if there is none.
        queue: Materials that are due or wait for their purge.
        scheduled_total: Purges scheduled since the HSM was opened.
        cancelled_total: Of those, how many were cancelled by what the scheduler found.
        completed_total: Purges done since the HSM was opened.
        failures: Keys that the last sweep could not handle; it comes back to them.
        swept_at: When the last sweep ended.
        items: The first 100 of the queue.
    """

    enabled: bool
    policy_sha256: str = ""
    default_days: int = 0
    loaded_at: datetime | None = None
    problem: str = ""
    paused: str = ""
    pause_approval_id: str = ""
    ledger: LedgerStatus | None = None
    queue: int = 0
    scheduled_total: int = 0
    cancelled_total: int = 0
    completed_total: int = 0
    failures: int = 0
    swept_at: datetime | None = None
    items: tuple[PurgeItem, ...] = ()


class CreateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a key; its first version is active at once, unless it is to be staged.

    Attributes:
        algorithm: Any accepted spelling of an algorithm.
        usages: Empty means the algorithm's default usages. A key that signs or verifies
            may not derive keys too (SP 800-57 part 1, section 5.2).
        owner: Empty means the caller.
        exportable: Whether it may ever leave the HSM, wrapped. It can't be changed.
        staged: Whether its first version serves nothing but its public key, until
            `ActivateKey`.
    """

    effect: ClassVar = Effect.MUTATION

    algorithm: AlgorithmName
    name: KeyName = ""
    owner: Owner = ""
    description: Text = ""
    usages: Usages = ()
    tags: Tags = ()
    exportable: bool = False
    staged: bool = False


class ImportKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a key from material that was made elsewhere and wrapped for this HSM.

    The material is fully checked: an RSA key's numbers, a point on its curve, a
    seed's length. A private key in expanded form only (ML-KEM, ML-DSA) is refused,
    because a provider can't prove that it belongs to a seed, and so is a component
    of a composite.

    Attributes:
        wrapping_key_id: Key of the HSM that the material was wrapped for; it must have
            the usage ``unwrap``.
        wrapped: As `WrappedKey.wrapped`.
        mechanism: None means the first that the wrapping key has.
        format: None means ``pkcs8`` for asymmetric algorithms, ``raw`` for others.
        wrapping_version: None means the current version.
        hash: RSA-OAEP only; None means SHA-256.
        mgf_hash: RSA-OAEP only; None means SHA-256.
        usages: Empty means the algorithm's default usages.
        owner: Empty means the caller.
        exportable: As in `CreateKey`.
    """

    effect: ClassVar = Effect.MUTATION
    other_keys: ClassVar = ("wrapping_key_id",)

    algorithm: AlgorithmName
    wrapping_key_id: KeyReference
    wrapped: Annotated[bytes, Meta(max_length=65_536)]
    mechanism: WrapMechanism | None = None
    format: KeyFormat | None = None
    wrapping_version: VersionNumber | None = None
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None
    name: KeyName = ""
    owner: Owner = ""
    description: Text = ""
    usages: Usages = ()
    tags: Tags = ()
    exportable: bool = False


class DeriveKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a symmetric key from a key of the HSM, by HKDF.

    An HKDF key is the input keying material itself; an EC or X25519 key first agrees
    with *peer_public_key* (ECDH), and HKDF takes the shared secret.

    Attributes:
        base_key_id: Key to derive from; it must have the usage ``derive``.
        algorithm: Of the new key: a symmetric algorithm.
        peer_public_key: SubjectPublicKeyInfo, DER; ECDH only, and required there.
        hash: HKDF's hash; that of an HKDF key, else None means SHA-256.
        salt: HKDF's salt.
        info: What the key is for; HKDF binds it in. Keys of one base key with the same
            salt and info have the same bytes, whatever their algorithms.
        usages: Empty means the algorithm's default usages.
        owner: Empty means the caller.
        exportable: As in `CreateKey`, and only if the base key is exportable itself.
    """

    effect: ClassVar = Effect.MUTATION
    other_keys: ClassVar = ("base_key_id",)

    algorithm: AlgorithmName
    base_key_id: KeyReference
    peer_public_key: Annotated[bytes, Meta(max_length=1024)] | None = None
    hash: HashAlgorithm | None = None
    salt: Annotated[bytes, Meta(max_length=1024)] = b""
    info: Annotated[bytes, Meta(max_length=1024)] = b""
    name: KeyName = ""
    owner: Owner = ""
    description: Text = ""
    usages: Usages = ()
    tags: Tags = ()
    exportable: bool = False


class ExportKey(Operation[WrappedKey], frozen=True, kw_only=True):
    """
    Return a key wrapped by another key of the HSM.

    Refused unless the key was made exportable, and by a wrapping key that is weaker
    than it, in bits of strength (256 are enough for all) or in security category. Of
    RSA 128 bits (RSA-3072) are enough, except for post-quantum keys, which it never
    wraps.

    Attributes:
        wrapping_key_id: It must have the usage ``wrap``.
        version: Of the exported key; None means the current one.
        mechanism: None means the first that the wrapping key has.
        format: None means ``pkcs8`` for asymmetric algorithms, ``raw`` for others.
        hash: RSA-OAEP only; None means SHA-256.
        mgf_hash: RSA-OAEP only; None means SHA-256.
    """

    effect: ClassVar = Effect.USE
    other_keys: ClassVar = ("wrapping_key_id",)

    key_id: KeyReference
    wrapping_key_id: KeyReference
    version: VersionNumber | None = None
    mechanism: WrapMechanism | None = None
    format: KeyFormat | None = None
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None


class DescribeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Return what may be known of a key, after checking what is stored of it."""

    effect: ClassVar = Effect.READ

    key_id: KeyReference


class ListKeys(Operation[KeyPage], frozen=True, kw_only=True):
    """
    Return a page of keys, newest first.

    Attributes:
        page: From 1; not together with *cursor*.
        cursor: ``next_cursor`` of the page before.
        state: State of the current version. Without it, destroyed keys are left out.
        tags: All must be present.
    """

    effect: ClassVar = Effect.READ

    page: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
    per_page: PerPage = 50
    cursor: Annotated[str, Meta(max_length=128)] = ""
    algorithm: Annotated[str, Meta(max_length=64)] = ""
    state: KeyState | None = None
    tags: Annotated[tuple[Tag, ...], Meta(max_length=32)] = ()


class ListVersions(Operation[VersionList], frozen=True, kw_only=True):
    """Return all versions of a key."""

    effect: ClassVar = Effect.READ

    key_id: KeyReference


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


class GetPublicKey(Operation[PublicKey], frozen=True, kw_only=True):
    """Return the public key of a version, by default the current one."""

    effect: ClassVar = Effect.READ

    key_id: KeyReference
    version: VersionNumber | None = None


# Cryptography


class Sign(Operation[Signature], frozen=True, kw_only=True):
    """
    Sign a message with the current version.

    Give one of *message*, *digest* and *mu*.

    Attributes:
        digest: RSA, ECDSA and composites: digest of the message under *hash*.
        mu: ML-DSA only: the external representative of message, context and public
            key, 64 bytes (FIPS 204, algorithm 7, line 6).
        scheme: None means the algorithm's default (PSS for RSA).
        hash: None means the algorithm's default.
        encoding: ECDSA only; None means DER.
        context: ML-DSA, SLH-DSA and composites: up to 255 bytes that separate the
            uses of a key; not together with *mu*, which holds it already.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.SIGN

    key_id: KeyReference
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    mu: MuBytes | None = None
    context: SignatureContext = b""


class Verify(Operation[Verified], frozen=True, kw_only=True):
    """
    Check a signature; a wrong one raises `SignatureMismatchError`.

    Attributes:
        version: None tries every version that may verify, newest first.
        mgf_hash: RSASSA-PSS only; None means the same as *hash*.
        salt_bytes: RSASSA-PSS only; None means any length.
        mu: As in `Sign`.
        context: As in `Sign`.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.VERIFY

    key_id: KeyReference
    signature: bytes
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    version: VersionNumber | None = None
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    mgf_hash: HashAlgorithm | None = None
    salt_bytes: Annotated[int, Meta(ge=0, le=512)] | None = None
    mu: MuBytes | None = None
    context: SignatureContext = b""


class Encrypt(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt with the current version (AES-GCM, ChaCha20-Poly1305 or RSAES-OAEP).

    Attributes:
        aad: Authenticated, not encrypted; for RSA it is part of the OAEP label.
        hash: RSAES-OAEP only; None means SHA-256.
        mgf_hash: RSAES-OAEP only; None means SHA-256.
        encoding: ``raw`` is for RSA only, for parties that know nothing of envelopes.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT

    key_id: KeyReference
    plaintext: Secret
    aad: bytes = b""
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None
    encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE


class Decrypt(Operation[Plaintext], frozen=True, kw_only=True):
    """
    Decrypt; an envelope finds the right version by itself.

    Every failure is the same `DecryptionError`, without detail.

    Attributes:
        version: For ``raw`` only; None means the current version.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""
    version: VersionNumber | None = None
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None
    encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE


class Encapsulate(Operation[Encapsulation], frozen=True, kw_only=True):
    """Make a fresh shared secret for the current version (FIPS 203, section 7.2)."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCAPSULATE

    key_id: KeyReference


class Decapsulate(Operation[SharedSecret], frozen=True, kw_only=True):
    """
    Return the shared secret of an encapsulation (FIPS 203, section 7.3).

    Attributes:
        ciphertext: Exactly as long as the algorithm's encapsulations.
        version: None means the current version.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECAPSULATE

    key_id: KeyReference
    ciphertext: Annotated[bytes, Meta(max_length=4096)]
    version: VersionNumber | None = None


class Seal(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt a message to a KEM key: encapsulation, HKDF-SHA-256, AES-256-GCM.

    With a composite this is hybrid encryption. Whoever has the public key can do the
    same without the HSM (`hsm_core.primitives.seal`).

    Attributes:
        aad: Authenticated, not encrypted.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT

    key_id: KeyReference
    plaintext: Secret
    aad: bytes = b""


class Open(Operation[Plaintext], frozen=True, kw_only=True):
    """
    Decrypt what `Seal` made; it finds the right version by itself.

    Every failure is the same `DecryptionError`, without detail.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""


class Rewrap(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt a ciphertext anew under the current version; nobody sees the plaintext.

    The key needs the usages ``encrypt`` and ``decrypt``.

    Attributes:
        ciphertext: An envelope of `Encrypt`, `Seal` or `GenerateDataKey`.
        aad: What it was made with; it stays the same.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""


class GenerateDataKey(Operation[DataKey], frozen=True, kw_only=True):
    """
    Make a symmetric key for use outside, encrypted by a key of the HSM.

    Attributes:
        length: Bytes of the data key.
        aad: Authenticated with the wrapped form.
        wrapped_only: Don't return the key itself.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT

    key_id: KeyReference
    length: Annotated[int, Meta(ge=16, le=64)] = 32
    aad: bytes = b""
    wrapped_only: bool = False


class ComputeMac(Operation[Mac], frozen=True, kw_only=True):
    """Compute a MAC with the current version."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    message: bytes


class VerifyMac(Operation[Verified], frozen=True, kw_only=True):
    """
    Check a MAC of full length; a wrong one raises `MacMismatchError`.

    Attributes:
        version: None tries every version that may verify, newest first.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    message: bytes
    mac: bytes
    version: VersionNumber | None = None


# Batches


class SignItem(Record, frozen=True, kw_only=True):
    """One message, digest or mu to sign; *reference* comes back with the answer."""

    reference: ItemReference = ""
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    mu: Annotated[bytes, Meta(max_length=64)] | None = None


class VerifyItem(Record, frozen=True, kw_only=True):
    """One signature to check, as in `Verify`."""

    reference: ItemReference = ""
    signature: bytes
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    mu: Annotated[bytes, Meta(max_length=64)] | None = None


class EncryptItem(Record, frozen=True, kw_only=True):
    """One plaintext to encrypt, as in `Encrypt`."""

    reference: ItemReference = ""
    plaintext: Secret
    aad: bytes = b""


class DecryptItem(Record, frozen=True, kw_only=True):
    """One ciphertext to decrypt, as in `Decrypt`."""

    reference: ItemReference = ""
    ciphertext: bytes
    aad: bytes = b""


class MacInput(Record, frozen=True, kw_only=True):
    """One message to compute a MAC of."""

    reference: ItemReference = ""
    message: bytes


class VerifyMacItem(Record, frozen=True, kw_only=True):
    """One MAC to check, as in `VerifyMac`."""

    reference: ItemReference = ""
    message: bytes
    mac: bytes


class SignBatch(Operation[SignatureBatch], frozen=True, kw_only=True):
    """
    Sign up to 1,000 items with the current version; see `Sign`.

    SLH-DSA, which takes up to a second for each, signs 100 at most.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.SIGN

    key_id: KeyReference
    items: Annotated[tuple[SignItem, ...], Meta(min_length=1, max_length=1000)]
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    context: SignatureContext = b""


class VerifyBatch(Operation[VerifiedBatch], frozen=True, kw_only=True):
    """Check up to 1,000 signatures; a wrong one is its item's error. See `Verify`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.VERIFY

    key_id: KeyReference
    items: Annotated[tuple[VerifyItem, ...], Meta(min_length=1, max_length=1000)]
    version: VersionNumber | None = None
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    mgf_hash: HashAlgorithm | None = None
    salt_bytes: Annotated[int, Meta(ge=0, le=512)] | None = None
    context: SignatureContext = b""


class EncryptBatch(Operation[CiphertextBatch], frozen=True, kw_only=True):
    """Encrypt up to 1,000 items with the current version; see `Encrypt`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT

    key_id: KeyReference
    items: Annotated[tuple[EncryptItem, ...], Meta(min_length=1, max_length=1000)]


class DecryptBatch(Operation[PlaintextBatch], frozen=True, kw_only=True):
    """Decrypt up to 1,000 envelopes; see `Decrypt`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT

    key_id: KeyReference
    items: Annotated[tuple[DecryptItem, ...], Meta(min_length=1, max_length=1000)]


class ComputeMacBatch(Operation[MacBatch], frozen=True, kw_only=True):
    """Compute up to 1,000 MACs with the current version."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    items: Annotated[tuple[MacInput, ...], Meta(min_length=1, max_length=1000)]


class VerifyMacBatch(Operation[VerifiedBatch], frozen=True, kw_only=True):
    """Check up to 1,000 MACs; a wrong one is its item's error. See `VerifyMac`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC

    key_id: KeyReference
    items: Annotated[tuple[VerifyMacItem, ...], Meta(min_length=1, max_length=1000)]
    version: VersionNumber | None = None


class GenerateRandom(Operation[RandomBytes], frozen=True, kw_only=True):
    """Return random bytes of the operating system, 1 to 1 MiB."""

    effect: ClassVar = Effect.USE

    length: Annotated[int, Meta(ge=1, le=1_048_576)]


# Audit and administration


class ListAuditEvents(Operation[AuditPage], frozen=True, kw_only=True):
    """
    Return events of the trail; the view itself is recorded.

    Attributes:
        start_seq: First record to look at; None is the newest, or the oldest with
            *ascending*. Ascending from a record that was pruned begins at the oldest;
            from one that is not there yet, there is nothing to show.
        ascending: Oldest first.
        follow: Whether the view goes on with what is recorded later, which needs
            *ascending*; see `AsyncHSM.follow`. Executed, it gives its first page alone.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True

    start_seq: Sequence53 | None = None
    limit: PerPage = 50
    ascending: bool = False
    key_id: Annotated[str, Meta(max_length=64)] = ""
    principal: Annotated[str, Meta(max_length=128)] = ""
    kind: Annotated[str, Meta(max_length=64)] = ""
    follow: bool = False


class VerifyAudit(Operation[AuditVerification], frozen=True, kw_only=True):
    """
    Check a range of the trail: framing, sequence, chain and MAC of every record.

    A range that would begin with records that were pruned begins at the oldest one.

    Raises `AuditTamperedError` with the first bad record and the reason.
    """

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True

    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Status(Operation[HSMStatus], frozen=True, kw_only=True):
    """Return the health of the HSM."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True


class ListAlgorithms(Operation[AlgorithmList], frozen=True, kw_only=True):
    """Return every algorithm, and who serves it on this machine."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True


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


class SelfTest(Operation[SelfTestReport], frozen=True, kw_only=True):
    """Run all self-tests now; a failing algorithm is stopped."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


# Life of a key


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


class UpdateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Change what is said of a key: each field that is not None.

    Rules of the policy match on these facts. So this is decided by the facts that were
    and by those that would be: both must allow it, and what both ask approvals for must
    be approved. Moreover nobody frees a key from a rule by taking off the label that
    the rule goes by. What any operation on the key would need approvals for before the
    change, and not after it, is asked for the change itself; and a change that would
    allow the caller something with this key which they may not do now is refused.

    Attributes:
        name: Unique; empty leaves the key without a name.
        owner: Not empty.
        tags: All of them; those that are not named here are removed.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    name: KeyName | None = None
    description: Text | None = None
    owner: NewOwner | None = None
    tags: Tags | None = None


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


# Policy


class ShowPolicy(Operation[PolicyInfo], frozen=True, kw_only=True):
    """Return the policy in force, and whether a file was refused since it is."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


class ExplainPolicy(Operation[PolicyExplanation], frozen=True, kw_only=True):
    """
    Say what the policy would say to a request, which rule decides, and what is needed.

    Nothing is done. Of a key that is to be made, its facts are given here.

    Attributes:
        operation: Name of the operation, such as ``Sign``.
        principal: Who would ask; no such person need exist.
        roles: Roles that they would have.
        key_id: The key that it would be about, or empty.
        other_key_ids: Keys that it would name besides, such as the one that wraps.
        algorithm: Of a key that would be made.
        usages: Of a key that would be made; empty for its algorithm's defaults.
        name: Of a key that would be made, or the new name of one that is there.
        owner: The same of its owner.
        tags: The same of its tags.
        certificate_sha256: Fingerprint of their client certificate, hex, or empty.
        source_address: Their network address, or empty.
        at: When; None means now.
    """

    effect: ClassVar = Effect.VIEW

    operation: Annotated[str, Meta(min_length=1, max_length=64)]
    principal: Annotated[Line, Meta(min_length=1)]
    roles: Annotated[tuple[Role, ...], Meta(max_length=4)] = ()
    key_id: Annotated[str, Meta(max_length=64)] = ""
    other_key_ids: Annotated[tuple[KeyReference, ...], Meta(max_length=4)] = ()
    algorithm: Annotated[str, Meta(max_length=64)] = ""
    usages: Usages = ()
    name: KeyName | None = None
    owner: Owner | None = None
    tags: Tags | None = None
    certificate_sha256: Line = ""
    source_address: Line = ""
    at: Annotated[datetime, Meta(tz=True)] | None = None


class TestPolicy(Operation[PolicyTest], frozen=True, kw_only=True):
    """
    Replay the trail against a policy, and list every request that it changes.

    Nothing is put in force. Requests that the policy was not asked about, and reads,
    which are not recorded where they succeed, are not among them.

    Attributes:
        policy: The policy: the text of a file.
        start_seq: First record to look at.
        limit: Most records to look at; ``next_seq`` tells where to go on.
    """

    effect: ClassVar = Effect.VIEW

    policy: Annotated[str, Meta(max_length=262_144)]
    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


# Approvals


class ListApprovals(Operation[ApprovalPage], frozen=True, kw_only=True):
    """
    Return a page of approvals, newest first.

    Who may not approve sees their own requests only.

    Attributes:
        states: Any of these; empty for all.
        kind: Name of the operation that is asked for, or empty.
        key_id: Id of the key that it is about, or empty.
        requester: Principal that asked, or empty.
        cursor: ``next_cursor`` of the page before.
    """

    effect: ClassVar = Effect.READ

    states: Annotated[tuple[ApprovalState, ...], Meta(max_length=7)] = ()
    kind: Annotated[str, Meta(max_length=64)] = ""
    key_id: Annotated[str, Meta(max_length=64)] = ""
    requester: Line = ""
    per_page: Annotated[int, Meta(ge=1, le=100)] = 50
    cursor: Annotated[str, Meta(max_length=128)] = ""


class GetApproval(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """Return an approval; who may not approve sees their own requests only."""

    effect: ClassVar = Effect.READ

    approval_id: ApprovalReference


class Approve(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Consent to what somebody else asked for.

    Never to one's own request, nor twice as the same person. Said again, it changes
    nothing.

    Attributes:
        digest: ``digest`` of what was shown; another one is refused. Empty leaves that
            to the approver.
        comment: Recorded.
        signature: Signature over ``consent.statement`` with a key of one's own.
        signer: Which of one's registered keys made it; empty tries all.
    """

    effect: ClassVar = Effect.CONSENT

    approval_id: ApprovalReference
    digest: ApprovalDigest = ""
    comment: Reason = ""
    signature: Annotated[bytes, Meta(max_length=1024)] | None = None
    signer: Line = ""


class Deny(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Refuse what somebody else asked for; it ends the approval, granted or not.

    Attributes:
        reason: Recorded.
        digest: As in `Approve`.
        signature: Over the statement that refuses; nobody has to sign that.
        signer: As in `Approve`.
    """

    effect: ClassVar = Effect.CONSENT

    approval_id: ApprovalReference
    reason: Annotated[Reason, Meta(min_length=1)]
    digest: ApprovalDigest = ""
    signature: Annotated[bytes, Meta(max_length=1024)] | None = None
    signer: Line = ""


class CancelApproval(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """Give up a request of one's own; done again, it changes nothing."""

    effect: ClassVar = Effect.CONSENT

    approval_id: ApprovalReference


# Retention


class ExtendRetention(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Keep the material of a version until an instant, whatever the retention policy says.

    It can't be made shorter again. Material that waits for its purge gets the state
    back that it had.

    Attributes:
        version: All versions with its material are kept with it.
        until: In the future, and later than what it was extended to before.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber
    until: Instant


class HoldKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Put a legal hold on a key: nothing of it is purged or destroyed until `ReleaseKey`.

    Material that waits for its purge gets the state back that it had.

    Attributes:
        reason: Shown with the key, and kept in the trail.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    reason: Why


class ReleaseKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    End the hold on a key.

    Attributes:
        reason: Kept in the trail.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    reason: Why


class RetentionStatus(Operation[RetentionReport], frozen=True, kw_only=True):
    """Return how the retention of old key versions stands."""

    effect: ClassVar = Effect.READ


AnyOperation: TypeAlias = (
    CreateKey
    | ImportKey
    | DeriveKey
    | ExportKey
    | DescribeKey
    | ListKeys
    | ListVersions
    | RotateKey
    | Rollback
    | RevokeKey
    | DestroyKey
    | GetPublicKey
    | Sign
    | Verify
    | Encrypt
    | Decrypt
    | Encapsulate
    | Decapsulate
    | Seal
    | Open
    | Rewrap
    | GenerateDataKey
    | ComputeMac
    | VerifyMac
    | SignBatch
    | VerifyBatch
    | EncryptBatch
    | DecryptBatch
    | ComputeMacBatch
    | VerifyMacBatch
    | GenerateRandom
    | ListAuditEvents
    | VerifyAudit
    | Status
    | ListAlgorithms
    | VerifyStore
    | BackUpStores
    | RecoverStore
    | RecoverKey
    | SelfTest
    | ActivateKey
    | SuspendKey
    | ResumeKey
    | UpdateKey
    | SetRotation
    | CancelDestroy
    # Policy
    | ShowPolicy
    | ExplainPolicy
    | TestPolicy
    | ListApprovals
    | GetApproval
    | Approve
    | Deny
    | CancelApproval
    | ExtendRetention
    | HoldKey
    | ReleaseKey
    | RetentionStatus
)
"""Tagged union of all operations."""

OPERATIONS: Final[tuple[type[Operation[Record]], ...]] = get_args(AnyOperation)
"""Every operation, in the order of the reference."""


def result_type(operation: type[Operation[R_co]]) -> type[R_co]:
    """Return the type of an operation's result."""
    (base,) = operation.__orig_bases__  # type: ignore[attr-defined]
    (result,) = get_args(base)
    found: type[R_co] = result
    return found

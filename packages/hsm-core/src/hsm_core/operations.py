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
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.model import (
    AuditEntry,
    KeyId,
    KeyInfo,
    KeyState,
    Record,
    Secret,
    VersionInfo,
)

__all__ = [
    "OPERATIONS",
    "AlgorithmStatus",
    "AnyOperation",
    "AuditPage",
    "AuditStatus",
    "AuditVerification",
    "Ciphertext",
    "ComputeMac",
    "CreateKey",
    "Decrypt",
    "DescribeKey",
    "DestroyKey",
    "Effect",
    "Encrypt",
    "GenerateRandom",
    "GetPublicKey",
    "HSMStatus",
    "JSONWebKey",
    "KeyPage",
    "ListAuditEvents",
    "ListKeys",
    "ListVersions",
    "Mac",
    "Operation",
    "Plaintext",
    "PublicKey",
    "RandomBytes",
    "RevokeKey",
    "Rollback",
    "RotateKey",
    "SelfTest",
    "SelfTestReport",
    "SelfTestResult",
    "Sign",
    "Signature",
    "Status",
    "Verified",
    "Verify",
    "VerifyAudit",
    "VerifyMac",
    "VersionList",
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
AlgorithmName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
VersionNumber: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
PerPage: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Sequence53: TypeAlias = Annotated[int, Meta(ge=0, lt=2**53)]
Text: TypeAlias = Annotated[str, Meta(max_length=1024)]
Reason: TypeAlias = Annotated[
    str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]


class Effect(StrEnum):
    """
    What an operation does to the world, which decides how it is recorded.

    A mutation has intent and outcome; a use and a view have one record; a read of
    public facts has none unless it is refused.
    """

    MUTATION = "mutation"
    USE = "use"
    VIEW = "view"
    READ = "read"


class Operation(Record, Generic[R_co], frozen=True, kw_only=True, tag=True):
    """
    Base of every operation; the type argument is the type of its result.

    Attributes:
        effect: How it is recorded.
        usage: What the key must be made for, if it uses one.
    """

    effect: ClassVar[Effect]
    usage: ClassVar[KeyUsage | None] = None


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
    """A public key as JWK (RFC 7517, 7518 section 6, 8037)."""

    kty: str
    kid: str
    crv: str = ""
    x: str = ""
    y: str = ""
    n: str = ""
    e: str = ""


class PublicKey(Record, frozen=True, kw_only=True):
    """
    A public key in the usual forms.

    Attributes:
        der: SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), DER.
        pem: The same as PEM (RFC 7468).
    """

    key_id: KeyId
    version: int
    algorithm: Algorithm
    der: bytes
    pem: str
    jwk: JSONWebKey


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


class RandomBytes(Record, frozen=True, kw_only=True):
    """Bytes of the operating system's generator."""

    random: Secret


class AuditPage(Record, frozen=True, kw_only=True):
    """
    Events of the trail.

    Attributes:
        next_seq: Where to go on; None when there is no more. A page may be short, even
            empty, before the end: one call looks at a bounded number of records.
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
    """

    algorithm: Algorithm
    status: str
    provider: str = ""
    provider_version: str = ""


class AuditStatus(Record, frozen=True, kw_only=True):
    """
    State of the trail.

    Attributes:
        sync: ``strict`` or ``bounded``.
        head_seq: Sequence number of the newest record, -1 for an empty trail.
        head_hash: Its leaf hash; write it down to compare later.
    """

    available: bool
    sync: str
    log_id: str
    head_seq: int
    head_hash: str


class HSMStatus(Record, frozen=True, kw_only=True):
    """
    Health of the HSM.

    Attributes:
        state: ``operational``, ``degraded`` (see the other fields) or ``error``.
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


# Keys


class CreateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a key; its first version is active at once.

    Attributes:
        algorithm: Any accepted spelling of an algorithm.
        usages: Empty means the algorithm's default usages.
        owner: Empty means the caller.
    """

    effect: ClassVar = Effect.MUTATION

    algorithm: AlgorithmName
    name: KeyName = ""
    owner: Annotated[str, Meta(max_length=128)] = ""
    description: Text = ""
    usages: Annotated[tuple[KeyUsage, ...], Meta(max_length=10)] = ()
    tags: Annotated[tuple[Tag, ...], Meta(max_length=32)] = ()


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

    A key whose current version is revoked can be rotated as well.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference


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
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber | None = None
    reason: Reason = ""


class DestroyKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Destroy all material of a key; a tombstone per material stays."""

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference


class GetPublicKey(Operation[PublicKey], frozen=True, kw_only=True):
    """Return the public key of a version, by default the current one."""

    effect: ClassVar = Effect.READ

    key_id: KeyReference
    version: VersionNumber | None = None


# Cryptography


class Sign(Operation[Signature], frozen=True, kw_only=True):
    """
    Sign a message with the current version.

    Give either *message* or, for RSA and ECDSA, its *digest* under *hash*.

    Attributes:
        scheme: None means the algorithm's default (PSS for RSA).
        hash: None means the algorithm's default.
        encoding: ECDSA only; None means DER.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.SIGN

    key_id: KeyReference
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None


class Verify(Operation[Verified], frozen=True, kw_only=True):
    """
    Check a signature; a wrong one raises `SignatureMismatchError`.

    Attributes:
        version: None tries every version that may verify, newest first.
        mgf_hash: RSASSA-PSS only; None means the same as *hash*.
        salt_bytes: RSASSA-PSS only; None means any length.
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


class Encrypt(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt with the current version (AES-256-GCM, or RSAES-OAEP).

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


class GenerateRandom(Operation[RandomBytes], frozen=True, kw_only=True):
    """Return random bytes of the operating system, 1 to 1 MiB."""

    effect: ClassVar = Effect.USE

    length: Annotated[int, Meta(ge=1, le=1_048_576)]


# Audit and administration


class ListAuditEvents(Operation[AuditPage], frozen=True, kw_only=True):
    """
    Return events of the trail; the view itself is recorded.

    Attributes:
        start_seq: First record to look at; None is the newest, or 0 with *ascending*.
        ascending: Oldest first.
    """

    effect: ClassVar = Effect.VIEW

    start_seq: Sequence53 | None = None
    limit: PerPage = 50
    ascending: bool = False
    key_id: Annotated[str, Meta(max_length=64)] = ""
    principal: Annotated[str, Meta(max_length=128)] = ""
    kind: Annotated[str, Meta(max_length=64)] = ""


class VerifyAudit(Operation[AuditVerification], frozen=True, kw_only=True):
    """
    Check a range of the trail: framing, sequence, chain and MAC of every record.

    Raises `AuditTamperedError` with the first bad record and the reason.
    """

    effect: ClassVar = Effect.VIEW

    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Status(Operation[HSMStatus], frozen=True, kw_only=True):
    """Return the health of the HSM."""

    effect: ClassVar = Effect.READ


class SelfTest(Operation[SelfTestReport], frozen=True, kw_only=True):
    """Run all self-tests now; a failing algorithm is stopped."""

    effect: ClassVar = Effect.VIEW


AnyOperation: TypeAlias = (
    CreateKey
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
    | ComputeMac
    | VerifyMac
    | GenerateRandom
    | ListAuditEvents
    | VerifyAudit
    | Status
    | SelfTest
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

# SPDX-License-Identifier: MIT
"""Keys: creation, metadata, life cycle, import and export."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from hsm_core.algorithms import (
    Algorithm,
    DerivationFunction,
    HashAlgorithm,
    KeyFormat,
    WrapMechanism,
)
from hsm_core.model import KeyId, KeyInfo, KeyState, Line, Record, VersionInfo
from hsm_core.operations.base import (
    AlgorithmName,
    Effect,
    Instant,
    KeyName,
    KeyReference,
    NewOwner,
    Operation,
    Owner,
    PerPage,
    Reason,
    Route,
    Tag,
    Tags,
    Text,
    Usages,
    VersionNumber,
    WaitingDays,
    base64_text,
)

__all__ = [
    "ActivateKey",
    "CancelDestroy",
    "CreateKey",
    "DeriveKey",
    "DescribeKey",
    "DestroyKey",
    "ExportKey",
    "GetPublicKey",
    "ImportKey",
    "JSONWebKey",
    "KeyPage",
    "ListKeys",
    "ListVersions",
    "PublicKey",
    "ResumeKey",
    "RevokeKey",
    "Rollback",
    "RotateKey",
    "SetRotation",
    "SuspendKey",
    "UpdateKey",
    "VersionList",
    "WrappedKey",
]

MAX_WRAPPED_BYTES: Final = 65_536
"""Most bytes of a key that is imported."""


class KeyPage(Record, frozen=True, kw_only=True):
    """
    One page of a listing, newest key first.

    Attributes:
        items: Keys of this page.
        total: Number of matching keys over all pages.
        page: Page number from 1, or 0 if a cursor was used.
        next_cursor: Cursor of the next page; empty on the last page. Cursors return
            every key exactly once, even if keys are created or destroyed in between.
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
        alg: ``AKP`` keys only.
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
    Public key in the usual encodings.

    Attributes:
        der: SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), DER.
        pem: The same as PEM (RFC 7468).
        jwk: None for algorithms without a JWK format.
        raw: Raw public key, such as an uncompressed point; empty for RSA.
    """

    repr_fields: ClassVar = ("key_id", "version", "algorithm")

    key_id: KeyId
    version: int
    algorithm: Algorithm
    der: bytes
    pem: str
    jwk: JSONWebKey | None = None
    raw: bytes = b""


class CreateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Create a key; its first version is active unless *staged* is set.

    Attributes:
        algorithm: Algorithm name, in any accepted spelling.
        usages: Empty means the algorithm's default usages. Sign and verify can't be
            combined with other usages (SP 800-57 part 1, section 5.2).
        owner: Empty means the caller.
        exportable: Whether the key can be exported in wrapped form. Immutable.
        staged: Whether only the public key is available until `ActivateKey`.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys",
        success=201,
        location="/keys/{key_id}",
        example={
            "algorithm": "EC-P256",
            "name": "release-signer",
            "tags": ["operational.critical"],
        },
    )

    algorithm: AlgorithmName
    name: KeyName = ""
    owner: Owner = ""
    description: Text = ""
    usages: Usages = ()
    tags: Tags = ()
    exportable: bool = False
    staged: bool = False


class DeriveKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Derive a symmetric key from a key of the HSM.

    An HKDF key is the input keying material itself; an EC or X25519 key first agrees
    with *peer_public_key* (ECDH), and *function* takes the shared secret.

    Attributes:
        base_key_id: Base key; it must have the usage ``derive``.
        algorithm: Algorithm of the new key; must be symmetric.
        peer_public_key: SubjectPublicKeyInfo, DER; required for ECDH, else not allowed.
        function: None means HKDF. The others are for ECDH only.
        hash: Hash of the function; None means the hash of an HKDF key, or SHA-256.
        salt: HKDF's salt.
        info: HKDF context, or the shared information of X9.63. Keys derived from one
            base key with the same salt and info have the same bytes, even for different
            algorithms.
        usages: Empty means the algorithm's default usages.
        owner: Empty means the caller.
        exportable: As in `CreateKey`; requires an exportable base key.
    """

    effect: ClassVar = Effect.MUTATION
    other_keys: ClassVar = ("base_key_id",)
    route: ClassVar = Route(
        "POST",
        "/derive",
        success=201,
        location="/keys/{key_id}",
        example={
            "algorithm": "AES-256-GCM",
            "base_key_id": "session-root",
            "info": base64_text(b"tenant 42"),
            "name": "tenant-42",
        },
    )

    algorithm: AlgorithmName
    base_key_id: KeyReference
    peer_public_key: Annotated[bytes, Meta(max_length=1024)] | None = None
    function: DerivationFunction | None = None
    hash: HashAlgorithm | None = None
    salt: Annotated[bytes, Meta(max_length=1024)] = b""
    info: Annotated[bytes, Meta(max_length=1024)] = b""
    name: KeyName = ""
    owner: Owner = ""
    description: Text = ""
    usages: Usages = ()
    tags: Tags = ()
    exportable: bool = False


class DescribeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Return a key's metadata, after checking its stored form."""

    effect: ClassVar = Effect.READ
    route: ClassVar = Route(
        "GET",
        "/keys/{key_id}",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference


class ListKeys(Operation[KeyPage], frozen=True, kw_only=True):
    """
    Return a page of keys, newest first.

    Attributes:
        page: Page number from 1; not together with *cursor*.
        cursor: ``next_cursor`` of the previous page.
        state: State of the current version. If omitted, destroyed keys are excluded.
        tags: Tags that a key must all have.
        search: Prefix of the key ID, or substring of name, owner or a tag; ASCII
            letters in any case.
    """

    effect: ClassVar = Effect.READ
    route: ClassVar = Route(
        "GET",
        "/keys",
        example={"per_page": 20, "state": "active"},
    )

    page: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
    per_page: PerPage = 50
    cursor: Annotated[str, Meta(max_length=128)] = ""
    algorithm: Annotated[str, Meta(max_length=64)] = ""
    state: KeyState | None = None
    tags: Annotated[tuple[Tag, ...], Meta(max_length=32)] = ()
    search: Line = ""


class ListVersions(Operation[VersionList], frozen=True, kw_only=True):
    """Return all versions of a key."""

    effect: ClassVar = Effect.READ
    route: ClassVar = Route(
        "GET",
        "/keys/{key_id}/versions",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference


class GetPublicKey(Operation[PublicKey], frozen=True, kw_only=True):
    """Return the public key of a version, by default the current one."""

    effect: ClassVar = Effect.READ
    route: ClassVar = Route(
        "GET",
        "/keys/{key_id}/public-key",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference
    version: VersionNumber | None = None


class UpdateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Update a key's metadata; fields that are None stay unchanged.

    Policy rules match on this metadata, so the policy must allow the update both with
    the old and with the new values, and the approvals of both are required. An update
    can't free a key from a rule: if an operation on the key requires approval before
    the update and not after it, the update itself requires that approval. An update
    that would grant the caller a new right on the key is denied.

    Attributes:
        name: Unique name; empty removes the name.
        owner: Owner; must not be empty.
        tags: Complete new set of tags; other tags are removed.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "PATCH",
        "/keys/{key_id}",
        example={
            "key_id": "release-signer",
            "owner": "release team",
            "tags": ["operational"],
        },
    )

    key_id: KeyReference
    name: KeyName | None = None
    description: Text | None = None
    owner: NewOwner | None = None
    tags: Tags | None = None


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
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/rotate",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference
    staged: bool = False


class Rollback(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Create a key version with the key material of an older version.

    Revoked versions are rejected: their key material is compromised.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/rollback",
        example={"key_id": "release-signer", "version": 1},
    )

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
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/revoke",
        example={"key_id": "release-signer", "version": 1, "reason": "laptop lost"},
    )

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
    route: ClassVar = Route(
        "DELETE",
        "/keys/{key_id}",
        example={"key_id": "release-signer"},
    )

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
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/activate",
        example={"key_id": "release-signer", "version": 4},
    )

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
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/suspend",
        example={"key_id": "release-signer", "reason": "under investigation"},
    )

    key_id: KeyReference
    reason: Reason = ""


class ResumeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Reactivate a suspended version."""

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/resume",
        example={"key_id": "release-signer"},
    )

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
    route: ClassVar = Route(
        "PUT",
        "/keys/{key_id}/rotation",
        example={"key_id": "release-signer", "max_age_days": 365},
    )

    key_id: KeyReference
    max_age_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    max_uses: Annotated[int, Meta(ge=1, lt=2**53)] | None = None


class CancelDestroy(Operation[KeyInfo], frozen=True, kw_only=True):
    """Cancel a scheduled destruction and restore the previous state."""

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/cancel-destroy",
        example={"key_id": "release-signer"},
    )

    key_id: KeyReference


class WrappedKey(Record, frozen=True, kw_only=True):
    """
    Key wrapped by a wrapping key.

    Attributes:
        version: Version of the exported key.
        wrapping_version: Version of the wrapping key.
        format: Format of the wrapped material.
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


class ImportKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Import key material that was wrapped for this HSM.

    The material is fully checked: an RSA key's numbers, a point on its curve, a
    seed's length. Private keys in expanded form only (ML-KEM, ML-DSA) are rejected,
    because no provider can prove that they belong to a seed. Components of composites
    are rejected too.

    Attributes:
        wrapping_key_id: Unwrapping key of the HSM; it must have the usage ``unwrap``.
        wrapped: As `WrappedKey.wrapped`.
        mechanism: None means the first mechanism of the wrapping key.
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
    route: ClassVar = Route(
        "POST",
        "/import",
        success=201,
        location="/keys/{key_id}",
        example={
            "algorithm": "Ed25519",
            "wrapping_key_id": "transport",
            "wrapped": base64_text(bytes(64)),
            "mechanism": "RSA-OAEP+AES-KWP",
            "name": "moved-signer",
        },
    )

    algorithm: AlgorithmName
    wrapping_key_id: KeyReference
    wrapped: Annotated[bytes, Meta(max_length=MAX_WRAPPED_BYTES)]
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


class ExportKey(Operation[WrappedKey], frozen=True, kw_only=True):
    """
    Return a key wrapped by another key of the HSM.

    The key must be exportable, and the wrapping key must not be weaker: in bits of
    security strength, of which 128 are always enough, or in security category, except
    for AEAD and MAC keys. So RSA-3072 can't wrap post-quantum keys, or keys that wrap
    or derive other keys.

    Attributes:
        wrapping_key_id: Wrapping key; it must have the usage ``wrap``.
        version: Version of the exported key; None means the current version.
        mechanism: None means the first mechanism of the wrapping key.
        format: None means ``pkcs8`` for asymmetric algorithms, ``raw`` for others.
        hash: RSA-OAEP only; None means SHA-256.
        mgf_hash: RSA-OAEP only; None means SHA-256.
    """

    effect: ClassVar = Effect.USE
    other_keys: ClassVar = ("wrapping_key_id",)
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/export",
        raw_response="wrapped",
        example={"key_id": "document-key", "wrapping_key_id": "transport"},
    )

    key_id: KeyReference
    wrapping_key_id: KeyReference
    version: VersionNumber | None = None
    mechanism: WrapMechanism | None = None
    format: KeyFormat | None = None
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None

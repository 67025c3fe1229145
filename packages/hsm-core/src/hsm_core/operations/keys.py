# SPDX-License-Identifier: MIT
"""Keys: creation, lookup and metadata."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.model import KeyId, KeyInfo, KeyState, Line, Record, VersionInfo
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import (
    AlgorithmName,
    KeyName,
    KeyReference,
    NewOwner,
    Owner,
    PerPage,
    Tag,
    Tags,
    Text,
    Usages,
    VersionNumber,
)

__all__ = [
    "CreateKey",
    "DeriveKey",
    "DescribeKey",
    "GetPublicKey",
    "JSONWebKey",
    "KeyPage",
    "ListKeys",
    "ListVersions",
    "PublicKey",
    "UpdateKey",
    "VersionList",
]


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
    Derive a symmetric key from a key of the HSM by HKDF.

    An HKDF key is the input keying material itself; an EC or X25519 key first agrees
    with *peer_public_key* (ECDH), and HKDF takes the shared secret.

    Attributes:
        base_key_id: Base key; it must have the usage ``derive``.
        algorithm: Algorithm of the new key; must be symmetric.
        peer_public_key: SubjectPublicKeyInfo, DER; required for ECDH, else not allowed.
        hash: HKDF hash; None means the hash of an HKDF key, or SHA-256.
        salt: HKDF's salt.
        info: HKDF context. Keys derived from one base key with the same salt and info
            have the same bytes, even for different algorithms.
        usages: Empty means the algorithm's default usages.
        owner: Empty means the caller.
        exportable: As in `CreateKey`; requires an exportable base key.
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


class DescribeKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """Return a key's metadata, after checking its stored form."""

    effect: ClassVar = Effect.READ

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

    key_id: KeyReference


class GetPublicKey(Operation[PublicKey], frozen=True, kw_only=True):
    """Return the public key of a version, by default the current one."""

    effect: ClassVar = Effect.READ

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

    key_id: KeyReference
    name: KeyName | None = None
    description: Text | None = None
    owner: NewOwner | None = None
    tags: Tags | None = None

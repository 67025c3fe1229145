# SPDX-License-Identifier: MIT
"""Making keys, finding them, and saying what they are for."""

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


class CreateKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Make a key; its first version is active at once, unless it is to be staged.

    Attributes:
        algorithm: Any accepted spelling of an algorithm.
        usages: Empty means the algorithm's default usages. A key that signs or verifies
            has no other purpose (SP 800-57 part 1, section 5.2).
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
        search: What the id begins with, or what stands anywhere in the name, in the
            owner or in a tag; ASCII letters in any case.
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

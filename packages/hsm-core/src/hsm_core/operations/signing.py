# SPDX-License-Identifier: MIT
"""Signatures and MACs, one or many at a time."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.model import KeyId, Record
from hsm_core.operations.base import (
    Effect,
    ItemError,
    ItemReference,
    KeyReference,
    MuBytes,
    Operation,
    Route,
    SignatureContext,
    Verified,
    VerifiedBatch,
    VersionNumber,
    base64_text,
)

__all__ = [
    "ComputeMac",
    "ComputeMacBatch",
    "Mac",
    "MacBatch",
    "MacInput",
    "MacItem",
    "Sign",
    "SignBatch",
    "SignItem",
    "Signature",
    "SignatureBatch",
    "SignedItem",
    "Verify",
    "VerifyBatch",
    "VerifyItem",
    "VerifyMac",
    "VerifyMacBatch",
    "VerifyMacItem",
]


class Signature(Record, frozen=True, kw_only=True):
    """
    Signature with its parameters.

    Attributes:
        hash: None for Ed25519, which hashes inside.
        encoding: ``der`` or ``p1363`` for ECDSA, else None.
    """

    repr_fields: ClassVar = ("key_id", "version", "algorithm")

    key_id: KeyId
    version: int
    algorithm: Algorithm
    scheme: SignatureScheme
    signature: bytes
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None


class SignedItem(Record, frozen=True, kw_only=True):
    """Answer to one `SignItem`: a signature, or an error."""

    reference: str
    signature: bytes = b""
    error: ItemError | None = None


class SignatureBatch(Record, frozen=True, kw_only=True):
    """Signatures of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    items: tuple[SignedItem, ...]


class Sign(Operation[Signature], frozen=True, kw_only=True):
    """
    Sign a message with the current version.

    Pass exactly one of *message*, *digest* and *mu*.

    Attributes:
        digest: RSA, ECDSA and composites: digest of the message under *hash*.
        mu: ML-DSA only: the external representative of message, context and public
            key, 64 bytes (FIPS 204, algorithm 7, line 6).
        scheme: None means the algorithm's default (PSS for RSA).
        hash: None means the algorithm's default.
        encoding: ECDSA only; None means DER.
        context: ML-DSA, SLH-DSA and composites: up to 255 bytes that separate the
            uses of a key; not together with *mu*, which includes it.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.SIGN
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/sign",
        raw_request="message",
        raw_response="signature",
        example={"key_id": "release-signer", "message": base64_text(b"hello")},
    )

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
    Verify a signature; an invalid one raises `SignatureMismatchError`.

    Attributes:
        version: None tries every version that may verify, newest first.
        mgf_hash: RSASSA-PSS only; None means the same as *hash*.
        salt_bytes: RSASSA-PSS only: salt length, limited by the modulus. None means any
            length up to the hash length (FIPS 186-5, section 5.4).
        mu: As in `Sign`.
        context: As in `Sign`.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.VERIFY
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/verify",
        raw_request="message",
        example={
            "key_id": "release-signer",
            "message": base64_text(b"hello"),
            "signature": base64_text(bytes(64)),
        },
    )

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


class SignItem(Record, frozen=True, kw_only=True):
    """Message, digest or mu to sign; the result repeats *reference*."""

    reference: ItemReference = ""
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    mu: Annotated[bytes, Meta(max_length=64)] | None = None


class VerifyItem(Record, frozen=True, kw_only=True):
    """Signature to verify, as in `Verify`."""

    reference: ItemReference = ""
    signature: bytes
    message: bytes | None = None
    digest: Annotated[bytes, Meta(max_length=64)] | None = None
    mu: Annotated[bytes, Meta(max_length=64)] | None = None


class SignBatch(Operation[SignatureBatch], frozen=True, kw_only=True):
    """
    Sign up to 1,000 items with the current version; see `Sign`.

    SLH-DSA, up to a second per signature, is limited to 100 items.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.SIGN
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/sign/batch",
        example={
            "key_id": "release-signer",
            "items": [{"reference": "invoice 7", "message": base64_text(b"hello")}],
        },
    )

    key_id: KeyReference
    items: Annotated[tuple[SignItem, ...], Meta(min_length=1, max_length=1000)]
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    context: SignatureContext = b""


class VerifyBatch(Operation[VerifiedBatch], frozen=True, kw_only=True):
    """Verify up to 1,000 signatures; each invalid one fails its item. See `Verify`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.VERIFY
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/verify/batch",
        example={
            "key_id": "release-signer",
            "items": [
                {
                    "reference": "invoice 7",
                    "message": base64_text(b"hello"),
                    "signature": base64_text(bytes(64)),
                }
            ],
        },
    )

    key_id: KeyReference
    items: Annotated[tuple[VerifyItem, ...], Meta(min_length=1, max_length=1000)]
    version: VersionNumber | None = None
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    mgf_hash: HashAlgorithm | None = None
    salt_bytes: Annotated[int, Meta(ge=0, le=512)] | None = None
    context: SignatureContext = b""


class Mac(Record, frozen=True, kw_only=True):
    """A message authentication code of full length."""

    repr_fields: ClassVar = ("key_id", "version", "algorithm")

    key_id: KeyId
    version: int
    algorithm: Algorithm
    mac: bytes


class MacItem(Record, frozen=True, kw_only=True):
    """Answer to one `MacInput`: a MAC, or an error."""

    reference: str
    mac: bytes = b""
    error: ItemError | None = None


class MacBatch(Record, frozen=True, kw_only=True):
    """MACs of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    algorithm: Algorithm
    items: tuple[MacItem, ...]


class ComputeMac(Operation[Mac], frozen=True, kw_only=True):
    """Compute a MAC with the current version."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/mac",
        raw_request="message",
        example={"key_id": "webhook-mac", "message": base64_text(b"hello")},
    )

    key_id: KeyReference
    message: bytes


class VerifyMac(Operation[Verified], frozen=True, kw_only=True):
    """
    Verify a full-length MAC; an invalid one raises `MacMismatchError`.

    Attributes:
        version: None tries every version that may verify, newest first.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/mac/verify",
        raw_request="message",
        example={
            "key_id": "webhook-mac",
            "message": base64_text(b"hello"),
            "mac": base64_text(bytes(32)),
        },
    )

    key_id: KeyReference
    message: bytes
    mac: bytes
    version: VersionNumber | None = None


class MacInput(Record, frozen=True, kw_only=True):
    """Message to authenticate."""

    reference: ItemReference = ""
    message: bytes


class VerifyMacItem(Record, frozen=True, kw_only=True):
    """MAC to verify, as in `VerifyMac`."""

    reference: ItemReference = ""
    message: bytes
    mac: bytes


class ComputeMacBatch(Operation[MacBatch], frozen=True, kw_only=True):
    """Compute up to 1,000 MACs with the current version."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/mac/batch",
        example={
            "key_id": "webhook-mac",
            "items": [{"reference": "row 1", "message": base64_text(b"hello")}],
        },
    )

    key_id: KeyReference
    items: Annotated[tuple[MacInput, ...], Meta(min_length=1, max_length=1000)]


class VerifyMacBatch(Operation[VerifiedBatch], frozen=True, kw_only=True):
    """Verify up to 1,000 MACs; each invalid one fails its item. See `VerifyMac`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.MAC
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/mac/verify/batch",
        example={
            "key_id": "webhook-mac",
            "items": [
                {
                    "reference": "row 1",
                    "message": base64_text(b"hello"),
                    "mac": base64_text(bytes(32)),
                }
            ],
        },
    )

    key_id: KeyReference
    items: Annotated[tuple[VerifyMacItem, ...], Meta(min_length=1, max_length=1000)]
    version: VersionNumber | None = None

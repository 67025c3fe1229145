# SPDX-License-Identifier: MIT
"""Import and export of wrapped keys."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import Algorithm, HashAlgorithm, KeyFormat, WrapMechanism
from hsm_core.model import KeyId, KeyInfo, Record
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import (
    AlgorithmName,
    KeyName,
    KeyReference,
    Owner,
    Tags,
    Text,
    Usages,
    VersionNumber,
)

__all__ = ["ExportKey", "ImportKey", "WrappedKey"]


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

    key_id: KeyReference
    wrapping_key_id: KeyReference
    version: VersionNumber | None = None
    mechanism: WrapMechanism | None = None
    format: KeyFormat | None = None
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None

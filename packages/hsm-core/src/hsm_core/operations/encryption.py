# SPDX-License-Identifier: MIT
"""Encryption, data keys and encapsulation."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import Algorithm, CiphertextEncoding, HashAlgorithm, KeyUsage
from hsm_core.model import KeyId, Record, Secret
from hsm_core.operations.base import (
    Effect,
    ItemError,
    ItemReference,
    KeyReference,
    Operation,
    Route,
    VersionNumber,
    base64_text,
)

__all__ = [
    "Ciphertext",
    "CiphertextBatch",
    "DataKey",
    "Decapsulate",
    "Decrypt",
    "DecryptBatch",
    "DecryptItem",
    "DecryptedItem",
    "Encapsulate",
    "Encapsulation",
    "Encrypt",
    "EncryptBatch",
    "EncryptItem",
    "EncryptedItem",
    "GenerateDataKey",
    "Open",
    "Plaintext",
    "PlaintextBatch",
    "Rewrap",
    "Seal",
    "SharedSecret",
]


class Ciphertext(Record, frozen=True, kw_only=True):
    """Ciphertext; in ``envelope`` encoding it includes key ID and version."""

    key_id: KeyId
    version: int
    ciphertext: bytes


class Plaintext(Record, frozen=True, kw_only=True):
    """Decrypted plaintext."""

    key_id: KeyId
    version: int
    plaintext: Secret


class DataKey(Record, frozen=True, kw_only=True):
    """
    Data key: a new symmetric key for use outside the HSM, and its wrapped form.

    Attributes:
        ciphertext: Wrapped key, to store with the data; `Decrypt` or `Open` returns the
            key.
        plaintext: The key; empty if *wrapped_only* was set.
    """

    repr_fields: ClassVar = ("key_id", "version")

    key_id: KeyId
    version: int
    ciphertext: bytes
    plaintext: Secret = b""


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


class CiphertextBatch(Record, frozen=True, kw_only=True):
    """Ciphertexts of a batch, in the order of its items."""

    key_id: KeyId
    version: int
    items: tuple[EncryptedItem, ...]


class PlaintextBatch(Record, frozen=True, kw_only=True):
    """Plaintexts of a batch, in the order of its items."""

    key_id: KeyId
    items: tuple[DecryptedItem, ...]


class Encrypt(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt with the current version (AES-GCM, ChaCha20-Poly1305 or RSAES-OAEP).

    Attributes:
        aad: Authenticated, not encrypted; for RSA it is part of the OAEP label.
        hash: RSAES-OAEP only; None means SHA-256.
        mgf_hash: RSAES-OAEP only; None means SHA-256.
        encoding: ``raw`` is for RSA only, for interoperability.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/encrypt",
        raw_request="plaintext",
        raw_response="ciphertext",
        example={
            "key_id": "document-key",
            "plaintext": base64_text(b"attack at dawn"),
            "aad": base64_text(b"case 7"),
        },
    )

    key_id: KeyReference
    plaintext: Secret
    aad: bytes = b""
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None
    encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE


class Decrypt(Operation[Plaintext], frozen=True, kw_only=True):
    """
    Decrypt; an envelope selects its version.

    Every failure is the same `DecryptionError`, without detail.

    Attributes:
        version: For ``raw`` only; None means the current version.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/decrypt",
        raw_request="ciphertext",
        raw_response="plaintext",
        example={
            "key_id": "document-key",
            "ciphertext": base64_text(bytes(64)),
            "aad": base64_text(b"case 7"),
        },
    )

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""
    version: VersionNumber | None = None
    hash: HashAlgorithm | None = None
    mgf_hash: HashAlgorithm | None = None
    encoding: CiphertextEncoding = CiphertextEncoding.ENVELOPE


class Rewrap(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Re-encrypt a ciphertext with the current version; the plaintext stays in the HSM.

    The key needs the usages ``encrypt`` and ``decrypt``.

    Attributes:
        ciphertext: An envelope of `Encrypt`, `Seal` or `GenerateDataKey`.
        aad: Additional data of the ciphertext; unchanged by the operation.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/rewrap",
        raw_request="ciphertext",
        raw_response="ciphertext",
        example={
            "key_id": "document-key",
            "ciphertext": base64_text(bytes(64)),
            "aad": base64_text(b"case 7"),
        },
    )

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""


class GenerateDataKey(Operation[DataKey], frozen=True, kw_only=True):
    """
    Generate a data key, wrapped by a key of the HSM.

    Attributes:
        length: Length of the data key, in bytes.
        aad: Authenticated with the wrapped form.
        wrapped_only: Return only the wrapped form.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/data-key",
        example={"key_id": "document-key", "length": 32, "aad": base64_text(b"case 7")},
    )

    key_id: KeyReference
    length: Annotated[int, Meta(ge=16, le=64)] = 32
    aad: bytes = b""
    wrapped_only: bool = False


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


class EncryptBatch(Operation[CiphertextBatch], frozen=True, kw_only=True):
    """Encrypt up to 1,000 items with the current version; see `Encrypt`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/encrypt/batch",
        example={
            "key_id": "document-key",
            "items": [
                {
                    "reference": "row 1",
                    "plaintext": base64_text(b"attack"),
                    "aad": base64_text(b"case 7"),
                }
            ],
        },
    )

    key_id: KeyReference
    items: Annotated[tuple[EncryptItem, ...], Meta(min_length=1, max_length=1000)]


class DecryptBatch(Operation[PlaintextBatch], frozen=True, kw_only=True):
    """Decrypt up to 1,000 envelopes; see `Decrypt`."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/decrypt/batch",
        example={
            "key_id": "document-key",
            "items": [
                {
                    "reference": "row 1",
                    "ciphertext": base64_text(bytes(64)),
                    "aad": base64_text(b"case 7"),
                }
            ],
        },
    )

    key_id: KeyReference
    items: Annotated[tuple[DecryptItem, ...], Meta(min_length=1, max_length=1000)]


class Encapsulation(Record, frozen=True, kw_only=True):
    """
    New shared secret and its encapsulation.

    Attributes:
        ciphertext: Encapsulation, for the holder of the private key.
        shared_secret: 32 bytes.
    """

    repr_fields: ClassVar = ("key_id", "version")

    key_id: KeyId
    version: int
    algorithm: Algorithm
    ciphertext: bytes
    shared_secret: Secret


class SharedSecret(Record, frozen=True, kw_only=True):
    """
    Decapsulated shared secret, 32 bytes.

    An encapsulation that was altered or made for another key yields a different secret
    and no error (implicit rejection: FIPS 203, section 6.3).
    """

    key_id: KeyId
    version: int
    shared_secret: Secret


class Encapsulate(Operation[Encapsulation], frozen=True, kw_only=True):
    """Encapsulate a new secret to the current version (FIPS 203, section 7.2)."""

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCAPSULATE
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/encapsulate",
        example={"key_id": "mailbox"},
    )

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
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/decapsulate",
        raw_request="ciphertext",
        raw_response="shared_secret",
        example={"key_id": "mailbox", "ciphertext": base64_text(bytes(1153))},
    )

    key_id: KeyReference
    ciphertext: Annotated[bytes, Meta(max_length=4096)]
    version: VersionNumber | None = None


class Seal(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt a message to a KEM key: encapsulation, HKDF-SHA-256, AES-256-GCM.

    With a composite key this is hybrid encryption. The public key is enough to seal
    without the HSM (`hsm_core.primitives.seal`).

    Attributes:
        aad: Authenticated, not encrypted.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/seal",
        raw_request="plaintext",
        raw_response="ciphertext",
        example={
            "key_id": "mailbox",
            "plaintext": base64_text(b"attack at dawn"),
            "aad": base64_text(b"case 7"),
        },
    )

    key_id: KeyReference
    plaintext: Secret
    aad: bytes = b""


class Open(Operation[Plaintext], frozen=True, kw_only=True):
    """
    Decrypt a message sealed by `Seal`; the envelope selects the version.

    Every failure is the same `DecryptionError`, without detail.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/open",
        raw_request="ciphertext",
        raw_response="plaintext",
        example={
            "key_id": "mailbox",
            "ciphertext": base64_text(bytes(64)),
            "aad": base64_text(b"case 7"),
        },
    )

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""

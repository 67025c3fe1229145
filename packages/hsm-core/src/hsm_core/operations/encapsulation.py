# SPDX-License-Identifier: MIT
"""Key encapsulation and sealed messages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import KeyId, Record, Secret
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.encryption import Ciphertext, Plaintext
from hsm_core.operations.names import KeyReference, VersionNumber

__all__ = [
    "Decapsulate",
    "Encapsulate",
    "Encapsulation",
    "Open",
    "Seal",
    "SharedSecret",
]


class Encapsulation(Record, frozen=True, kw_only=True):
    """
    New shared secret and its encapsulation.

    Attributes:
        ciphertext: Encapsulation, for the holder of the private key.
        shared_secret: 32 bytes.
    """

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

    With a composite key this is hybrid encryption. The public key is enough to seal
    without the HSM (`hsm_core.primitives.seal`).

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
    Decrypt a message sealed by `Seal`; the envelope selects the version.

    Every failure is the same `DecryptionError`, without detail.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT

    key_id: KeyReference
    ciphertext: bytes
    aad: bytes = b""

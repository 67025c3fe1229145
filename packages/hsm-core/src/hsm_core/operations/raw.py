# SPDX-License-Identifier: MIT
"""Raw operations: signatures without hashing, RSAES-PKCS1-v1_5, AES in any mode."""

from __future__ import annotations

from typing import ClassVar

from hsm_core.algorithms import AESMode, KeyUsage, SignatureEncoding
from hsm_core.model import Secret
from hsm_core.operations.base import (
    Effect,
    KeyReference,
    Operation,
    Route,
    Verified,
    VersionNumber,
    base64_text,
)
from hsm_core.operations.encryption import Ciphertext, Plaintext
from hsm_core.operations.signing import Signature

__all__ = ["DecryptPKCS1", "RawDecrypt", "RawEncrypt", "RawSign", "RawVerify"]

_DIGEST = bytes.fromhex("2c5d7d17e6b6f8a3d9c4b3a29e8f7c6b5a493827")


class RawSign(Operation[Signature], frozen=True, kw_only=True):
    """
    Sign data as it is, with the current version: an RSA or ECDSA key hashes nothing.

    For protocols that bring a hash of their own. `Sign` is the operation for SHA-2.
    Every rule about `Sign` covers this operation too.

    Attributes:
        data: RSA: what RSASSA-PKCS1-v1_5 pads, such as a DigestInfo; from one byte to
            the length of the modulus less 11 (RFC 8017, section 9.2). ECDSA: a digest
            of any hash, up to 64 bytes, of which the leftmost bits are signed (FIPS
            186-5, section 6.4.1).
        encoding: ECDSA only; None means DER.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.SIGN
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/sign/raw",
        raw_request="data",
        raw_response="signature",
        example={"key_id": "release-signer", "data": base64_text(_DIGEST)},
    )

    key_id: KeyReference
    data: bytes
    encoding: SignatureEncoding | None = None


class RawVerify(Operation[Verified], frozen=True, kw_only=True):
    """
    Verify a signature by `RawSign`; an invalid one raises `SignatureMismatchError`.

    Attributes:
        data: As in `RawSign`.
        version: None tries every version that may verify, newest first.
        encoding: ECDSA only; None means DER.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.VERIFY
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/verify/raw",
        raw_request="data",
        example={
            "key_id": "release-signer",
            "data": base64_text(_DIGEST),
            "signature": base64_text(bytes(64)),
        },
    )

    key_id: KeyReference
    data: bytes
    signature: bytes
    version: VersionNumber | None = None
    encoding: SignatureEncoding | None = None


class DecryptPKCS1(Operation[Plaintext], frozen=True, kw_only=True):
    """
    Decrypt by RSAES-PKCS1-v1_5, for messages of old programs (RFC 8017, section 7.2).

    No role may do this until a policy grants it by name: a program that shows whether
    a message was valid makes the key an oracle that decrypts for everybody. A message
    with wrong padding yields random bytes and no error (implicit rejection). Every rule
    about `Decrypt` covers this operation too.

    Attributes:
        version: None means the current version.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/decrypt/pkcs1",
        raw_request="ciphertext",
        raw_response="plaintext",
        example={"key_id": "transport", "ciphertext": base64_text(bytes(384))},
    )

    key_id: KeyReference
    ciphertext: bytes
    version: VersionNumber | None = None


class RawEncrypt(Operation[Ciphertext], frozen=True, kw_only=True):
    """
    Encrypt with an AES key in a mode and with an IV of the caller.

    For interfaces whose programs choose both, such as PKCS#11. It has no REST route:
    `Encrypt` is the operation for programs that can choose. Only GCM detects altered
    ciphertexts, and an IV that is used twice reveals plaintexts. The chooser of the
    IV of CTR or GCM can also decrypt, so these need the usage ``decrypt`` too. Every
    rule about `Encrypt` and `Decrypt` covers this operation.

    Attributes:
        iv: 12 bytes for GCM; 16 for the others, of CTR the first counter block.
        aad: GCM only: authenticated, not encrypted.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.ENCRYPT

    key_id: KeyReference
    plaintext: Secret
    mode: AESMode
    iv: bytes
    aad: bytes = b""


class RawDecrypt(Operation[Plaintext], frozen=True, kw_only=True):
    """
    Decrypt what `RawEncrypt` made; every failure is the same `DecryptionError`.

    Attributes:
        iv: As in `RawEncrypt`.
        aad: As in `RawEncrypt`.
        version: None means the current version.
    """

    effect: ClassVar = Effect.USE
    usage: ClassVar = KeyUsage.DECRYPT

    key_id: KeyReference
    ciphertext: bytes
    mode: AESMode
    iv: bytes
    aad: bytes = b""
    version: VersionNumber | None = None

# SPDX-License-Identifier: MIT
"""Digests and random bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.sessions import OperationKind
from hsm_core.operations import GenerateRandom

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.parameters import Mechanism
    from hsm_cli.interfaces.pkcs11.sessions import Session

DIGESTS: Final = {
    ck.CKM_SHA_1: "sha1",
    ck.CKM_SHA224: "sha224",
    ck.CKM_SHA256: "sha256",
    ck.CKM_SHA384: "sha384",
    ck.CKM_SHA512: "sha512",
    ck.CKM_SHA512_224: "sha512_224",
    ck.CKM_SHA512_256: "sha512_256",
}
"""Names of hashes in OpenSSL, by mechanism. SHA-1 only for programs that compare."""

MOST_RANDOM_BYTES: Final = 1024 * 1024
"""Random bytes of one call."""


class Digesting:
    """
    State of a digest.

    Args:
        name: Name of the hash in OpenSSL.

    Attributes:
        is_multipart: Whether a part has come by a call of its own.
    """

    def __init__(self, name: str) -> None:
        self.is_multipart = False
        self._hasher = hashlib.new(name, usedforsecurity=False)

    @property
    def size(self) -> int:
        """Length of the digest, in bytes."""
        return self._hasher.digest_size

    def add(self, data: bytes) -> None:
        """Add a part."""
        self._hasher.update(data)

    def result(self) -> bytes:
        """Return the digest."""
        return bytes(self._hasher.digest())


def digest_init(session: Session, mechanism: Mechanism | None) -> None:
    """Begin a digest."""
    if mechanism is None:
        session.end(OperationKind.DIGEST)
        return
    name = DIGESTS.get(mechanism.kind)
    if name is None:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    session.begin(OperationKind.DIGEST, Digesting(name))


def digest(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Return the digest of data in one part."""
    operation: Digesting = session.active(OperationKind.DIGEST)
    with session.finishing(OperationKind.DIGEST):
        if operation.is_multipart:
            raise CryptokiError(ck.CKR_OPERATION_ACTIVE)
        room(capacity, operation.size)
        operation.add(data)
        return operation.result()


def digest_update(session: Session, data: bytes) -> None:
    """Add a part."""
    operation: Digesting = session.active(OperationKind.DIGEST)
    operation.add(data)
    operation.is_multipart = True


def digest_final(session: Session, capacity: int | None) -> bytes:
    """Return the digest of all parts."""
    operation: Digesting = session.active(OperationKind.DIGEST)
    with session.finishing(OperationKind.DIGEST):
        room(capacity, operation.size)
        return operation.result()


def seed_random(session: Session, data: bytes) -> None:
    """Refuse: the HSM takes randomness from its operating system only."""
    raise CryptokiError(ck.CKR_RANDOM_SEED_NOT_SUPPORTED)


def generate_random(session: Session, capacity: int | None) -> bytes:
    """Return as many random bytes as the program has room for."""
    length = capacity or 0
    if length > MOST_RANDOM_BYTES:
        raise CryptokiError(
            ck.CKR_DATA_LEN_RANGE,
            f"C_GenerateRandom takes at most {MOST_RANDOM_BYTES} bytes, got {length}.",
        )
    return session.hsm.execute(GenerateRandom(length=length)).random if length else b""


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_DigestInit": digest_init,
    "C_Digest": digest,
    "C_DigestUpdate": digest_update,
    "C_DigestFinal": digest_final,
    "C_SeedRandom": seed_random,
    "C_GenerateRandom": generate_random,
}
"""Functions by name."""

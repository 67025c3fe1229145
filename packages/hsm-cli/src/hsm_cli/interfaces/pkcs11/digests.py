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

_CHUNK_BYTES: Final = 4096


def digest_init(session: Session, mechanism: Mechanism | None) -> None:
    """Begin a digest."""
    if mechanism is None:
        session.end(OperationKind.DIGEST)
        return
    name = DIGESTS.get(mechanism.kind)
    if name is None:
        raise CryptokiError(ck.CKR_MECHANISM_INVALID)
    session.begin(OperationKind.DIGEST, hashlib.new(name, usedforsecurity=False))


def digest(session: Session, data: bytes, capacity: int | None) -> bytes:
    """Return the digest of data in one part."""
    hasher = session.active(OperationKind.DIGEST)
    with session.finishing(OperationKind.DIGEST):
        room(capacity, hasher.digest_size)
        hasher.update(data)
        return bytes(hasher.digest())


def digest_update(session: Session, data: bytes) -> None:
    """Add a part."""
    session.active(OperationKind.DIGEST).update(data)


def digest_key(session: Session, handle: int) -> None:
    """Refuse: no key leaves the HSM."""
    session.active(OperationKind.DIGEST)
    session.key(handle)
    session.end(OperationKind.DIGEST)
    raise CryptokiError(ck.CKR_KEY_INDIGESTIBLE)


def digest_final(session: Session, capacity: int | None) -> bytes:
    """Return the digest of all parts."""
    return digest(session, b"", capacity)


def seed_random(session: Session, data: bytes) -> None:
    """Refuse: the HSM takes randomness from its operating system only."""
    raise CryptokiError(ck.CKR_RANDOM_SEED_NOT_SUPPORTED)


def generate_random(session: Session, capacity: int | None) -> bytes:
    """Return as many random bytes as the program has room for."""
    length = capacity or 0
    if length > MOST_RANDOM_BYTES:
        raise CryptokiError(
            ck.CKR_DATA_LEN_RANGE,
            f"C_GenerateRandom gives up to {MOST_RANDOM_BYTES} bytes, not {length}.",
        )
    found = bytearray()
    while len(found) < length:
        size = min(_CHUNK_BYTES, length - len(found))
        found += session.hsm.execute(GenerateRandom(length=size)).random
    return bytes(found)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_DigestInit": digest_init,
    "C_Digest": digest,
    "C_DigestUpdate": digest_update,
    "C_DigestKey": digest_key,
    "C_DigestFinal": digest_final,
    "C_SeedRandom": seed_random,
    "C_GenerateRandom": generate_random,
}
"""Functions by name."""

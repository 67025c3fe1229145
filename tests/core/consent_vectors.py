# SPDX-License-Identifier: MIT
"""
What approvers see and sign, written a second time from its description alone.

It makes the vectors of ``docs/reference/formats-consent.md`` with nothing of the
product: ``python -m tests.core.consent_vectors`` prints them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence

APPROVAL_ID = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
KEY_ID = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
SALT = bytes(range(32))

Value = str | int | bytes | Mapping[str, "Value"] | Sequence["Value"]


def packed(value: Value) -> bytes:
    """Return MessagePack in the shortest form, with the names of maps in order."""
    match value:
        case int():
            return _integer(value)
        case str():
            data = value.encode()
            if len(data) < 32:
                return bytes([0xA0 | len(data)]) + data
            return _sized(data, (0xD9, 0xDA, 0xDB)) + data
        case bytes():
            return _sized(value, (0xC4, 0xC5, 0xC6)) + value
        case Mapping():
            body = b"".join(packed(k) + packed(value[k]) for k in sorted(value))
            return _counted(len(value), 0x80, 0xDE) + body
        case _:
            return _counted(len(value), 0x90, 0xDC) + b"".join(map(packed, value))


def _integer(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    for mark, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if value < 1 << 8 * size:
            return bytes([mark]) + value.to_bytes(size, "big")
    raise OverflowError


def _sized(data: bytes, marks: tuple[int, int, int]) -> bytes:
    for mark, size in zip(marks, (1, 2, 4), strict=True):
        if len(data) < 1 << 8 * size:
            return bytes([mark]) + len(data).to_bytes(size, "big")
    raise OverflowError


def _counted(count: int, short: int, long: int) -> bytes:
    return bytes([short | count]) if count < 16 else bytes([long, 0, count])


def hidden(name: str, value: bytes) -> str:
    """Return what stands for bytes that are not shown."""
    label = len(name).to_bytes(2, "big") + name.encode()
    whole = b"ferrohsm approval field v1\0" + SALT + label + value
    return hashlib.sha256(whole).hexdigest()


def digest(shown: Value) -> str:
    """Return the digest of an operation as it is shown."""
    whole = b"ferrohsm approval operation v1\0" + SALT + packed(shown)
    return hashlib.sha256(whole).hexdigest()


DESTROY: dict[str, Value] = {
    "algorithm": "ECDSA-P256",
    "context": {
        "last_used_at": "2026-01-01T00:00:00Z",
        "owner": "carol",
        "requester_address": "10.1.2.3",
        "requester_certificate": "CN=alice",
        "requester_certificate_sha256": "41" * 32,
        "requester_roles": ["Administrator"],
        "tags": ["dual", "prod"],
        "undo": "It can't be undone.",
        "versions": 2,
    },
    "fields": [{"name": "key_id", "text": KEY_ID}],
    "format": 2,
    "key_id": KEY_ID,
    "key_name": "release-signer",
    "kind": "DestroyKey",
    "requester": "alice",
    "version": 2,
}

SIGN: dict[str, Value] = {
    "algorithm": "ECDSA-P256",
    "fields": [
        {"name": "key_id", "text": KEY_ID},
        {"name": "items", "number": 2},
        {"data": b"v1.0", "name": "items.0.message"},
        {"name": "items.1.reference", "text": "long"},
        {
            "length": 2000,
            "name": "items.1.message",
            "sha256": hidden("items.1.message", b"m" * 2000),
        },
    ],
    "format": 2,
    "key_id": KEY_ID,
    "kind": "SignBatch",
    "requester": "alice",
    "version": 2,
}

ENCRYPT: dict[str, Value] = {
    "algorithm": "AES-256-GCM",
    "fields": [
        {"name": "key_id", "text": KEY_ID},
        {"length": 6, "name": "plaintext", "sha256": hidden("plaintext", b"secret")},
    ],
    "format": 2,
    "key_id": KEY_ID,
    "kind": "Encrypt",
    "requester": "alice",
    "version": 1,
}


def vectors() -> dict[str, str]:
    """Return every vector by its name."""
    lines = f"ferrohsm approval v1\n{APPROVAL_ID}\ngrant\n{digest(DESTROY)}\n"
    return {
        "salt": SALT.hex(),
        "destroy": packed(DESTROY).hex(),
        "destroy sha256": digest(DESTROY),
        "hidden message": hidden("items.1.message", b"m" * 2000),
        "batch": packed(SIGN).hex(),
        "batch sha256": digest(SIGN),
        "hidden secret": hidden("plaintext", b"secret"),
        "encrypt": packed(ENCRYPT).hex(),
        "encrypt sha256": digest(ENCRYPT),
        "statement": lines.encode().hex(),
    }


def block() -> str:
    """Return the vectors as the page shows them."""
    return "".join(f"{name:<15} {value}\n" for name, value in vectors().items())


if __name__ == "__main__":
    sys.stdout.write(block())

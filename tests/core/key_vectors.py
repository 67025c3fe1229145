# SPDX-License-Identifier: MIT
"""
The stored formats of keys, written a second time from their description alone.

It makes the vectors of ``docs/reference/formats-keys.md`` with nothing of the product:
``python -m tests.core.key_vectors`` prints them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT = bytes(range(0x00, 0x20))
KEK = bytes(range(0x20, 0x40))
INTEGRITY_SECRET = bytes(range(0x40, 0x60))
MATERIAL = bytes(range(0x60, 0x80))
KEK_ID = "f0f1f2f3f4f5f6f7"
STORE_ID = "0102030405064708890a0b0c0d0e0f10"
LOG_ID = "1112131415161718191a1b1c1d1e1f20"
KEY_ID = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
MATERIAL_ID = "8a6e0804-2bd0-4672-b79d-d97027f9071a"
OPERATION_ID = "2122232425262728292a2b2c2d2e2f30"


def prefixed(*parts: bytes) -> bytes:
    """Join byte strings, each behind its length as 8 bytes, big-endian."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    """Derive 32 bytes with HKDF-SHA-256."""
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def seal(
    key: bytes, start: bytes, label: bytes, bound: bytes, data: bytes, fill: int
) -> bytes:
    """Seal with a salt and a nonce of one repeated byte each."""
    salt, nonce = bytes([fill]) * 32, bytes([fill + 1]) * 12
    header = start + salt + nonce
    sealed = AESGCM(derive(key, salt, label)).encrypt(
        nonce, data, prefixed(label, header, bound)
    )
    return header + sealed


def from_root(context: bytes, data: bytes, fill: int) -> bytes:
    """Seal under the root."""
    return seal(ROOT, b"FHRT\x01", b"hsm-core/root-seal/1", context, data, fill)


def ring() -> tuple[bytes, bytes]:
    """Return the contents of the ring, and the ring sealed."""
    contents = msgspec.msgpack.encode(
        {
            "format": 1,
            "store_id": STORE_ID,
            "log_id": LOG_ID,
            "current_kek": KEK_ID,
            "keks": {KEK_ID: KEK},
            "integrity_secret": INTEGRITY_SECRET,
        }
    )
    check = from_root(b"hsm-core/key-check/1", b"key check value", 0xA0)
    sealed = from_root(b"hsm-core/key-ring/1", contents, 0xA2)
    body = b"FHKR\x01" + len(check).to_bytes(4, "big") + check + sealed
    return contents, body + hashlib.sha256(body).digest()


def blob() -> tuple[bytes, bytes]:
    """Return what a blob is bound to, and the blob."""
    bound = prefixed(
        STORE_ID.encode(),
        KEY_ID.encode(),
        (1).to_bytes(8, "big"),
        MATERIAL_ID.encode(),
        b"AES-256-GCM",
        prefixed(b"encrypt", b"decrypt"),
    )
    start = b"FHKB\x01" + bytes.fromhex(KEK_ID)
    return bound, seal(KEK, start, b"hsm-core/blob-seal/1", bound, MATERIAL, 0xA4)


def mac(label: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA-256 under a key derived from the integrity secret."""
    return hmac.digest(derive(INTEGRITY_SECRET, b"", label), data, "sha256")


def document() -> str:
    """Return the stored document of a key with one version."""
    key = {
        "format": 1,
        "kek_id": KEK_ID,
        "store_id": STORE_ID,
        "key_id": KEY_ID,
        "algorithm": "AES-256-GCM",
        "usages": ["encrypt", "decrypt"],
        "created_at": 1750000000000000,
        "updated_at": 1750000000000000,
        "generation": 1,
        "current": 1,
        "versions": [
            {
                "version": 1,
                "material_id": MATERIAL_ID,
                "state": "active",
                "created_at": 1750000000000000,
                "state_changed_at": 1750000000000000,
                "blob_sha256": hashlib.sha256(blob()[1]).hexdigest(),
                "public_der": base64.b64encode(b"example").decode(),
            }
        ],
        "name": "pay",
        "owner": "alice",
        "tags": ["a", "b"],
        "operations": [
            {
                "id": OPERATION_ID,
                "digest": "31" * 32,
                "kind": "CreateKey",
                "generation": 1,
                "version": 1,
                "at": 1750000000000000,
            }
        ],
    }
    payload = json.dumps(key, separators=(",", ":"), ensure_ascii=False)
    tag = mac(b"hsm-core/document-mac/1", payload.encode()).hex()
    return f'{{"key":{payload},"mac":"{tag}"}}'


def use_counter() -> bytes:
    """Return a use counter: 1024 uses, 4096 bytes, a last use, and a warning."""
    numbers = (1024, 4096, 1750000000000000)
    counts = b"FHKU\x01\x01" + b"".join(n.to_bytes(8, "big") for n in numbers)
    named = prefixed(STORE_ID.encode(), MATERIAL_ID.encode(), counts)
    return counts + mac(b"hsm-core/use-counter/1", named)


def vectors() -> dict[str, str]:
    """Return every vector by its name; hex, but for the document."""
    contents, sealed_ring = ring()
    bound, sealed_blob = blob()
    stored = document()
    digest = hashlib.sha256(stored.encode()).hexdigest()
    element = prefixed(KEY_ID.encode(), (1).to_bytes(8, "big"), digest.encode())
    who = prefixed(b"alice", b"request-1")
    return {
        "root": ROOT.hex(),
        "ring contents": contents.hex(),
        "sealed ring": sealed_ring.hex(),
        "KEK": KEK.hex(),
        "material": MATERIAL.hex(),
        "bound": bound.hex(),
        "sealed blob": sealed_blob.hex(),
        "document": stored,
        "document digest": digest,
        "operation id": mac(b"hsm-core/operation-id/1", who)[:16].hex(),
        "payload digest": mac(b"hsm-core/payload-digest/1", b"payload").hex(),
        "set element": mac(b"hsm-core/set-digest/1", element).hex(),
        "use counter": use_counter().hex(),
    }


def block() -> str:
    """Return the vectors as the page shows them."""
    return "".join(f"{name:<16}{value}\n" for name, value in vectors().items())


if __name__ == "__main__":
    sys.stdout.write(block())

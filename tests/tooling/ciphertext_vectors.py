# SPDX-License-Identifier: MIT
"""Makes the test vector of the ciphertext format, with nothing but the format."""

from __future__ import annotations

import sys
import uuid

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["vector"]


def vector() -> str:
    """Return the vector as it stands on the page."""
    key, nonce = bytes(range(32)), bytes(range(0xA0, 0xAC))
    key_id = uuid.UUID("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11")
    header = b"FHSM\x01\x01" + key_id.bytes + (7).to_bytes(4, "big") + bytes(2)
    aad, plaintext = b"context", b"attack at dawn"
    bound = b"".join(len(part).to_bytes(8, "big") + part for part in (header, aad))
    sealed = AESGCM(key).encrypt(nonce, plaintext, bound)
    rows = {
        "key": key,
        "plaintext": plaintext,
        "aad": aad,
        "header": header,
        "additional data": bound,
        "nonce": nonce,
        "envelope": header + nonce + sealed,
    }
    return "\n".join(f"{name:16}{value.hex()}" for name, value in rows.items())


if __name__ == "__main__":
    sys.stdout.write(vector() + "\n")

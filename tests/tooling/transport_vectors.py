# SPDX-License-Identifier: MIT
"""
Makes the test vectors of keys in transport, with nothing but the format.

Encapsulations and RSAES-OAEP ciphertexts are random, so these and the RSA key are taken
over from the published file; all else is computed from them again::

    python -m tests.tooling.transport_vectors

writes the file, and draws new random parts where there is none yet.
"""

from __future__ import annotations

import json
from typing import Final, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import (
    aes_key_wrap,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from tests.support import REPOSITORY

Vector = dict[str, str]
"""Names and hex values, beside ``mechanism`` and ``algorithm``."""

PUBLISHED: Final = REPOSITORY / "docs" / "reference" / "transport-vectors.json"

_MATERIAL: Final = bytes(range(0x80, 0xA0))
_KEY: Final = bytes(range(32))
_SEED: Final = bytes(range(64))
_LABEL: Final = b"FerroHSM KEM key wrap 1"
_KEM: Final = "ML-KEM-768"
_OAEP: Final = padding.OAEP(
    mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None
)


def published() -> list[Vector]:
    """Return the vectors of the published file."""
    return cast("list[Vector]", json.loads(PUBLISHED.read_text("utf-8")))


def remade(old: list[Vector]) -> list[Vector]:
    """Return the vectors, computed again from the random parts of *old*."""
    random_parts = {entry["mechanism"]: entry for entry in old}
    return [
        _aes("AES-KWP", aes_key_wrap_with_padding(_KEY, _MATERIAL)),
        _aes("AES-KW", aes_key_wrap(_KEY, _MATERIAL)),
        _rsa(random_parts.get("RSA-OAEP+AES-KWP") or _draw_rsa()),
        _kem(random_parts.get("KEM+AES-KWP") or _draw_kem()),
    ]


def _aes(mechanism: str, wrapped: bytes) -> Vector:
    return {
        "mechanism": mechanism,
        "algorithm": "AES-256-KW",
        "wrapping_key": _KEY.hex(),
        "material": _MATERIAL.hex(),
        "wrapped": wrapped.hex(),
    }


def _rsa(random_parts: Vector) -> Vector:
    """Return a vector of RSA, whose key and ciphertext are given."""
    der, start = (bytes.fromhex(random_parts[n]) for n in ("wrapping_key", "start"))
    private = load_der_private_key(der, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return _joined(
        "RSA-OAEP+AES-KWP", "RSA-2048", der, start, private.decrypt(start, _OAEP)
    )


def _kem(random_parts: Vector) -> Vector:
    """Return a vector of ML-KEM-768, whose encapsulation is given."""
    start = bytes.fromhex(random_parts["start"])
    secret = MLKEM768PrivateKey.from_seed_bytes(_SEED).decapsulate(start)
    parts = (_LABEL, _KEM.encode(), start)
    info = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    key = HKDF(hashes.SHA256(), 32, None, info).derive(secret)
    return _joined("KEM+AES-KWP", _KEM, _SEED, start, key)


def _joined(
    mechanism: str, algorithm: str, wrapping: bytes, start: bytes, key: bytes
) -> Vector:
    return {
        "mechanism": mechanism,
        "algorithm": algorithm,
        "wrapping_key": wrapping.hex(),
        "start": start.hex(),
        "key": key.hex(),
        "material": _MATERIAL.hex(),
        "wrapped": (start + aes_key_wrap_with_padding(key, _MATERIAL)).hex(),
    }


def _draw_rsa() -> Vector:
    private = rsa.generate_private_key(65537, 2048)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    start = private.public_key().encrypt(_KEY, _OAEP)
    return {"wrapping_key": der.hex(), "start": start.hex()}


def _draw_kem() -> Vector:
    public = MLKEM768PrivateKey.from_seed_bytes(_SEED).public_key()
    _, start = public.encapsulate()
    return {"start": start.hex()}


if __name__ == "__main__":
    before = published() if PUBLISHED.exists() else []
    PUBLISHED.write_text(json.dumps(remade(before), indent=2) + "\n", "utf-8")

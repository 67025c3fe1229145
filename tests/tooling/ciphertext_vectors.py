# SPDX-License-Identifier: MIT
"""
Makes the test vectors of the ciphertext format, with nothing but the format.

An encapsulation and an RSAES-OAEP ciphertext are random, so these and the RSA key are
taken over from the published file; all else is computed from them again::

    python -m tests.tooling.ciphertext_vectors

writes the file, and draws new random parts where there is none yet.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Final, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from tests.support import REPOSITORY

Vector = dict[str, str]
"""Names and hex values, beside ``algorithm``, ``key_id`` and ``version``."""

PUBLISHED: Final = REPOSITORY / "docs" / "reference" / "ciphertext-vectors.json"

_KEY_ID: Final = uuid.UUID("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11")
_VERSION: Final = 7
_PLAINTEXT: Final = b"attack at dawn"
_AAD: Final = b"context"
_NONCE: Final = bytes(range(0xA0, 0xAC))
_SEED: Final = bytes(range(64))
_SCALAR: Final = bytes(range(0x40, 0x60))
_EPHEMERAL: Final = bytes(range(0x60, 0x80))
_RSA: Final = "RSA-2048"
_COMPOSITE: Final = "MLKEM768-ECDH-P256-SHA3-256"
_AEADS: Final[dict[str, tuple[int, int, type[AESGCM | ChaCha20Poly1305]]]] = {
    "AES-256-GCM": (1, 32, AESGCM),
    "AES-128-GCM": (4, 16, AESGCM),
    "ChaCha20-Poly1305": (5, 32, ChaCha20Poly1305),
}


def vector() -> str:
    """Return the vector of AES-256-GCM as it stands on the page."""
    made = _aead("AES-256-GCM")
    names = ("key", "plaintext", "aad", "header", "bound", "nonce", "envelope")
    return "\n".join(f"{name:10}{made[name]}" for name in names)


def published() -> list[Vector]:
    """Return the vectors of the published file."""
    return cast("list[Vector]", json.loads(PUBLISHED.read_text("utf-8")))


def remade(old: list[Vector]) -> list[Vector]:
    """Return the vectors, computed again from the random parts of *old*."""
    random_parts = {entry["algorithm"]: entry for entry in old}
    return [
        *map(_aead, _AEADS),
        _oaep(random_parts.get(_RSA) or _draw_oaep()),
        _kem("ML-KEM-768", random_parts),
        _kem(_COMPOSITE, random_parts),
    ]


def _entry(algorithm: str, header: bytes, values: Mapping[str, bytes]) -> Vector:
    return {
        "algorithm": algorithm,
        "key_id": str(_KEY_ID),
        "version": str(_VERSION),
        "plaintext": _PLAINTEXT.hex(),
        "aad": _AAD.hex(),
        "header": header.hex(),
        "bound": _joined(header, _AAD).hex(),
        **{name: value.hex() for name, value in values.items()},
    }


def _header(kind: int, parameters: bytes = bytes(2)) -> bytes:
    start = b"FHSM\x01" + bytes([kind]) + _KEY_ID.bytes
    return start + _VERSION.to_bytes(4, "big") + parameters


def _joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _aead(algorithm: str) -> Vector:
    kind, size, cipher = _AEADS[algorithm]
    key, header = bytes(range(size)), _header(kind)
    sealed = cipher(key).encrypt(_NONCE, _PLAINTEXT, _joined(header, _AAD))
    values = {"key": key, "nonce": _NONCE, "envelope": header + _NONCE + sealed}
    return _entry(algorithm, header, values)


# RSAES-OAEP


def _padding(header: bytes) -> padding.OAEP:
    sha256 = hashes.SHA256()
    label = _joined(header, _AAD)
    return padding.OAEP(padding.MGF1(sha256), sha256, label)


def _draw_oaep() -> Vector:
    key, header = rsa.generate_private_key(65537, 2048), _header(2, b"\x01\x01")
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = key.public_key().encrypt(_PLAINTEXT, _padding(header))
    return {"key": private.hex(), "envelope": (header + sealed).hex()}


def _oaep(old: Vector) -> Vector:
    private, header = bytes.fromhex(old["key"]), _header(2, b"\x01\x01")
    key = cast("rsa.RSAPrivateKey", load_der_private_key(private, None))
    body = bytes.fromhex(old["envelope"])[len(header) :]
    if key.decrypt(body, _padding(header)) != _PLAINTEXT:
        raise ValueError(f"the envelope of {_RSA} does not open")
    return _entry(_RSA, header, {"key": private, "envelope": header + body})


# KEM


def _kem(algorithm: str, random_parts: Mapping[str, Vector]) -> Vector:
    quantum_safe = MLKEM768PrivateKey.from_seed_bytes(_SEED)
    old = random_parts.get(algorithm)
    encapsulation = (
        bytes.fromhex(old["encapsulation"])[:1088]
        if old
        else quantum_safe.public_key().encapsulate()[1]
    )
    secret, key = quantum_safe.decapsulate(encapsulation), _private_key(algorithm)
    if algorithm == _COMPOSITE:
        secret, encapsulation = _combined(secret, encapsulation)
    header = _header(3)
    info = _joined(
        b"FerroHSM KEM envelope 1", algorithm.encode(), header, encapsulation
    )
    output = HKDF(hashes.SHA256(), 44, salt=None, info=info).derive(secret)
    sealed = AESGCM(output[:32]).encrypt(output[32:], _PLAINTEXT, _joined(header, _AAD))
    values = {
        "key": key,
        "encapsulation": encapsulation,
        "shared_secret": secret,
        "info": info,
        "message_key": output[:32],
        "message_nonce": output[32:],
        "envelope": header + encapsulation + sealed,
    }
    return _entry(algorithm, header, values)


def _private_key(algorithm: str) -> bytes:
    """Return PKCS#8; a composite's is its OID and seed ‖ ECPrivateKey."""
    if algorithm != _COMPOSITE:
        key = MLKEM768PrivateKey.from_seed_bytes(_SEED)
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    head = bytes.fromhex("308184020100300a06082b0601050507063b0473")
    end = bytes.fromhex("a00a06082a8648ce3d030107")
    return head + _SEED + bytes.fromhex("30310201010420") + _SCALAR + end


def _combined(secret: bytes, encapsulation: bytes) -> tuple[bytes, bytes]:
    """Return the composite's shared secret and encapsulation."""
    static, ephemeral = map(_private_of, (_SCALAR, _EPHEMERAL))
    agreed = ephemeral.exchange(ec.ECDH(), static.public_key())
    point, public = map(_point, (ephemeral, static))
    combined = hashlib.sha3_256(secret + agreed + point + public + b"MLKEM768-P256")
    return combined.digest(), encapsulation + point


def _private_of(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    public = key.public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


if __name__ == "__main__":
    made = remade(published() if PUBLISHED.exists() else [])
    PUBLISHED.write_text(json.dumps(made, indent=2) + "\n", "utf-8")

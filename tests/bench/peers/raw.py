# SPDX-License-Identifier: MIT
"""The library *cryptography*, called in a loop with nothing around it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed25519,
    mldsa,
    mlkem,
    padding,
    rsa,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hsm_core.algorithms import Algorithm
from tests.bench.harness import Loop, repeated

MESSAGE = bytes(32)
"""What every rival signs."""

_SHA256 = hashes.SHA256()
_PSS = padding.PSS(padding.MGF1(_SHA256), padding.PSS.DIGEST_LENGTH)

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA65PrivateKey
    | rsa.RSAPrivateKey
)


def new_key(algorithm: Algorithm) -> PrivateKey:
    """Return a fresh key of an algorithm that signs."""
    match algorithm:
        case Algorithm.EC_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case Algorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case Algorithm.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.generate()
        case Algorithm.RSA_2048 | Algorithm.RSA_4096:
            bits = int(algorithm.removeprefix("RSA-"))
            return rsa.generate_private_key(public_exponent=65537, key_size=bits)
        case _:
            raise ValueError(f"Nobody races with {algorithm}.")


def signing(key: PrivateKey) -> Loop:
    """Return a loop that signs `MESSAGE`: SHA-256 where it hashes, PSS for RSA."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return repeated(lambda: key.sign(MESSAGE, ec.ECDSA(_SHA256)))
        case rsa.RSAPrivateKey():
            return repeated(lambda: key.sign(MESSAGE, _PSS, _SHA256))
        case _:
            return repeated(lambda: key.sign(MESSAGE))


def encrypting(size: int) -> Loop:
    """Return a loop that encrypts so many bytes with AES-256-GCM, always one nonce."""
    cipher, plaintext, nonce = AESGCM(bytes(32)), bytes(size), bytes(12)
    return repeated(lambda: cipher.encrypt(nonce, plaintext, None))


def encrypting_each(plaintexts: Sequence[bytes]) -> Loop:
    """Return a loop that encrypts all of them, with fresh nonces, and keeps them."""
    cipher = AESGCM(bytes(32))
    return repeated(
        lambda: [cipher.encrypt(os.urandom(12), text, None) for text in plaintexts]
    )


def decapsulating() -> Loop:
    """Return a loop that decapsulates one ciphertext of ML-KEM-768."""
    key = mlkem.MLKEM768PrivateKey.generate()
    _, ciphertext = key.public_key().encapsulate()
    return repeated(lambda: key.decapsulate(ciphertext))

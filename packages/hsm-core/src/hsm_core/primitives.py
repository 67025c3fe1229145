# SPDX-License-Identifier: MIT
"""
Cryptography from bytes: the very code that an HSM runs, without keys at rest.

No policy, no audit log, no storage: the caller holds the keys. Meant for verifying,
encrypting and wrapping where the HSM isn't, and for test vectors. Each algorithm passes
its known-answer test before it is used for the first time in a process.

A key is given as bytes, or as a handle from `load_private_key` or `load_public_key`
where it is used often: a private RSA key from outside is checked for 36 to 256 ms each
time its bytes are loaded.

Every function raises, besides what it says itself:

- `InvalidInputError`: a key is not one of the algorithm;
- `UnsupportedOperationError`: the algorithm has no such operation or parameter;
- `AlgorithmUnavailableError`, `SelfTestFailedError`: the algorithm can't be used in
  this process.
"""

from __future__ import annotations

from typing import TypeAlias

from hsm_core._primitives import keys
from hsm_core._primitives.ciphers import (
    Encapsulated,
    aead_decrypt,
    aead_encrypt,
    decapsulate,
    encapsulate,
    mac,
    oaep_decrypt,
    oaep_encrypt,
    open_sealed,
    seal,
    verify_mac,
)
from hsm_core._primitives.keys import (
    KeyPair,
    generate,
    load_private_key,
    load_public_key,
    private_key_from_seed,
    public_key,
)
from hsm_core._primitives.signatures import (
    MuHasher,
    external_mu,
    sign,
    verify,
    verify_raw,
)
from hsm_core._primitives.transfer import (
    ecdh,
    hkdf,
    key_unwrap,
    key_wrap,
    unwrap_exported,
    wrap_for_import,
)

__all__ = [
    "Encapsulated",
    "Key",
    "KeyPair",
    "MuHasher",
    "aead_decrypt",
    "aead_encrypt",
    "decapsulate",
    "ecdh",
    "encapsulate",
    "external_mu",
    "generate",
    "hkdf",
    "key_unwrap",
    "key_wrap",
    "load_private_key",
    "load_public_key",
    "mac",
    "oaep_decrypt",
    "oaep_encrypt",
    "open_sealed",
    "private_key_from_seed",
    "public_key",
    "seal",
    "sign",
    "unwrap_exported",
    "verify",
    "verify_mac",
    "verify_raw",
    "wrap_for_import",
]

Key: TypeAlias = keys.Key
"""
A key as bytes, or loaded before.

Private keys are PKCS#8 DER (RFC 5958, not encrypted), public keys SubjectPublicKeyInfo
DER (RFC 5280), symmetric keys the bare bytes, as long as the algorithm says.
"""

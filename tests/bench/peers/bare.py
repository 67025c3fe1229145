# SPDX-License-Identifier: MIT
"""
The least that a recorded use takes in Python: its cryptography and one record.

No policy, key state, limits, locks, failures or durability: one function that chains a
record of the usual length, authenticates and writes it. What FerroHSM takes beyond
that is its own; what this takes, no Python program can save.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.bench.harness import Loop, repeated
from tests.bench.peers import raw

_LINE = (
    b'{"format":2,"seq":"%016x","prev":"%b","time":"%016d","kind":"Sign",'
    b'"facts":"' + b"0" * 64 + b'","numbers":[1024],"bind":"%b"'
)


def signing(folder: Path) -> Loop:
    """Return a loop of recorded P-256 signatures."""
    key, record = ec.generate_private_key(ec.SECP256R1()), _recorder(folder)
    method = ec.ECDSA(hashes.SHA256())
    return repeated(lambda: record(key.sign(raw.MESSAGE, method)))


def encrypting(folder: Path, size: int) -> Loop:
    """Return a loop of recorded encryptions of so many bytes with AES-256-GCM."""
    cipher, plaintext, record = AESGCM(bytes(32)), bytes(size), _recorder(folder)

    def encrypt() -> None:
        nonce = os.urandom(12)
        sealed = nonce + cipher.encrypt(nonce, plaintext, b"header")
        record(sealed[:12] + sealed[-16:])

    return repeated(encrypt)


def _recorder(folder: Path) -> Callable[[bytes], None]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(folder / "records", flags, 0o600)
    inner, outer = hashlib.sha256(bytes(64)), hashlib.sha256(bytes(64))
    seq, leaf = 0, "0" * 64

    def record(bound: bytes) -> None:
        nonlocal seq, leaf
        seq += 1
        binding = hashlib.sha256(bound).hexdigest().encode()
        body = _LINE % (seq, leaf.encode(), time.time_ns() // 1000, binding)
        first, second = inner.copy(), outer.copy()
        first.update(body)
        second.update(first.digest())
        entry = b'%b,"mac":"%b"}' % (body, second.hexdigest().encode())
        leaf = hashlib.sha256(b"\0" + entry).hexdigest()
        os.write(descriptor, entry + b"\n")

    return record

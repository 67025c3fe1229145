# SPDX-License-Identifier: MIT
"""The system's OpenSSL in a loop of C."""

from __future__ import annotations

import ctypes
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tests.bench.harness import Loop
from tests.bench.peers.native import AbsentError, compiled
from tests.bench.peers.raw import PrivateKey


class OpenSSL:
    """
    Loops over libcrypto.

    Args:
        folder: Where the compiled loops are put.

    Raises:
        AbsentError: There is no compiler, or no header of OpenSSL.
    """

    def __init__(self, folder: Path) -> None:
        self._library = compiled("openssl_loops", folder, "crypto")
        self._library.bench_key.restype = ctypes.c_void_p
        self._library.bench_new_key.restype = ctypes.c_void_p

    def signing(self, key: PrivateKey, digest: str, *, pss: bool = False) -> Loop:
        """Return a loop that signs 32 bytes with a key; *digest* may be empty."""
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        handle = self._library.bench_key(der, ctypes.c_long(len(der)))
        return self._signing(handle, digest, pss=pss)

    def signing_anew(self, algorithm: str) -> Loop:
        """Return a loop that signs 32 bytes with a fresh key of an algorithm."""
        return self._signing(self._library.bench_new_key(algorithm.encode()), "")

    def encrypting(self, size: int) -> Loop:
        """Return a loop that encrypts so many bytes with AES-256-GCM."""

        def loop(times: int) -> None:
            _check(self._library.bench_encrypt(size, ctypes.c_long(times)))

        return loop

    def _signing(self, handle: int | None, digest: str, *, pss: bool = False) -> Loop:
        if not handle:
            raise AbsentError("the system's OpenSSL has no such key")
        key = ctypes.c_void_p(handle)
        name = digest.encode() or None

        def loop(times: int) -> None:
            sign = self._library.bench_sign
            _check(sign(key, name, int(pss), ctypes.c_long(times)))

        return loop


def _check(answer: int) -> None:
    if answer:
        raise RuntimeError("OpenSSL refused a step of its loop.")

# SPDX-License-Identifier: MIT
"""HMAC with SHA-2."""

from __future__ import annotations

from cryptography.hazmat.primitives.hmac import HMAC

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.pyca.hashing import HASHES
from hsm_core.algorithms import Algorithm, spec


class HMACHandle(BaseHandle):
    """
    An HMAC key.

    Standard:
        FIPS 198-1 over FIPS 180-4.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._keyed = HMAC(key, HASHES[spec(algorithm).hashes[0]])

    def public_der(self) -> bytes:
        """Return nothing: the key is symmetric."""
        return b""

    def mac(self, data: bytes, /) -> bytes:
        """Return the MAC, as long as the hash."""
        context = self._keyed.copy()
        context.update(data)
        return context.finalize()

# SPDX-License-Identifier: MIT
"""ML-DSA (FIPS 204)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)

from hsm_core.keys._buffers import Buffer
from hsm_core.keys._held import HeldKey, P

__all__ = ["HSMMLDSA44Key", "HSMMLDSA65Key", "HSMMLDSA87Key"]


class _Lattice(HeldKey[P]):
    """Signs by ML-DSA, whatever its parameters."""

    def sign(self, data: Buffer, context: Buffer | None = None) -> bytes:
        """Return the signature of a message; the context has up to 255 bytes."""
        return self._sign(message=bytes(data), context=bytes(context or b""))

    def sign_mu(self, mu: Buffer) -> bytes:
        """Return the signature of an external representative, 64 bytes."""
        return self._sign(mu=bytes(mu))


class HSMMLDSA44Key(_Lattice[MLDSA44PublicKey], MLDSA44PrivateKey):
    """An ML-DSA-44 key in the HSM."""


class HSMMLDSA65Key(_Lattice[MLDSA65PublicKey], MLDSA65PrivateKey):
    """An ML-DSA-65 key in the HSM."""


class HSMMLDSA87Key(_Lattice[MLDSA87PublicKey], MLDSA87PrivateKey):
    """An ML-DSA-87 key in the HSM."""

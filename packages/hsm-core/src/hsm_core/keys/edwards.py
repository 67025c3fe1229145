# SPDX-License-Identifier: MIT
"""Ed25519 and Ed448 (RFC 8032)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed448 import (
    Ed448PrivateKey,
    Ed448PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from hsm_core.keys._buffers import Buffer
from hsm_core.keys._held import HeldKey

__all__ = ["HSMEd448Key", "HSMEd25519Key"]


class HSMEd25519Key(HeldKey[Ed25519PublicKey], Ed25519PrivateKey):
    """An Ed25519 key in the HSM."""

    def sign(self, data: Buffer) -> bytes:
        """Return the signature of a message, 64 bytes; see `Sign`."""
        return self._sign(message=bytes(data))


class HSMEd448Key(HeldKey[Ed448PublicKey], Ed448PrivateKey):
    """An Ed448 key in the HSM."""

    def sign(self, data: Buffer) -> bytes:
        """Return the signature of a message, 114 bytes; see `Sign`."""
        return self._sign(message=bytes(data))

# SPDX-License-Identifier: MIT
"""ECDSA (FIPS 186-5)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from hsm_core.errors import UnsupportedOperationError
from hsm_core.keys._buffers import Buffer
from hsm_core.keys._hashing import digest_of
from hsm_core.keys._held import HeldKey

__all__ = ["HSMEllipticCurveKey"]


class HSMEllipticCurveKey(
    HeldKey[ec.EllipticCurvePublicKey], ec.EllipticCurvePrivateKey
):
    """
    An EC key in the HSM, for signatures.

    The HSM signs by the hash that fits the curve: SHA-256 for one of 256 bits, SHA-384
    for P-384, SHA-512 for P-521.
    """

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Length of the order of the curve, in bits."""
        return self._public.key_size

    def sign(
        self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> bytes:
        """
        Return the signature of a message, or of its digest, as DER (RFC 3279).

        Raises:
            UnsupportedOperationError: It is no ECDSA, or by a hash that does not fit.
            HSMError: See `Sign`.
        """
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedOperationError(
                "signature_algorithm must be ECDSA for an EC key.", field="scheme"
            )
        digest, name = digest_of(bytes(data), signature_algorithm.algorithm)
        return self._sign(digest=digest, hash=name)

    def exchange(
        self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey
    ) -> bytes:
        """Raise: the HSM derives keys by ECDH, but lets no shared secret out."""
        self._refuse("the shared secret is not available")

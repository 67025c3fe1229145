# SPDX-License-Identifier: MIT
"""RSA signatures and RSAES-OAEP (RFC 8017)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from hsm_core import operations as ops
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm, SignatureScheme
from hsm_core.errors import UnsupportedOperationError
from hsm_core.keys._buffers import Buffer
from hsm_core.keys._hashing import digest_of, name_of
from hsm_core.keys._held import HeldKey
from hsm_core.keys._paddings import label_of, mask_hash_of, salt_of

__all__ = ["HSMRSAKey"]


class HSMRSAKey(HeldKey[RSAPublicKey], RSAPrivateKey):
    """
    An RSA key in the HSM.

    It signs by RSASSA-PSS, the salt as long as the digest and one hash for both, and by
    RSASSA-PKCS1-v1_5.
    """

    @property
    def key_size(self) -> int:
        """Length of the modulus, in bits."""
        return self._public.key_size

    def sign(
        self, data: Buffer, padding: paddings.AsymmetricPadding, algorithm: object
    ) -> bytes:
        """
        Return the signature of a message, or of its digest.

        Raises:
            UnsupportedOperationError: The HSM does not sign with such a padding or
                hash.
            HSMError: See `Sign`.
        """
        digest, name = digest_of(bytes(data), algorithm)
        return self._sign(digest=digest, hash=name, scheme=_scheme(padding, name))

    def decrypt(self, ciphertext: Buffer, padding: paddings.AsymmetricPadding) -> bytes:
        """
        Return the plaintext of what was encrypted by RSAES-OAEP to this version.

        Raises:
            DecryptionError: It can't be decrypted.
            UnsupportedOperationError: It is another padding.
            HSMError: See `Decrypt`.
        """
        if not isinstance(padding, paddings.OAEP):
            raise UnsupportedOperationError(
                "padding must be OAEP to decrypt with an RSA key."
            )
        done = self._hsm.execute(
            ops.Decrypt(
                key_id=self._key_id,
                ciphertext=bytes(ciphertext),
                version=self._version,
                aad=label_of(padding),
                hash=name_of(padding.algorithm),
                mgf_hash=name_of(mask_hash_of(padding)),
                encoding=CiphertextEncoding.RAW,
            ),
            approval_id=self._approval_id,
        )
        return done.plaintext


def _scheme(
    padding: paddings.AsymmetricPadding, hash: HashAlgorithm
) -> SignatureScheme:
    """Return by which scheme the HSM signs with a padding."""
    if isinstance(padding, paddings.PKCS1v15):
        return SignatureScheme.RSASSA_PKCS1_V1_5
    if not isinstance(padding, paddings.PSS):
        raise UnsupportedOperationError(
            "padding must be PSS or PKCS #1 v1.5 to sign with an RSA key."
        )
    if name_of(mask_hash_of(padding)) is not hash:
        raise UnsupportedOperationError(
            "The PSS mask hash must be the message hash.", field="hash"
        )
    salt = salt_of(padding)
    if salt is not paddings.PSS.DIGEST_LENGTH and salt != hash.digest_bytes:
        raise UnsupportedOperationError(
            "The PSS salt length must be the digest length: padding.PSS.DIGEST_LENGTH.",
            field="salt_length",
        )
    return SignatureScheme.RSASSA_PSS

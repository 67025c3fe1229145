# SPDX-License-Identifier: MIT
"""Private-key classes of ``cryptography`` over keys of an HSM."""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_core import operations as ops
from hsm_core.algorithms import (
    CiphertextEncoding,
    Family,
    HashAlgorithm,
    SignatureScheme,
    spec,
)
from hsm_core.errors import UnsupportedOperationError
from hsm_core.keys._held import (
    Buffer,
    HeldKey,
    P,
    digest_of,
    label_of,
    mask_hash_of,
    name_of,
    salt_of,
)
from hsm_core.protocols import HSM


class HSMEd25519Key(HeldKey[ed25519.Ed25519PublicKey], ed25519.Ed25519PrivateKey):
    """An Ed25519 key in the HSM."""

    def sign(self, data: Buffer) -> bytes:
        """Return the signature of a message, 64 bytes; see `Sign`."""
        return self._sign(message=bytes(data))


class HSMEd448Key(HeldKey[ed448.Ed448PublicKey], ed448.Ed448PrivateKey):
    """An Ed448 key in the HSM."""

    def sign(self, data: Buffer) -> bytes:
        """Return the signature of a message, 114 bytes; see `Sign`."""
        return self._sign(message=bytes(data))


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


class _Lattice(HeldKey[P]):
    """ML-DSA signatures, for every parameter set."""

    def sign(self, data: Buffer, context: Buffer | None = None) -> bytes:
        """Return the signature of a message; the context has up to 255 bytes."""
        return self._sign(message=bytes(data), context=bytes(context or b""))

    def sign_mu(self, mu: Buffer) -> bytes:
        """Return the signature of an external representative, 64 bytes."""
        return self._sign(mu=bytes(mu))


class HSMMLDSA44Key(_Lattice[mldsa.MLDSA44PublicKey], mldsa.MLDSA44PrivateKey):
    """An ML-DSA-44 key in the HSM."""


class HSMMLDSA65Key(_Lattice[mldsa.MLDSA65PublicKey], mldsa.MLDSA65PrivateKey):
    """An ML-DSA-65 key in the HSM."""


class HSMMLDSA87Key(_Lattice[mldsa.MLDSA87PublicKey], mldsa.MLDSA87PrivateKey):
    """An ML-DSA-87 key in the HSM."""


class HSMRSAKey(HeldKey[rsa.RSAPublicKey], rsa.RSAPrivateKey):
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


PrivateKey: TypeAlias = (
    HSMRSAKey
    | HSMEllipticCurveKey
    | HSMEd25519Key
    | HSMEd448Key
    | HSMMLDSA44Key
    | HSMMLDSA65Key
    | HSMMLDSA87Key
)
"""Any key object."""

_FAMILIES: Final = frozenset({Family.RSA, Family.ECDSA, Family.EDDSA, Family.ML_DSA})


def open_private_key(hsm: HSM, key_id: str, *, approval_id: str = "") -> PrivateKey:
    """
    Return a key of the HSM as a private key of ``cryptography``.

    It stands for the version that is current now; after a rotation it signs no more.

    Args:
        hsm: Embedded or remote, for the caller who uses the key.

        key_id: Id or name.

        approval_id: The approval that each use is done under, if policy demands one.

    Raises:
        UnsupportedOperationError: There is no such object of its algorithm: for
            SLH-DSA, composites and whatever makes no signatures.
        HSMError: See `GetPublicKey`.
    """
    shown = hsm.execute(ops.GetPublicKey(key_id=key_id))
    if spec(shown.algorithm).family not in _FAMILIES:
        raise _no_such_keys(shown)
    public = load_der_public_key(shown.der)
    match public:
        case rsa.RSAPublicKey():
            return HSMRSAKey(hsm, shown, public, approval_id=approval_id)
        case ec.EllipticCurvePublicKey():
            return HSMEllipticCurveKey(hsm, shown, public, approval_id=approval_id)
        case ed25519.Ed25519PublicKey():
            return HSMEd25519Key(hsm, shown, public, approval_id=approval_id)
        case ed448.Ed448PublicKey():
            return HSMEd448Key(hsm, shown, public, approval_id=approval_id)
        case mldsa.MLDSA44PublicKey():
            return HSMMLDSA44Key(hsm, shown, public, approval_id=approval_id)
        case mldsa.MLDSA65PublicKey():
            return HSMMLDSA65Key(hsm, shown, public, approval_id=approval_id)
        case mldsa.MLDSA87PublicKey():
            return HSMMLDSA87Key(hsm, shown, public, approval_id=approval_id)
        case _:
            raise _no_such_keys(shown)


def _no_such_keys(shown: ops.PublicKey) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"The cryptography package has no signing keys for {shown.algorithm}.",
        field="key_id",
    )

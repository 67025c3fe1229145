# SPDX-License-Identifier: MIT
"""
Keys of an HSM as private keys of the package ``cryptography``.

Use them wherever ``cryptography`` takes a private key: certificates, requests and
revocation lists of ``cryptography.x509``, CMS, SSH certificates, JSON Web Tokens. The
key stays in the HSM. Signing calls the HSM, embedded or remote, and raises its errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_core import operations as ops
from hsm_core.algorithms import (
    CiphertextEncoding,
    Family,
    HashAlgorithm,
    SignatureScheme,
    spec,
)
from hsm_core.errors import ConflictError, InputSizeError, UnsupportedOperationError
from hsm_core.model import KeyId
from hsm_core.protocols import HSM

__all__ = [
    "HSMEd448Key",
    "HSMEd25519Key",
    "HSMEllipticCurveKey",
    "HSMMLDSA44Key",
    "HSMMLDSA65Key",
    "HSMMLDSA87Key",
    "HSMRSAKey",
    "PrivateKey",
    "open_private_key",
]

P = TypeVar("P")


class HeldKey(Generic[P]):
    """
    A version of a key that stays in the HSM.

    It can't be pickled, and a copy is the key itself.

    Args:
        hsm: Who holds it.

        shown: What the HSM says of its public half.

        public: The same as an object of ``cryptography``.

        approval_id: The approval that it is used under, if that is needed.
    """

    def __init__(
        self, hsm: HSM, shown: ops.PublicKey, public: P, *, approval_id: str = ""
    ) -> None:
        self._hsm = hsm
        self._key_id = shown.key_id
        self._version = shown.version
        self._public = public
        self._approval_id = approval_id

    @property
    def key_id(self) -> KeyId:
        """Id of the key in the HSM."""
        return self._key_id

    @property
    def version(self) -> int:
        """Version that `public_key` belongs to."""
        return self._version

    def public_key(self) -> P:
        """Return the public key, without asking the HSM again."""
        return self._public

    def _sign(
        self,
        *,
        message: bytes | None = None,
        digest: bytes | None = None,
        mu: bytes | None = None,
        scheme: SignatureScheme | None = None,
        hash: HashAlgorithm | None = None,
        context: bytes = b"",
    ) -> bytes:
        """
        Return a signature that the public key verifies.

        Raises:
            ConflictError: The key was rotated since it was opened.
            HSMError: See `Sign`.
        """
        signature = self._hsm.execute(
            ops.Sign(
                key_id=self._key_id,
                message=message,
                digest=digest,
                mu=mu,
                scheme=scheme,
                hash=hash,
                context=context,
            ),
            approval_id=self._approval_id,
        )
        if signature.version != self._version:
            # What was signed says, or will say, that it is of the other public key.
            raise ConflictError(
                "The key was rotated after it was opened. Open it again.",
                field="version",
                expected=self._version,
                actual=signature.version,
            )
        return signature.signature

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedOperationError(f"{what}: the key can't leave the HSM.")

    def private_bytes(self, *_: Any, **__: Any) -> bytes:
        """Raise `UnsupportedOperationError`: the key stays where it is."""
        self._refuse("private bytes are not available")

    def private_bytes_raw(self) -> bytes:
        """Raise `UnsupportedOperationError`: the key stays where it is."""
        self._refuse("private bytes are not available")

    def private_numbers(self) -> Any:
        """Raise `UnsupportedOperationError`: the key stays where it is."""
        self._refuse("private numbers are not available")

    def __copy__(self) -> Self:
        """Return the key itself."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the key itself."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("HSM keys can't be pickled: the key can't leave the HSM.")

    def __repr__(self) -> str:
        """Return type, id and version."""
        return f"<{type(self).__name__} {self._key_id} version {self._version}>"


Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes-like object."""


def _part(of: object, name: str) -> Any:
    """Return a part of an argument of ``cryptography``, which has no public name."""
    return getattr(of, f"_{name}")


_NAMES: Final = {
    "sha256": HashAlgorithm.SHA_256,
    "sha384": HashAlgorithm.SHA_384,
    "sha512": HashAlgorithm.SHA_512,
}


def _name_of(algorithm: object) -> HashAlgorithm:
    """
    Return what the HSM calls a hash.

    Raises:
        UnsupportedOperationError: It signs with no such hash.
    """
    if isinstance(algorithm, hashes.HashAlgorithm):
        found = _NAMES.get(algorithm.name)
        if found is not None:
            return found
    raise UnsupportedOperationError(
        "The hash must be SHA-256, SHA-384 or SHA-512.", field="hash"
    )


def _digest_of(data: bytes, algorithm: object) -> tuple[bytes, HashAlgorithm]:
    """
    Return the digest of data, or data that is one already, and by which hash.

    Large messages need not travel: what is signed is the same.

    Raises:
        InputSizeError: What should be a digest has another length.
        UnsupportedOperationError: See `_name_of`.
    """
    if isinstance(algorithm, Prehashed):
        name = _name_of(_part(algorithm, "algorithm"))
        if len(data) != name.digest_bytes:
            size = name.digest_bytes
            raise InputSizeError("data", actual=len(data), minimum=size, maximum=size)
        return bytes(data), name
    name = _name_of(algorithm)
    if not isinstance(algorithm, hashes.HashAlgorithm):
        raise AssertionError("A hash that has a name is a hash.")
    hasher = hashes.Hash(algorithm)
    hasher.update(data)
    return hasher.finalize(), name


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
        digest, name = _digest_of(bytes(data), signature_algorithm.algorithm)
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
        digest, name = _digest_of(bytes(data), algorithm)
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
                aad=_part(padding, "label") or b"",
                hash=_name_of(padding.algorithm),
                mgf_hash=_name_of(_part(padding.mgf, "algorithm")),
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
            "padding must be PSS or PKCS#1 v1.5 to sign with an RSA key."
        )
    if _name_of(_part(padding.mgf, "algorithm")) is not hash:
        raise UnsupportedOperationError(
            "The PSS mask hash must be the message hash.", field="hash"
        )
    salt = _part(padding, "salt_length")
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

_CLASSES: Final[dict[type, Callable[..., PrivateKey]]] = {
    rsa.RSAPublicKey: HSMRSAKey,
    ec.EllipticCurvePublicKey: HSMEllipticCurveKey,
    ed25519.Ed25519PublicKey: HSMEd25519Key,
    ed448.Ed448PublicKey: HSMEd448Key,
    mldsa.MLDSA44PublicKey: HSMMLDSA44Key,
    mldsa.MLDSA65PublicKey: HSMMLDSA65Key,
    mldsa.MLDSA87PublicKey: HSMMLDSA87Key,
}
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
    for kind, key_class in _CLASSES.items():
        if isinstance(public, kind):
            return key_class(hsm, shown, public, approval_id=approval_id)
    raise _no_such_keys(shown)


def _no_such_keys(shown: ops.PublicKey) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"The cryptography package has no signing keys for {shown.algorithm}.",
        field="key_id",
    )

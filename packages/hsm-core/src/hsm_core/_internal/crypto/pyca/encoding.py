# SPDX-License-Identifier: MIT
"""
Strict encoding and decoding of keys.

The library reads more than we want: PKCS#1 and SEC 1 keys, explicit curves, compressed
points, keys bound to PSS. So private keys must announce the exact algorithm of the
table in PKCS#8, and a public key must be what we would have written ourselves.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import (
    PrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from hsm_core._internal.crypto.der import (
    algorithm_identifier,
    invalid_key,
    not_material,
    not_public_key,
)
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import InvalidInputError
from hsm_core.protocols import SignatureParameters

_VERSIONS: Final = (b"\x02\x01\x00", b"\x02\x01\x01")
REFUSALS: Final = (ValueError, TypeError, UnsupportedAlgorithm, InternalError)
"""What the library raises at a key that it can't read."""


def not_a_peer(algorithm: Algorithm) -> InvalidInputError:
    """Return the one error for a public key that no secret can be agreed on with."""
    words = f"is not a valid SubjectPublicKeyInfo of {algorithm}, in DER"
    return invalid_key(algorithm, "peer_public_key", words)


def load_private(
    algorithm: Algorithm, material: bytes, *, trusted: bool
) -> PrivateKeyTypes:
    """
    Read PKCS#8 (RFC 5958) that announces exactly this algorithm.

    Args:
        algorithm: What it should be.

        material: PKCS#8, DER, not encrypted.

        trusted: It is our own and was authenticated: an RSA key's numbers are not
            checked again, which would take 36 to 256 ms.

    Returns:
        A key of the class and, for EC, of the curve that belong to the algorithm.

    Raises:
        InvalidInputError: It is anything else, or its numbers don't belong together.
    """
    start = _header_bytes(material)
    announced = material[start + 3 :].startswith(algorithm_identifier(algorithm))
    if material[start : start + 3] not in _VERSIONS or not announced:
        raise not_material(algorithm)
    try:
        return load_der_private_key(
            material, None, unsafe_skip_rsa_key_validation=trusted
        )
    except REFUSALS:
        raise not_material(algorithm) from None


def load_public(algorithm: Algorithm, public_der: bytes) -> PublicKeyTypes:
    """
    Read SubjectPublicKeyInfo in the one form that we write.

    Returns:
        A key of the class and, for EC, of the curve that belong to the algorithm.

    Raises:
        InvalidInputError: It is anything else, or the point is not on the curve.
    """
    start = _header_bytes(public_der)
    if not public_der[start:].startswith(algorithm_identifier(algorithm)):
        raise not_public_key(algorithm)
    try:
        key = load_der_public_key(public_der)
        canonical = subject_public_key_info(key) == public_der
    except REFUSALS:
        raise not_public_key(algorithm) from None
    if not canonical:
        raise not_public_key(algorithm)
    return key


def load_peer(algorithm: Algorithm, public_der: bytes) -> PublicKeyTypes:
    """Read the public key of another party, as `load_public`."""
    try:
        return load_public(algorithm, public_der)
    except InvalidInputError:
        raise not_a_peer(algorithm) from None


PublicKey = TypeVar("PublicKey", bound=PublicKeyTypes)


class PublicKeyHandle(BaseHandle, Generic[PublicKey]):
    """
    A public key of the library.

    Args:
        algorithm: What it is a key of.

        key: As `load_public` returns it.
    """

    def __init__(self, algorithm: Algorithm, key: PublicKey) -> None:
        super().__init__(algorithm)
        self._public = key

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo, DER; points are uncompressed."""
        return subject_public_key_info(self._public)


def private_der(key: PrivateKeyTypes) -> bytes:
    """Return PKCS#8, DER, not encrypted."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def subject_public_key_info(key: PublicKeyTypes) -> bytes:
    """Return SubjectPublicKeyInfo, DER; points are uncompressed."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _header_bytes(der: bytes) -> int:
    """Return the length of an outer SEQUENCE's header; the rest is read later."""
    if len(der) < 2 or der[0] != 0x30:
        return len(der)
    return 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)


HASHES: Final[dict[HashAlgorithm, hashes.HashAlgorithm]] = {
    HashAlgorithm.SHA_256: hashes.SHA256(),
    HashAlgorithm.SHA_384: hashes.SHA384(),
    HashAlgorithm.SHA_512: hashes.SHA512(),
}


def hash_of(parameters: SignatureParameters) -> hashes.HashAlgorithm | Prehashed:
    """Return the hash to apply, or the note that it was applied already."""
    chosen = HASHES[parameters.hash]
    return Prehashed(chosen) if parameters.prehashed else chosen


def mgf1(chosen: HashAlgorithm, seed: bytes, length: int) -> bytes:
    """Return a mask of *length* bytes (RFC 8017, appendix B.2.1)."""
    mask = b""
    for counter in range(-(-length // chosen.digest_bytes)):
        state = hashes.Hash(HASHES[chosen])
        state.update(seed + counter.to_bytes(4))
        mask += state.finalize()
    return mask[:length]

# SPDX-License-Identifier: MIT
"""Key encapsulation from bytes, and whole messages sealed by it."""

from __future__ import annotations

from hsm_core._internal.crypto.kem_sealing import open_with, seal_to
from hsm_core._primitives.keys import Key, private_half, public_half, registry
from hsm_core.algorithms import Algorithm
from hsm_core.model import Record, Secret


class Encapsulated(Record, frozen=True, kw_only=True):
    """
    A fresh shared secret and its encapsulation.

    Attributes:
        ciphertext: What the holder of the private key gets.
        shared_secret: 32 bytes.
    """

    ciphertext: bytes
    shared_secret: Secret


def encapsulate(algorithm: Algorithm, key: Key) -> Encapsulated:
    """
    Make a fresh shared secret for the holder of a private key.

    Args:
        algorithm: An ML-KEM algorithm or a composite of one.

        key: Public key.

    Standard:
        FIPS 203, section 7.2; draft-ietf-lamps-pq-composite-kem-18.

    Example:
        >>> from hsm_core.primitives import generate
        >>> pair = generate(Algorithm.ML_KEM_768)
        >>> made = encapsulate(Algorithm.ML_KEM_768, pair.public_der)
        >>> found = decapsulate(Algorithm.ML_KEM_768, pair.material, made.ciphertext)
        >>> found == made.shared_secret
        True
    """
    secret, ciphertext = public_half(algorithm, key).encapsulate()
    return Encapsulated(ciphertext=ciphertext, shared_secret=secret)


def decapsulate(algorithm: Algorithm, key: Key, ciphertext: bytes) -> bytes:
    """
    Return the shared secret of an encapsulation.

    Args:
        algorithm: An ML-KEM algorithm or a composite of one.

        key: Private key.

        ciphertext: Exactly as long as the algorithm's encapsulations.

    Returns:
        32 bytes. An encapsulation that was changed gives another secret, without an
        error (implicit rejection).

    Raises:
        InputSizeError: *ciphertext* is of another length.
        DecryptionError: Of a composite only: its traditional half is no public key.

    Standard:
        FIPS 203, section 7.3; draft-ietf-lamps-pq-composite-kem-18.
    """
    return private_half(algorithm, key).decapsulate(ciphertext)


def seal(
    algorithm: Algorithm,
    key: Key,
    key_id: str,
    version: int,
    plaintext: bytes,
    aad: bytes = b"",
) -> bytes:
    """
    Encrypt a message to a KEM key, as the HSM's `Seal` does; the HSM opens it.

    Args:
        algorithm: An ML-KEM algorithm, or a composite for hybrid encryption.

        key: Public key.

        key_id: Id of the key in its HSM, a UUID.

        version: Version of the key that the public key belongs to.

        plaintext: At most 2 147 483 631 bytes.

        aad: Authenticated, not encrypted.

    Raises:
        InvalidInputError: *key_id* is no UUID in canonical form.
        InputSizeError: *plaintext* or *aad* is too long.

    Standard:
        FIPS 203, section 7.2, or the composite's draft; RFC 5869; SP 800-38D. The
        format is published: "Format of ciphertexts".

    Example:
        >>> from hsm_core.primitives import generate
        >>> algorithm = Algorithm.MLKEM768_X25519_SHA3_256
        >>> pair = generate(algorithm)
        >>> key_id = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
        >>> sent = seal(algorithm, pair.public_der, key_id, 1, b"hello")
        >>> open_sealed(algorithm, pair.material, sent)
        b'hello'
    """
    public = public_half(algorithm, key)
    return seal_to(registry(), public, key_id, version, plaintext, aad)


def open_sealed(
    algorithm: Algorithm, key: Key, ciphertext: bytes, aad: bytes = b""
) -> bytes:
    """
    Decrypt what `seal` or the HSM's `Seal` returned.

    Args:
        algorithm: An ML-KEM algorithm or a composite of one.

        key: Private key.

        ciphertext: The envelope.

        aad: As given to `seal`.

    Raises:
        DecryptionError: Anything does not match; it is not said what.

    Standard:
        FIPS 203, section 7.3, or the composite's draft; RFC 5869; SP 800-38D.
    """
    return open_with(registry(), private_half(algorithm, key), ciphertext, aad)

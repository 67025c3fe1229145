# SPDX-License-Identifier: MIT
"""Encryption and key encapsulation with given keys."""

from __future__ import annotations

import hmac

from hsm_core._internal.crypto.ciphertexts import open_with, seal_to
from hsm_core._primitives.keys import (
    Key,
    oaep_parameters,
    private_half,
    public_half,
    registry,
)
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import InputSizeError, MacMismatchError
from hsm_core.model import Record, Secret

_NONCE_BYTES = 12


def aead_encrypt(
    algorithm: Algorithm, key: Key, nonce: bytes, plaintext: bytes, aad: bytes = b""
) -> bytes:
    """
    Encrypt and authenticate under a nonce of the caller's.

    A nonce must never be used twice with a key: that gives away the plaintexts' XOR
    and the authentication key. An HSM draws its nonces itself; here it is your duty.

    Args:
        algorithm: AES-256-GCM, AES-128-GCM or ChaCha20-Poly1305.

        key: 32 bytes; 16 for AES-128-GCM.

        nonce: Exactly 12 bytes, the initialisation vector of the standard.

        plaintext: At most 2 147 483 631 bytes.

        aad: Authenticated, not encrypted; at most 2 147 483 631 bytes.

    Returns:
        Ciphertext, as long as *plaintext*, followed by a tag of 16 bytes.

    Raises:
        InputSizeError: An argument is of another length.

    Standard:
        SP 800-38D, section 7.1, algorithm 4; RFC 8439, section 2.8.

    Example:
        >>> key, nonce = bytes(32), bytes(12)
        >>> sealed = aead_encrypt(Algorithm.AES_256_GCM, key, nonce, b"hello")
        >>> len(sealed)
        21
        >>> aead_decrypt(Algorithm.AES_256_GCM, key, nonce, sealed)
        b'hello'
    """
    return private_half(algorithm, key).seal(nonce, plaintext, aad)


def aead_decrypt(
    algorithm: Algorithm, key: Key, nonce: bytes, ciphertext: bytes, aad: bytes = b""
) -> bytes:
    """
    Decrypt what `aead_encrypt` returned, after checking its tag.

    Args:
        algorithm: AES-256-GCM, AES-128-GCM or ChaCha20-Poly1305.

        key: 32 bytes; 16 for AES-128-GCM.

        nonce: Exactly 12 bytes.

        ciphertext: Ciphertext ‖ tag.

        aad: As given to `aead_encrypt`.

    Raises:
        DecryptionError: Anything does not match; it is not said what.
        InputSizeError: *nonce* is of another length.

    Standard:
        SP 800-38D, section 7.2, algorithm 5; RFC 8439, section 2.8.

    Example:
        >>> aead_decrypt(Algorithm.AES_256_GCM, bytes(32), bytes(12), bytes(21))
        Traceback (most recent call last):
        ...
        hsm_core.errors.DecryptionError: The ciphertext could not be decrypted.
    """
    if len(nonce) != _NONCE_BYTES:
        raise InputSizeError(
            "nonce", actual=len(nonce), minimum=_NONCE_BYTES, maximum=_NONCE_BYTES
        )
    return private_half(algorithm, key).open(nonce, ciphertext, aad)


def oaep_encrypt(
    algorithm: Algorithm,
    key: Key,
    plaintext: bytes,
    *,
    hash: HashAlgorithm = HashAlgorithm.SHA_256,
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256,
    label: bytes = b"",
) -> bytes:
    """
    Encrypt a short message to a public key.

    Args:
        algorithm: An RSA algorithm.

        key: Public key.

        plaintext: At most the modulus's length less twice the hash's less 2 bytes:
            190 for RSA-2048 and 318 for RSA-3072 with SHA-256.

        hash: Hash of the label.

        mgf_hash: Hash of MGF1.

        label: Authenticated, not encrypted.

    Returns:
        A ciphertext as long as the modulus.

    Raises:
        InputSizeError: *plaintext* is too long.

    Standard:
        RFC 8017, section 7.1.1.

    Example:
        >>> from hsm_core.primitives import generate
        >>> pair = generate(Algorithm.RSA_2048)
        >>> sent = oaep_encrypt(Algorithm.RSA_2048, pair.public_der, b"hello")
        >>> len(sent)
        256
        >>> oaep_decrypt(Algorithm.RSA_2048, pair.material, sent)
        b'hello'
    """
    parameters = oaep_parameters(hash, mgf_hash, label)
    return public_half(algorithm, key).encrypt(plaintext, parameters)


def oaep_decrypt(
    algorithm: Algorithm,
    key: Key,
    ciphertext: bytes,
    *,
    hash: HashAlgorithm = HashAlgorithm.SHA_256,
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256,
    label: bytes = b"",
) -> bytes:
    """
    Decrypt what `oaep_encrypt` returned.

    Args:
        algorithm: An RSA algorithm.

        key: Private key.

        ciphertext: Exactly as long as the modulus.

        hash: As given to `oaep_encrypt`.

        mgf_hash: As given to `oaep_encrypt`.

        label: As given to `oaep_encrypt`.

    Raises:
        DecryptionError: Anything does not match, or the length is another.

    Standard:
        RFC 8017, section 7.1.2.
    """
    parameters = oaep_parameters(hash, mgf_hash, label)
    return private_half(algorithm, key).decrypt(ciphertext, parameters)


def mac(algorithm: Algorithm, key: Key, message: bytes) -> bytes:
    """
    Compute a message authentication code.

    Args:
        algorithm: An HMAC algorithm.

        key: As long as the hash: 32, 48 or 64 bytes.

        message: Any length.

    Returns:
        As long as the hash, never truncated.

    Standard:
        FIPS 198-1.

    Example:
        >>> mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello").hex()[:16]
        '4352b26e33fe0d76'
    """
    return private_half(algorithm, key).mac(message)


def verify_mac(algorithm: Algorithm, key: Key, message: bytes, tag: bytes) -> None:
    """
    Check a MAC in constant time; return nothing if it is good.

    Args:
        algorithm: An HMAC algorithm.

        key: As long as the hash: 32, 48 or 64 bytes.

        message: Any length.

        tag: All bytes of the MAC; a truncated one is wrong.

    Raises:
        MacMismatchError: It is wrong, of whatever length.

    Standard:
        FIPS 198-1.

    Example:
        >>> tag = mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello")
        >>> verify_mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello", tag)
        >>> verify_mac(Algorithm.HMAC_SHA_256, bytes(32), b"hello", tag[:16])
        Traceback (most recent call last):
        ...
        hsm_core.errors.MacMismatchError: The MAC does not match.
    """
    if not hmac.compare_digest(mac(algorithm, key, message), tag):
        raise MacMismatchError


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

# SPDX-License-Identifier: MIT
"""Authenticated encryption, RSAES-OAEP and MACs from bytes."""

from __future__ import annotations

import hmac

from hsm_core._internal.crypto.guard import octets
from hsm_core._primitives.arguments import member
from hsm_core._primitives.keys import Key, private_half, public_half
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import InputSizeError, MacMismatchError
from hsm_core.protocols import OAEPParameters

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
    parameters = _oaep(hash, mgf_hash, label)
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
    parameters = _oaep(hash, mgf_hash, label)
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


def _oaep(hash: HashAlgorithm, mgf_hash: HashAlgorithm, label: bytes) -> OAEPParameters:
    return OAEPParameters(
        hash=member(HashAlgorithm, hash, "hash"),
        mgf_hash=member(HashAlgorithm, mgf_hash, "mgf_hash"),
        label=octets(label),
    )
